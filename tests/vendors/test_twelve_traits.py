"""12traits' requests, byte for byte, and what its answers mean (Ingestion API Reference)."""

from __future__ import annotations

import json

import pytest
from vendor_requests import answered, batches, request, settings

from transforms.vendors import get
from transforms.vendors.base import Delivered, Retry, Split, Stop, Verdict

AUTH = ["Content-Type: application/json", "Authorization: Bearer pk_s3cret"]

ARRAYS = [
    (
        "action",
        "actions",
        "actions",
        (
            b'{"timestamp":"2019-01-01 15:04:05","player_id":"1001","action_id":"2002","action_name":"buy_item",'
            b'"action_params":[{"key":"item_id","value":"3003"}]}'
        ),
    ),
    ("kpi", "kpis", "kpis", b'{"timestamp":"2019-01-01 15:04:05","player_id":"1001","kpi_id":"LTV","value":10.25}'),
    (
        "player_login",
        "player-logins",
        "players",
        b'{"timestamp":"2019-01-01 15:04:05","player_id":"1001","clan_id":"2002","level":10,"country":"US"}',
    ),
    ("purchase", "purchases", "purchases", b'{"player_id":"1001","item_id":"2002","count":1,"price":25.5}'),
    (
        "virtual_purchase",
        "virtual-purchases",
        "virtual_purchases",
        b'{"player_id":"1001","item_id":"2002","count":1,"virtual_price":25.5,"currency":"gold"}',
    ),
    ("level_up", "level-ups", "level_ups", b'{"player_id":"1001","level":10}'),
    ("item", "items", "items", b'{"item_id":"1001","price":25.5,"currency":"USD","name":"Axe","type":"weapon"}'),
    (
        "social_dynamics",
        "social-dynamics",
        "social_dynamics",
        b'{"player_id":"1001","target_player_id":"1002","connection":"linked","interaction":"friend"}',
    ),
]


@pytest.mark.parametrize(("model", "path", "array", "payload"), ARRAYS)
def test_arrays(model: str, path: str, array: str, payload: bytes) -> None:
    assert request(settings("12traits"), model, payload, payload, users=["a", "b"]) == (
        f"/v1/games/{path}",
        AUTH,
        b'{"' + array.encode() + b'":[' + payload + b"," + payload + b"]}",
    )


def test_playfab_s_records_go_as_they_are() -> None:
    record = b'{"EventName": "player_logged_in",  "EntityId":"A1"}'
    path = "/v1/games/playfab?api_key=pk_s3cret"
    headers = ["Content-Type: application/json"]
    assert request(settings("12traits"), "playfab", record) == (path, headers, b"[" + record + b"]")
    assert request(settings("12traits"), "playfab", record, record) == (
        path,
        headers,
        b"[" + record + b"," + record + b"]",
    )
    model = get("12traits").models["playfab"]
    assert model.passthrough
    assert not model.by_default


def test_all_models_are_here_and_only_playfab_is_off_by_default() -> None:
    models = get("12traits").models
    assert {model for model, *_ in ARRAYS} | {"playfab"} == set(models)
    assert [name for name, model in models.items() if not model.by_default] == ["playfab"]


@pytest.mark.parametrize("model", [*[model for model, *_ in ARRAYS], "playfab"])
def test_a_request_is_a_thousand_items(model: str) -> None:
    assert [len(batch.items) for batch in batches(settings("12traits"), model, [b"{}"] * 2_001)] == [1_000, 1_000, 1]


@pytest.mark.parametrize(
    ("status", "answer", "verdict"),
    [
        (201, {"code": 201, "message": "50 actions have been successfully ingested", "data": None}, Delivered()),
        (
            400,
            {"code": 400, "message": "bad request", "errors": {"player_id": "cannot be blank"}},
            Split("HTTP 400: player_id cannot be blank"),
        ),
        (400, {"message": "bad request"}, Split('HTTP 400: {"message": "bad request"}')),
        (
            401,
            {"code": 401, "errors": {"api_key": "unknown"}},
            Stop("credentials.api_key", "HTTP 401: api_key unknown"),
        ),
        (404, {}, Stop("url", "HTTP 404: {}")),
        (500, {}, Retry("HTTP 500")),
    ],
)
def test_answers(status: int, answer: dict[str, object], verdict: Verdict) -> None:
    assert answered(settings("12traits"), "action", [b"{}"], status, json.dumps(answer).encode()) == verdict
