"""Traitly API (v1). Source: Traitly API Reference; headings are named at each rule.

The document shows no status and no error body: success is 200, errors are
`{"data": [], "metadata": {"errors": {field: message}}, "object": "error"}`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from sandbox import checks
from sandbox.checks import Shape
from sandbox.credentials import Credentials
from sandbox.exchange import Item, Refused, Reply, Request
from sandbox.vendors.base import JSON, Vendor, encode, json_body, pairs, require_content_type, require_method

#: Above this a time in seconds lies beyond the year 5000, so it is one in milliseconds.
_MAX_SECONDS = 100_000_000_000
#: How many of the most used event names are recommended.
_RECOMMENDED = 5


def _seconds(value: object) -> str | None:
    """created_at: "Measured in seconds since the Unix epoch", sent as an integer."""
    if type(value) is not int or not 0 <= value < _MAX_SECONDS:
        return "must be whole seconds since the Unix epoch"
    return None


# Events, POST Parameters
_EVENT = Shape({"customer_id": checks.filled, "name": checks.filled}, {"created_at": _seconds})
# Customers, POST Parameters; the last four as the answers show them
_CUSTOMER = Shape(
    {"customer_id": checks.filled, "name": checks.filled, "email": checks.email, "plan": checks.filled},
    {
        "created_at": _seconds,
        "custom_attributes": checks.mapping,
        "monthly_payment_amount": checks.number,
        "location": checks.text,
        "phone_number": checks.text,
        "organisation_id": checks.text,
    },
)
_SHAPES = {"/api/v1/event": ("event", _EVENT), "/api/v1/customer": ("customer", _CUSTOMER)}
_NEXT_ACTIONS = "/api/v1/recommended-next-actions"


class Traitly(Vendor):
    slug = "traitly"

    def __init__(self, credentials: Credentials, keep: int) -> None:
        self._tokens = credentials.traitly
        self._keep = keep
        self._events: deque[dict[str, Any]] = deque(maxlen=keep)
        self._customers: dict[str, dict[str, Any]] = {}

    def error_body(self, status: int, field: str, message: str) -> bytes:
        name = field or {401: "authorization", 404: "path"}.get(status, "body")
        return encode({"data": [], "metadata": {"errors": {name: message}}, "object": "error"})

    def handle(self, request: Request) -> Reply:
        found = _SHAPES.get(request.path)
        if found is None and request.path != _NEXT_ACTIONS:
            raise Refused(404, "", "no such endpoint")
        # Authentication: "Authorization: Token insert-token-here"
        scheme, _, token = request.header(b"authorization").partition(" ")
        if scheme != "Token" or token not in self._tokens:
            raise Refused(401, "", "missing or wrong token")
        if found is None:
            require_method(request, "GET")
            return self._next_actions(request)
        require_method(request, "POST", "GET")
        model, shape = found
        if request.method == "GET":
            return self._list_events(request) if model == "event" else self._list_customers(request)
        return _create(request, model, shape)

    def accepted(self, items: list[Item]) -> None:
        for item in items:
            if item.model == "event":
                self._events.append(_event_answer(item))
                continue
            # A second customer of the same id is an update; the oldest makes room.
            self._customers.pop(item.user, None)
            if len(self._customers) >= self._keep:
                del self._customers[next(iter(self._customers))]
            self._customers[item.user] = _customer_answer(item)

    def _list_events(self, request: Request) -> Reply:
        """List Events: customer_id and name are required."""
        wanted = _parameters(request, required=("customer_id", "name"))
        data = [event for event in self._events if all(event[key] == value for key, value in wanted.items())]
        return _listing(request, "event", data)

    def _list_customers(self, request: Request) -> Reply:
        """List Customers: customer_id, name and plan each narrow the list."""
        wanted = _parameters(request, optional=("customer_id", "name", "plan"))
        customers = self._customers.values()
        data = [each for each in customers if all(each[key] == value for key, value in wanted.items())]
        return _listing(request, "customer", data)

    def _next_actions(self, request: Request) -> Reply:
        """Lookup: Recommended Next Actions. The sandbox recommends the events seen most often."""
        wanted = _parameters(request, required=("customer_id",), optional=("goal_name",))
        customer = wanted["customer_id"]
        seen: dict[str, int] = {}
        own: dict[str, int] = {}
        for event in self._events:
            seen[event["name"]] = seen.get(event["name"], 0) + 1
            if event["customer_id"] == customer:
                own[event["name"]] = own.get(event["name"], 0) + 1
        data = [
            {
                "event_name": name,
                "goal_num_completed": own.get(name, 0),
                "total_num_completed": own.get(name, 0),
                "goal_days_left": 14,
                "importance": round(seen[name] / len(self._events), 3),
                "message_plaintext": f"It's time for {name}",
                "message_html": "<p>It's time for the next step</p>",
            }
            for name in sorted(seen, key=lambda name: (-seen[name], name))[:_RECOMMENDED]
        ]
        answer = {
            "data": data,
            "likelihood": 0.5,
            "meta": {"customer_id": customer, "goal_name": wanted.get("goal_name", "Conversion")},
            "timestamp": int(request.now),
            "object": "recommended-next-actions",
        }
        return Reply(200, encode(answer))


def _create(request: Request, model: str, shape: Shape) -> Reply:
    request.model = model
    body = json_body(request)
    request.count = 1
    if type(body) is dict and type(body.get("customer_id")) is str:
        request.users = {body["customer_id"]}
    for field, wrong in shape.problems(body):
        raise Refused(400, field, wrong)
    created = body.get("created_at", int(request.now))
    item = Item(model, body["customer_id"], created * 1000, body)
    shown = _event_answer(item) if model == "event" else _customer_answer(item)
    answer = {"data": [shown], "metadata": {}, "created": str(int(request.now)), "object": model}
    return Reply(200, encode(answer), [item], violations=[f"{key}: unknown key" for key in shape.unknown(body)])


def _event_answer(item: Item) -> dict[str, Any]:
    seconds = (item.time_ms or 0) // 1000
    return {"customer_id": item.user, "name": item.body["name"], "created_at": str(seconds), "success": 1}


def _customer_answer(item: Item) -> dict[str, Any]:
    body = item.body
    return {
        "customer_id": item.user,
        "name": body["name"],
        "created_at": str((item.time_ms or 0) // 1000),
        "monthly_payment_amount": body.get("monthly_payment_amount", 0),
        "location": body.get("location"),
        "email": body["email"],
        "phone_number": body.get("phone_number"),
        "organisation_id": body.get("organisation_id"),
        "plan": body["plan"],
        "custom_attributes": body.get("custom_attributes", {}),
    }


def _parameters(request: Request, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, str]:
    """The URL parameters. The list calls ask for the JSON content type too ("Remember" under List Events)."""
    require_content_type(request, JSON)
    found = dict(pairs(request.query))
    for name in required:
        if not found.get(name):
            raise Refused(400, name, "is required")
    for name in found:
        if name not in required and name not in optional:
            raise Refused(400, name, "unknown parameter")
    return found


def _listing(request: Request, model: str, data: list[dict[str, Any]]) -> Reply:
    answer = {"data": data, "metadata": {}, "retrieved": str(int(request.now)), "object": model}
    return Reply(200, encode(answer))
