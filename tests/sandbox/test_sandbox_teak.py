"""Teak: the document's own examples, item answers, the rate, and what is refused."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import pytest
from sandbox_client import FORM, JSON, Answer, counts, post, post_form, reasons, send

from sandbox.credentials import TEAK_GAME_ID, TEAK_SECRET_KEY
from sandbox.server import Running

KEYS = {"game_id": TEAK_GAME_ID, "secret_key": TEAK_SECRET_KEY}
SINGLE = "/teak/v2/analytics_events"
BATCH = "/teak/v2/analytics_events/batch"
LEVEL_UP = {
    "user_id": "player_123",
    "action_type": "level_up",
    "object_type": "character",
    "object_instance_id": "warrior",
    "event_count": 1,
}
SPIN = {
    "user_id": "player_456",
    "action_type": "spin",
    "object_type": "Mr. Bling Bling's Slots",
    "object_instance_id": "bet_5000",
    "event_count": 10,
    "value": 50000,
    "sum_of_squares": 250000000,
    "country_code": "US",
}
RATE_LIMIT = (
    b'{"status":"rate_limit","errors":{"rate_limit":["/v2/analytics_events/batch may only be called 100 times'
    b' per second. Please wait a second and try again"]}}'
)
NOT_FOUND = {"user_id": ["could not be found"]}


def batch(sandbox: Running, events: object) -> Answer:
    return post(sandbox, BATCH, {**KEYS, "events": events})


def refusal(field: str, message: str) -> dict[str, Any]:
    return {"status": "error", "errors": {field: [message]}}


def test_the_documents_batch_is_taken(sandbox: Running) -> None:
    answer = batch(sandbox, [LEVEL_UP, SPIN])
    assert (answer.status, answer.json) == (
        200,
        {
            "status": "ok",
            "results": [{"status": "ok", "user_id": "player_123"}, {"status": "ok", "user_id": "player_456"}],
            "summary": {"total_events": 2, "successful_events": 2, "failed_events": 0},
        },
    )
    assert [(each["user"], each["item"]) for each in sandbox.items("teak")] == [
        ("player_123", LEVEL_UP),
        ("player_456", SPIN),
    ]
    assert sandbox.violations() == []


def test_a_single_event_is_taken(sandbox: Running) -> None:
    answer = post(sandbox, SINGLE, {**KEYS, **SPIN, "client_ip": "2001:db8::1"})
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert sandbox.items("teak")[0]["item"] == {**SPIN, "client_ip": "2001:db8::1"}
    assert sandbox.violations() == []


def test_form_encoding(sandbox: Running) -> None:
    spin = {key: str(value) for key, value in SPIN.items()}
    assert post_form(sandbox, SINGLE, {**KEYS, **spin}).json == {"status": "ok"}
    rows = [LEVEL_UP, SPIN]
    empty = [(f"events[][{key}]", str(value)) for row in rows for key, value in row.items()]
    numbered = [(f"events[{index}][{key}]", str(value)) for index, row in enumerate(rows) for key, value in row.items()]
    for params in (empty, numbered):
        answer = post_form(sandbox, BATCH, [*KEYS.items(), *params])
        assert answer.json["summary"] == {"total_events": 2, "successful_events": 2, "failed_events": 0}
    assert [each["item"] for each in sandbox.items("teak", user="player_456")] == [spin] * 3
    assert sandbox.violations() == []


def test_unknown_users_fail_alone(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["unknown_player"])
    answer = batch(sandbox, [LEVEL_UP, {**LEVEL_UP, "user_id": "unknown_player"}])
    assert (answer.status, answer.json) == (
        200,
        {
            "status": "ok",
            "results": [
                {"status": "ok", "user_id": "player_123"},
                {"status": "error", "user_id": "unknown_player", "errors": NOT_FOUND},
            ],
            "summary": {"total_events": 2, "successful_events": 1, "failed_events": 1},
        },
    )
    single = post(sandbox, SINGLE, {**KEYS, **LEVEL_UP, "user_id": "unknown_player"})
    assert (single.status, single.body) == (404, b'{"status":"error","errors":{"user_id":["could not be found"]}}')
    assert counts(sandbox, "teak") == (2, 1, 2)
    assert sandbox.violations() == []


WRONG: list[tuple[str, Any, str]] = [
    ("user_id", 123, "must be a string"),
    ("user_id", "", "must not be empty"),
    ("user_id", ["a"], "must be a string"),
    ("action_type", None, "must be a string"),
    ("object_type", 3, "must be a string"),
    ("event_count", 0, "must be at least 1"),
    ("event_count", 1.5, "must be an integer"),
    ("event_count", "1", "must be an integer"),
    ("value", "5", "must be a number"),
    ("sum_of_squares", True, "must be a number"),
    ("client_ip", "300.1.1.1", "must be an IP address"),
    ("client_ip", 7, "must be a string"),
    ("country_code", "USA", "must be two capital letters (ISO 3166-1 alpha-2)"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_a_wrong_event_fails_alone_in_a_batch(sandbox: Running, field: str, value: Any, message: str) -> None:
    bad = {**SPIN, field: value}
    results = batch(sandbox, [LEVEL_UP, bad, LEVEL_UP]).json["results"]
    good = {"status": "ok", "user_id": "player_123"}
    assert results == [good, {"status": "error", "user_id": bad["user_id"], "errors": {field: [message]}}, good]
    assert reasons(sandbox) == [f"events: {field} {message}"]
    answer = post(sandbox, SINGLE, {**KEYS, **bad})
    assert (answer.status, answer.json) == (400, refusal(field, message))
    assert counts(sandbox, "teak") == (2, 2, 2)


@pytest.mark.parametrize("field", ["user_id", "action_type"])
def test_a_missing_field(sandbox: Running, field: str) -> None:
    bad = {key: value for key, value in LEVEL_UP.items() if key != field}
    assert batch(sandbox, [bad]).json["results"][0]["errors"] == {field: ["is required"]}
    assert post(sandbox, SINGLE, {**KEYS, **bad}).json == refusal(field, "is required")


def test_an_event_that_is_no_object(sandbox: Running) -> None:
    assert batch(sandbox, [7]).json["results"] == [
        {"status": "error", "user_id": None, "errors": {"base": ["must be an object"]}}
    ]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({**LEVEL_UP, "value": 3}, "value and sum_of_squares: one without the other leaves a wrong default of 1"),
        (
            {**LEVEL_UP, "sum_of_squares": 9},
            "value and sum_of_squares: one without the other leaves a wrong default of 1",
        ),
        ({**LEVEL_UP, "timestamp": 1}, "timestamp: unknown key of an event"),
    ],
)
def test_what_is_taken_but_told(sandbox: Running, event: dict[str, Any], reason: str) -> None:
    assert batch(sandbox, [event]).json["summary"]["successful_events"] == 1
    assert post(sandbox, SINGLE, {**KEYS, **event}).status == 200
    assert set(reasons(sandbox)) == {reason}
    assert counts(sandbox, "teak") == (2, 2, 0)


@pytest.mark.parametrize("events", [[], [LEVEL_UP] * 101, {"0": LEVEL_UP}, None])
def test_one_to_a_hundred_events(sandbox: Running, events: object) -> None:
    assert batch(sandbox, [LEVEL_UP] * 100).json["summary"]["successful_events"] == 100
    answer = batch(sandbox, events)
    assert answer.status == 400
    assert answer.body == b'{"status":"error","errors":{"events":["must be a non-empty array (max 100 items)"]}}'
    assert reasons(sandbox) == ["events: must be a non-empty array (max 100 items)"]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"game_id": "other"}, "game_id"), ({"game_id": 5}, "game_id"), ({"secret_key": "wrong"}, "secret_key")],
)
@pytest.mark.parametrize("path", [SINGLE, BATCH])
def test_a_wrong_key(sandbox: Running, path: str, change: dict[str, Any], field: str) -> None:
    answer = post(sandbox, path, {**KEYS, **LEVEL_UP, "events": [LEVEL_UP], **change})
    assert (answer.status, answer.json) == (404, refusal(field, "could not be found"))
    assert reasons(sandbox) == [f"{field}: could not be found"]


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status", "answer"),
    [
        ("GET", BATCH, JSON, b"{}", 405, ("base", "method GET is not allowed, use POST")),
        ("POST", "/teak/v1/analytics_events", JSON, b"{}", 404, ("path", "could not be found")),
        ("POST", BATCH, "text/plain", b"{}", 400, ("base", "content-type must be application/json")),
        ("POST", BATCH, JSON, b"{,}", 400, ("base", "body is not valid JSON")),
        ("POST", SINGLE, JSON, b"[]", 400, ("base", "must be a JSON object")),
        ("POST", SINGLE, FORM, b"a=1&a=2", 400, ("base", "a parameter is given twice")),
        ("POST", BATCH, FORM, b"a=1&a=2", 400, ("base", "a parameter is given twice")),
        ("POST", BATCH, FORM, b"events[0][a]=1&events[0][a]=2", 400, ("base", "a parameter is given twice")),
        ("POST", BATCH, FORM, b"a=%ff", 400, ("base", "malformed form encoding")),
        ("POST", BATCH, FORM, b"nothing", 400, ("base", "malformed form encoding")),
    ],
)
def test_a_wrong_request(
    sandbox: Running, method: str, path: str, kind: str, body: bytes, status: int, answer: tuple[str, str]
) -> None:
    found = send(sandbox, method, path, body, {"Content-Type": kind})
    assert (found.status, found.json) == (status, refusal(*answer))
    assert len(reasons(sandbox)) == 1


def test_a_hundred_requests_a_second_of_each_endpoint(sandbox: Running) -> None:
    connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=10)

    def call(path: str, body: object) -> tuple[int, bytes]:
        connection.request("POST", path, json.dumps(body), {"Content-Type": JSON})
        answer = connection.getresponse()
        return answer.status, answer.read()

    many, one = {**KEYS, "events": [LEVEL_UP]}, {**KEYS, **LEVEL_UP}
    for _ in range(10):  # on a busy machine a hundred requests can take longer than the second they are counted in
        sandbox.reset()
        begin = time.monotonic()
        assert {call(BATCH, many)[0] for _ in range(100)} == {200}
        refused = call(BATCH, many)
        if time.monotonic() - begin < 1:
            break
        time.sleep(1)
    assert refused == (
        429,
        RATE_LIMIT,
    )
    assert call(SINGLE, one)[0] == 200
    time.sleep(1.05)
    assert call(BATCH, many)[0] == 200
    connection.close()
    assert reasons(sandbox) == ["more than 100 requests in one second"]
    view = sandbox.received(vendor="teak")["vendors"]["teak"]
    assert (view["requests"], view["accepted"], view["rejected"]) == (103, 102, 0)
    assert view["max_requests_per_second"] == 102
    assert view["answers"] == {"200": 102, "429": 1}
