"""12traits Ingestion API (v1). Source: 12traits Ingestion API Reference; headings are named at each rule.

The document shows the success answer only. Errors have the form of the vendor's error page,
`{"code": 400, "message": "bad request", "errors": {field: message}}`, and the codes it names: 400, 401, 404, 500.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sandbox import checks
from sandbox.checks import Shape
from sandbox.credentials import Credentials
from sandbox.exchange import Item, Refused, Reply, Request
from sandbox.vendors.base import Vendor, encode, json_body, pairs, require_method

#: "It is possible to push up to 1000 multiple items at the same time." (API limits)
MAX_ITEMS = 1000

_MESSAGES = {400: "bad request", 401: "unauthorized", 404: "not found", 500: "internal server error"}

_PARAMETER = Shape({"key": checks.filled, "value": checks.text}, {})


def _action_params(value: object) -> str | None:
    if type(value) is not list:
        return "must be an array"
    for parameter in value:
        for field, wrong in _PARAMETER.problems(parameter):
            return f"{field} {wrong}".strip()
        if _PARAMETER.unknown(parameter):
            return "must hold key and value only"
    return None


class _Route(NamedTuple):
    model: str
    key: str  # of the body's array
    noun: str  # in the success message
    shape: Shape


_TIME = {"timestamp": checks.date_time}
_KPIS = ("ARPU", "CPI", "CCR", "LTV", "ER", "RD3", "RD7", "RD30", "RD60")

_ROUTES = {
    # Push Game Actions
    "/v1/games/actions": _Route(
        "action",
        "actions",
        "actions",
        Shape(
            {"player_id": checks.filled, "action_id": checks.filled, "action_name": checks.filled},
            {**_TIME, "action_params": _action_params},
        ),
    ),
    # Push Game KPIs
    "/v1/games/kpis": _Route(
        "kpi",
        "kpis",
        "kpis",
        Shape(
            {"player_id": checks.filled, "value": checks.number},
            {**_TIME, "kpi_id": checks.one_of(*_KPIS), "kpi_custom_title": checks.filled},
        ),
    ),
    # Push Logged In Players
    "/v1/games/player-logins": _Route(
        "player_login",
        "players",
        "players",
        Shape(
            {"player_id": checks.filled},
            {
                **_TIME,
                "clan_id": checks.text,
                "level": checks.integer,
                "device": checks.text,
                "country": checks.country,
                "platform": checks.text,
                "language": checks.language,
                "register_date": checks.date,
                "last_login_timestamp": checks.date_time,
            },
        ),
    ),
    # Push Purchases
    "/v1/games/purchases": _Route(
        "purchase",
        "purchases",
        "purchases",
        Shape(
            {
                "player_id": checks.filled,
                "item_id": checks.filled,
                "count": checks.integer,
                "price": checks.above_zero,
            },
            {**_TIME, "platform": checks.text},
        ),
    ),
    # Push Virtual Purchases
    "/v1/games/virtual-purchases": _Route(
        "virtual_purchase",
        "virtual_purchases",
        "virtual purchases",
        Shape(
            {
                "player_id": checks.filled,
                "item_id": checks.filled,
                "count": checks.integer,
                "virtual_price": checks.number,
                "currency": checks.filled,
            },
            _TIME,
        ),
    ),
    # Push Level Ups
    "/v1/games/level-ups": _Route(
        "level_up", "level_ups", "level-ups", Shape({"player_id": checks.filled, "level": checks.integer}, _TIME)
    ),
    # Push Items
    "/v1/games/items": _Route(
        "item",
        "items",
        "items",
        Shape(
            {
                "item_id": checks.filled,
                "price": checks.number,
                "currency": checks.filled,
                "name": checks.filled,
            },
            {"type": checks.text},
        ),
    ),
    # Push Social Dynamics; "unllinked" is how the document spells it, so both spellings are taken.
    "/v1/games/social-dynamics": _Route(
        "social_dynamics",
        "social_dynamics",
        "social dynamics",
        Shape(
            {
                "player_id": checks.filled,
                "target_player_id": checks.filled,
                "connection": checks.one_of("linked", "unlinked", "unllinked"),
                "interaction": checks.one_of("friend", "party"),
            },
            _TIME,
        ),
    ),
}

_PLAYFAB = "/v1/games/playfab"
_PLAYFAB_EVENT = Shape({"EventName": checks.filled}, {})


class TwelveTraits(Vendor):
    slug = "12traits"

    def __init__(self, credentials: Credentials) -> None:
        self._keys = credentials.twelve_traits

    def error_body(self, status: int, field: str, message: str) -> bytes:
        name = field or {401: "authorization", 404: "path"}.get(status, "body")
        return encode({"code": status, "message": _MESSAGES.get(status, "error"), "errors": {name: message}})

    def handle(self, request: Request) -> Reply:
        if request.path == _PLAYFAB:
            return self._playfab(request)
        route = _ROUTES.get(request.path)
        if route is None:
            raise Refused(404, "", "no such endpoint")
        request.model = route.model
        # 405 is none of the codes the vendor names.
        require_method(request, "POST", status=404)
        scheme, _, key = request.header(b"authorization").partition(" ")
        if scheme != "Bearer" or key not in self._keys:
            raise Refused(401, "", "missing or wrong API key")
        body = json_body(request)
        if type(body) is not dict or type(body.get(route.key)) is not list:
            raise Refused(400, route.key, "must be an array")
        items: list[Any] = body[route.key]
        _note(request, items, "player_id")
        _require_count(route.key, len(items))
        violations = [f"{key}: unknown key of the body" for key in body if key != route.key]
        violations += _check(items, route)
        return _ingested(request, items, route.noun, "player_id", "timestamp", violations)

    def _playfab(self, request: Request) -> Reply:
        """PlayFab Webhook Integration: one event or an array of them, as PlayFab posts them."""
        request.model = "playfab"
        require_method(request, "POST", status=404)
        query = dict(pairs(request.query))
        if query.get("api_key") not in self._keys:
            raise Refused(401, "api_key", "missing or wrong API key")
        body = json_body(request)
        items: list[Any] = body if type(body) is list else [body]
        _note(request, items, "EntityId")
        _require_count("events", len(items))
        for event in items:
            for field, wrong in _PLAYFAB_EVENT.problems(event):
                raise Refused(400, field or "event", wrong)
        violations = [f"{key}: unknown query parameter" for key in query if key != "api_key"]
        return _ingested(request, items, "events", "EntityId", "Timestamp", violations)


def _note(request: Request, items: list[Any], user: str) -> None:
    request.count = len(items)
    request.users = {item[user] for item in items if type(item) is dict and type(item.get(user)) is str}


def _require_count(key: str, count: int) -> None:
    if not 1 <= count <= MAX_ITEMS:
        raise Refused(400, key, f"must hold 1 to {MAX_ITEMS} items")


def _check(items: list[Any], route: _Route) -> list[str]:
    """Refuse the request for its first bad item; return the violations that are let pass."""
    violations = []
    for item in items:
        for field, wrong in route.shape.problems(item):
            raise Refused(400, field or route.key, wrong)
        if route.model == "kpi" and ("kpi_id" in item) == ("kpi_custom_title" in item):
            raise Refused(400, "kpi_id", "exactly one of kpi_id and kpi_custom_title is required")
        violations += [f"{key}: unknown key of an item" for key in route.shape.unknown(item)]
    return violations


def _ingested(request: Request, items: list[Any], noun: str, user: str, time: str, violations: list[str]) -> Reply:
    message = f"{len(items)} {noun} have been successfully ingested"
    taken = []
    for item in items:
        holder = item.get(user, "")
        taken.append(Item(request.model, holder if type(holder) is str else "", checks.utc_ms(item.get(time)), item))
    return Reply(201, encode({"code": 201, "message": message, "data": None}), taken, violations=violations)
