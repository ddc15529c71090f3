"""12traits: the document's own examples, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox_client import Answer, counts, post, reasons, send

from sandbox.credentials import TWELVE_TRAITS_API_KEY
from sandbox.server import Running

AUTH = {"Authorization": f"Bearer {TWELVE_TRAITS_API_KEY}"}
TIME = "2019-01-01 15:04:05"
TIME_MS = 1546355045000

ACTION = {
    "timestamp": TIME,
    "player_id": "1001",
    "action_id": "2002",
    "action_name": "buy_item",
    "action_params": [{"key": "item_id", "value": "3003"}],
}
KPI = {"timestamp": TIME, "player_id": "1001", "kpi_id": "LTV", "value": 10.25}
PLAYER = {
    "timestamp": TIME,
    "player_id": "1001",
    "clan_id": "2002",
    "level": 10,
    "device": "iPhone X",
    "country": "US",
    "language": "en-US",
    "platform": "Apple",
    "register_date": "2018-11-14",
    "last_login_timestamp": "2019-01-01 11:10:06",
}
PURCHASE = {
    "timestamp": TIME,
    "player_id": "1001",
    "item_id": "2002",
    "count": 1,
    "price": 25.50,
    "platform": "Steam",
}
VIRTUAL = {
    "timestamp": TIME,
    "player_id": "1001",
    "item_id": "2002",
    "count": 1,
    "virtual_price": 25.50,
    "currency": "gold",
}
LEVEL_UP = {"timestamp": TIME, "player_id": "1001", "level": 10}
ITEM = {"item_id": "1001", "price": 25.50, "currency": "USD", "name": "Axe", "type": "weapon"}
SOCIAL = {
    "timestamp": TIME,
    "player_id": "1001",
    "target_player_id": "1002",
    "connection": "linked",
    "interaction": "friend",
}

# model: (path, key of the body, noun of the answer, the document's example)
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "action": ("actions", "actions", "actions", ACTION),
    "kpi": ("kpis", "kpis", "kpis", KPI),
    "player_login": ("player-logins", "players", "players", PLAYER),
    "purchase": ("purchases", "purchases", "purchases", PURCHASE),
    "virtual_purchase": ("virtual-purchases", "virtual_purchases", "virtual purchases", VIRTUAL),
    "level_up": ("level-ups", "level_ups", "level-ups", LEVEL_UP),
    "item": ("items", "items", "items", ITEM),
    "social_dynamics": ("social-dynamics", "social_dynamics", "social dynamics", SOCIAL),
}


def push(sandbox: Running, model: str, items: object, headers: dict[str, str] = AUTH) -> Answer:
    path, key, _, _ = MODELS[model]
    return post(sandbox, f"/12traits/v1/games/{path}", {key: items}, headers)


def refusal(field: str, message: str, code: int = 400) -> dict[str, Any]:
    text = {400: "bad request", 401: "unauthorized", 404: "not found"}[code]
    return {"code": code, "message": text, "errors": {field: message}}


@pytest.mark.parametrize("model", MODELS)
def test_the_documents_example_is_taken(sandbox: Running, model: str) -> None:
    noun, example = MODELS[model][2:]
    answer = push(sandbox, model, [example] * 50)
    assert (answer.status, answer.json) == (
        201,
        {"code": 201, "message": f"50 {noun} have been successfully ingested", "data": None},
    )
    items = sandbox.items("12traits")
    assert len(items) == 50
    assert items[0]["item"] == example
    assert items[0]["model"] == model
    assert items[0]["user"] == example.get("player_id", "")
    assert items[0]["time"] == (TIME_MS if "timestamp" in example else None)
    assert sandbox.violations() == []


@pytest.mark.parametrize("model", MODELS)
def test_optional_fields_may_be_absent(sandbox: Running, model: str) -> None:
    optional = {"timestamp", "action_params", "platform", "type", *(set(PLAYER) - {"player_id"})}
    keep = {"level"} if model == "level_up" else set()
    example = {key: value for key, value in MODELS[model][3].items() if key not in optional - keep}
    assert push(sandbox, model, [example]).status == 201
    assert sandbox.violations() == []


REQUIRED = [
    ("action", "player_id"),
    ("action", "action_id"),
    ("action", "action_name"),
    ("kpi", "player_id"),
    ("kpi", "value"),
    ("player_login", "player_id"),
    ("purchase", "player_id"),
    ("purchase", "item_id"),
    ("purchase", "count"),
    ("purchase", "price"),
    ("virtual_purchase", "virtual_price"),
    ("virtual_purchase", "currency"),
    ("level_up", "level"),
    ("item", "name"),
    ("item", "currency"),
    ("social_dynamics", "target_player_id"),
    ("social_dynamics", "connection"),
    ("social_dynamics", "interaction"),
]


@pytest.mark.parametrize(("model", "field"), REQUIRED)
def test_a_missing_field_refuses_the_whole_request(sandbox: Running, model: str, field: str) -> None:
    example = MODELS[model][3]
    bad = {key: value for key, value in example.items() if key != field}
    answer = push(sandbox, model, [example, bad])
    assert (answer.status, answer.json) == (400, refusal(field, "is required"))
    assert reasons(sandbox) == [f"{field}: is required"]
    assert counts(sandbox, "12traits") == (1, 0, 2)


WRONG: list[tuple[str, str, Any, str]] = [
    ("action", "player_id", 1001, "must be a string"),
    ("action", "player_id", None, "must be a string"),
    ("action", "player_id", "", "must not be empty"),
    ("action", "timestamp", "2019-01-01T15:04:05Z", "must be YYYY-MM-DD HH:MM:SS"),
    ("action", "timestamp", "2019-02-30 15:04:05", "must be YYYY-MM-DD HH:MM:SS"),
    ("action", "timestamp", 1546355045, "must be YYYY-MM-DD HH:MM:SS"),
    ("action", "action_params", {"item_id": "3003"}, "must be an array"),
    ("action", "action_params", [{"key": "item_id", "value": 3003}], "value must be a string"),
    ("action", "action_params", [{"key": "item_id"}], "value is required"),
    ("action", "action_params", [{"key": "a", "value": "b", "more": 1}], "must hold key and value only"),
    ("action", "action_params", ["item_id"], "must be an object"),
    ("kpi", "kpi_id", "ltv", "must be one of ARPU, CPI, CCR, LTV, ER, RD3, RD7, RD30, RD60"),
    ("kpi", "value", "10.25", "must be a number"),
    ("kpi", "value", True, "must be a number"),
    ("player_login", "level", 10.5, "must be an integer"),
    ("player_login", "country", "us", "must be two capital letters (ISO 3166-1 alpha-2)"),
    ("player_login", "country", "Germany", "must be two capital letters (ISO 3166-1 alpha-2)"),
    ("player_login", "language", "en_US", "must be an IETF language tag"),
    ("player_login", "register_date", "2018-11-14 00:00:00", "must be YYYY-MM-DD"),
    ("player_login", "last_login_timestamp", "yesterday", "must be YYYY-MM-DD HH:MM:SS"),
    ("purchase", "price", 0, "must be above 0"),
    ("purchase", "price", "25.50", "must be a number"),
    ("purchase", "count", 1.0, "must be an integer"),
    ("virtual_purchase", "currency", "", "must not be empty"),
    ("level_up", "level", "10", "must be an integer"),
    ("item", "type", 7, "must be a string"),
    ("social_dynamics", "connection", "friends", "must be one of linked, unlinked, unllinked"),
    ("social_dynamics", "interaction", "guild", "must be one of friend, party"),
]


@pytest.mark.parametrize(("model", "field", "value", "message"), WRONG)
def test_a_wrong_value(sandbox: Running, model: str, field: str, value: Any, message: str) -> None:
    answer = push(sandbox, model, [{**MODELS[model][3], field: value}])
    assert (answer.status, answer.json) == (400, refusal(field, message))
    assert reasons(sandbox) == [f"{field}: {message}"]


def test_a_kpi_has_either_an_id_or_a_title(sandbox: Running) -> None:
    own = {"player_id": "1", "kpi_custom_title": "Fun", "value": 1}
    assert push(sandbox, "kpi", [own]).status == 201
    for bad in ({**own, "kpi_id": "LTV"}, {"player_id": "1", "value": 1}):
        answer = push(sandbox, "kpi", [bad])
        assert answer.json == refusal("kpi_id", "exactly one of kpi_id and kpi_custom_title is required")


def test_at_most_1000_items(sandbox: Running) -> None:
    assert push(sandbox, "level_up", [LEVEL_UP] * 1000).status == 201
    for count in (1001, 0):
        answer = push(sandbox, "level_up", [LEVEL_UP] * count)
        assert (answer.status, answer.json) == (400, refusal("level_ups", "must hold 1 to 1000 items"))
    assert counts(sandbox, "12traits") == (3, 1000, 1001)


def test_unknown_keys_are_taken_but_told(sandbox: Running) -> None:
    path = "/12traits/v1/games/level-ups"
    assert post(sandbox, path, {"level_ups": [{**LEVEL_UP, "xp": 3}], "extra": 1}, AUTH).status == 201
    assert sorted(reasons(sandbox)) == ["extra: unknown key of the body", "xp: unknown key of an item"]


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Token {TWELVE_TRAITS_API_KEY}"}]
)
def test_a_wrong_key(sandbox: Running, header: dict[str, str]) -> None:
    answer = push(sandbox, "action", [ACTION], header)
    assert (answer.status, answer.json) == (401, refusal("authorization", "missing or wrong API key", 401))
    assert reasons(sandbox) == ["missing or wrong API key"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "answer"),
    [
        ("GET", "actions", {}, b"", 404, refusal("path", "method GET is not allowed, use POST", 404)),
        ("POST", "action", {}, b"{}", 404, refusal("path", "no such endpoint", 404)),
        ("POST", "actions", {}, b"{", 400, refusal("body", "body is not valid JSON")),
        ("POST", "actions", {}, b'{"actions": "\xff"}', 400, refusal("body", "body is not valid JSON")),
        ("POST", "actions", {}, b"[" * 100_000, 400, refusal("body", "body is not valid JSON")),
        ("POST", "actions", {}, b"[]", 400, refusal("actions", "must be an array")),
        ("POST", "actions", {}, b'{"actions": {}}', 400, refusal("actions", "must be an array")),
        ("POST", "actions", {}, b'{"actions": [1]}', 400, refusal("actions", "must be an object")),
        (
            "POST",
            "actions",
            {"Content-Type": "text/plain"},
            b"{}",
            400,
            refusal("body", "content-type must be application/json"),
        ),
        (
            "POST",
            "actions",
            {"Content-Encoding": "gzip"},
            b"{}",
            400,
            refusal("body", "content-encoding gzip is not taken"),
        ),
    ],
)
def test_a_wrong_request(
    sandbox: Running,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    answer: dict[str, Any],
) -> None:
    sent = {"Content-Type": "application/json; charset=utf-8", **AUTH, **headers}
    found = send(sandbox, method, f"/12traits/v1/games/{path}", body, sent)
    assert (found.status, found.json) == (status, answer)
    assert len(sandbox.violations()) == 1


PLAYFAB = {"EventName": "player_logged_in", "EntityId": "64647AA368D6448E", "Timestamp": "2017-10-27T09:35:16.2946918Z"}


@pytest.mark.parametrize("count", [None, 1, 1000])
def test_playfab_events_one_or_an_array(sandbox: Running, count: int | None) -> None:
    body: object = PLAYFAB if count is None else [PLAYFAB] * count
    answer = post(sandbox, f"/12traits/v1/games/playfab?api_key={TWELVE_TRAITS_API_KEY}", body)
    assert answer.status == 201
    assert answer.json["message"] == f"{count or 1} events have been successfully ingested"
    item = sandbox.items("12traits", model="playfab", user="64647AA368D6448E")[-1]
    assert (item["item"], item["time"]) == (PLAYFAB, 1509096916000)
    assert sandbox.violations() == []


@pytest.mark.parametrize(
    ("query", "body", "status", "answer"),
    [
        ("", PLAYFAB, 401, refusal("api_key", "missing or wrong API key", 401)),
        ("?api_key=wrong", PLAYFAB, 401, refusal("api_key", "missing or wrong API key", 401)),
        (f"?api_key={TWELVE_TRAITS_API_KEY}", [], 400, refusal("events", "must hold 1 to 1000 items")),
        (f"?api_key={TWELVE_TRAITS_API_KEY}", [PLAYFAB] * 1001, 400, refusal("events", "must hold 1 to 1000 items")),
        (f"?api_key={TWELVE_TRAITS_API_KEY}", {"a": 1}, 400, refusal("EventName", "is required")),
        (f"?api_key={TWELVE_TRAITS_API_KEY}", [7], 400, refusal("event", "must be an object")),
    ],
)
def test_a_wrong_playfab_request(
    sandbox: Running, query: str, body: object, status: int, answer: dict[str, Any]
) -> None:
    found = send(
        sandbox,
        "POST",
        f"/12traits/v1/games/playfab{query}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    assert (found.status, found.json) == (status, answer)
    assert len(sandbox.violations()) == 1
