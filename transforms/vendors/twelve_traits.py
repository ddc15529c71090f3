"""12traits: eight kinds of game data in arrays, and PlayFab's events as they are.

Rules are from the document "12traits Ingestion API Reference".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from transforms.vendors.base import (
    Answer,
    Credential,
    Frame,
    Limits,
    Model,
    On,
    Option,
    Route,
    Settings,
    Split,
    Stop,
    Vendor,
    answer_fields,
    error_text,
    excerpt,
)

ITEMS = 1_000
"""Items a request. Source: 12traits Ingestion API Reference, API limits."""

BODY_BYTES = 1_000_000
"""Bytes of a body: the document names no limit. This is what web servers commonly take unless told otherwise."""

_LIMITS = Limits(ITEMS, BODY_BYTES, "12traits Ingestion API Reference, API limits")


def _route(path: str, array: str) -> Route:
    return Route(array, f"/v1/games/{path}", _LIMITS)


PLAYFAB = Route(
    "playfab",
    "/v1/games/playfab",
    Limits(ITEMS, BODY_BYTES, "12traits Ingestion API Reference, API limits and PlayFab"),
)

MODELS = {
    "action": Model("twelve_traits/action", _route("actions", "actions"), "What a player did."),
    "kpi": Model("twelve_traits/kpi", _route("kpis", "kpis"), "A player's figure, known or custom."),
    "player_login": Model("twelve_traits/player_login", _route("player-logins", "players"), "A player logs in."),
    "purchase": Model("twelve_traits/purchase", _route("purchases", "purchases"), "A real-money purchase."),
    "virtual_purchase": Model(
        "twelve_traits/virtual_purchase",
        _route("virtual-purchases", "virtual_purchases"),
        "An item bought for virtual currency.",
    ),
    "level_up": Model("twelve_traits/level_up", _route("level-ups", "level_ups"), "A player reaches a level."),
    "item": Model("twelve_traits/item", _route("items", "items"), "An item of the game's catalogue."),
    "social_dynamics": Model(
        "twelve_traits/social_dynamics", _route("social-dynamics", "social_dynamics"), "Two players link or unlink."
    ),
    "playfab": Model(
        "twelve_traits/playfab",
        PLAYFAB,
        "The original record of a PlayFab source, unchanged.",
        passthrough=True,
        by_default=False,
    ),
}


def _base_url(credentials: Mapping[str, str], options: Mapping[str, Any]) -> str:
    return "https://api.12traits.com"


def _headers(settings: Settings, route: Route) -> list[str]:
    """PlayFab's webhook authenticates in the query, all else by a bearer key (Authentication; PlayFab)."""
    return [] if route.name == PLAYFAB.name else [f"Authorization: Bearer {settings.credentials['api_key']}"]


def _query(settings: Settings, route: Route) -> str:
    return f"?{urlencode({'api_key': settings.credentials['api_key']})}" if route.name == PLAYFAB.name else ""


def _frame(settings: Settings, route: Route, user: str, now: float) -> Frame:
    """A route's name is the array that its body holds."""
    return Frame(b"[", b"]") if route.name == PLAYFAB.name else Frame(b'{"%s":[' % route.name.encode(), b"]}")


def _message(answer: Answer) -> str:
    """`{"code":400,"message":"bad request","errors":{field: message}}` as one line."""
    body = answer_fields(answer)
    if body.get("errors"):
        return f"HTTP {answer.status}: {error_text(body['errors'])}"
    return f"HTTP {answer.status}: {excerpt(answer.body)}"


VENDOR = Vendor(
    slug="12traits",
    title="12traits",
    doc="Actions, logins, purchases, level-ups and more. A request sent again after a lost answer is counted twice.",
    credentials=(Credential("api_key", "API key of the game."),),
    credential_sets=(frozenset({"api_key"}),),
    options=(
        Option(
            "unlinked_word",
            "How a link that ended is written in `connection`; the document's `unllinked` is taken for a misprint.",
            default="unlinked",
            choices=("unlinked", "unllinked"),
        ),
    ),
    models=MODELS,
    base_url=_base_url,
    frame=_frame,
    headers=_headers,
    query=_query,
    answers=(
        On((400, 422), lambda answer, _: Split(_message(answer))),
        On((401, 403), lambda answer, _: Stop("credentials.api_key", _message(answer))),
    ),
)
