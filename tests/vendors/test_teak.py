"""Teak's requests, byte for byte, and what its answers mean (Analytics Events)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vendor_requests import answered, batches, request, settings

from transforms.vendors.base import Delivered, Partial, Reject, Retry, Split, Stop, Verdict

SPIN = b'{"user_id":"player_456","action_type":"spin","event_count":10,"value":50000,"sum_of_squares":250000000}'
LEVEL_UP = b'{"user_id":"player_123","action_type":"level_up"}'


def test_batch() -> None:
    assert request(settings("teak"), "event", LEVEL_UP, SPIN) == (
        "/v2/analytics_events/batch",
        ["Content-Type: application/json"],
        b'{"game_id":"my-app","secret_key":"s3cret","events":[' + LEVEL_UP + b"," + SPIN + b"]}",
    )


def test_single() -> None:
    assert request(settings("teak", send="single"), "event", LEVEL_UP) == (
        "/v2/analytics_events",
        ["Content-Type: application/json"],
        b'{"game_id":"my-app","secret_key":"s3cret","user_id":"player_123","action_type":"level_up"}',
    )


def test_a_batch_is_a_hundred_events_and_a_single_call_one() -> None:
    assert [len(batch.items) for batch in batches(settings("teak"), "event", [LEVEL_UP] * 201)] == [100, 100, 1]
    assert [len(batch.items) for batch in batches(settings("teak", send="single"), "event", [LEVEL_UP] * 2)] == [1, 1]


def event(user: str) -> bytes:
    return json.dumps({"user_id": user, "action_type": "x"}).encode()


def said(users: list[str], results: Any, status: int = 200) -> Verdict:
    """What an answer of these results means for a batch of these users' events."""
    answer = json.dumps({"status": "ok", "results": results}).encode()
    return answered(settings("teak"), "event", [event(user) for user in users], status, answer, users)


def ok(user: str) -> dict[str, Any]:
    return {"status": "ok", "user_id": user}


UNKNOWN = {"user_id": ["could not be found"]}


def failed(user: str) -> dict[str, Any]:
    return {"status": "error", "user_id": user, "errors": UNKNOWN}


def test_all_taken() -> None:
    assert said(["a", "b"], [ok("a"), ok("b")]) == Delivered()


def test_a_failed_event_is_rejected_alone() -> None:
    assert said(["a", "b", "c"], [ok("a"), failed("b"), ok("c")]) == Partial({1: "user_id could not be found"}, [])


def test_results_in_another_order_are_matched_by_user() -> None:
    assert said(["a", "b", "c"], [ok("c"), failed("a"), ok("b")]) == Partial({0: "user_id could not be found"}, [])
    assert said(["a", "b"], [ok("b"), ok("a")]) == Delivered()


def test_results_of_one_user_are_taken_in_order() -> None:
    verdict = said(["a", "b", "a", "b"], [ok("b"), failed("b"), failed("a"), ok("a")])
    assert verdict == Partial({0: "user_id could not be found", 3: "user_id could not be found"}, [])


def test_events_without_a_result_are_sent_again() -> None:
    assert said(["a", "b", "c"], [ok("a"), failed("b")]) == Partial({1: "user_id could not be found"}, [2])
    assert said(["a", "a"], [ok("a")]) == Partial({}, [1])
    assert said(["a", "b"], []) == Partial({}, [0, 1])


def test_a_result_of_a_stranger_answers_no_event() -> None:
    assert said(["a", "b"], [ok("a"), ok("z")]) == Partial({}, [1])


def test_a_user_id_answered_as_a_number_is_the_same_user() -> None:
    assert said(["17"], [{"status": "ok", "user_id": 17}]) == Delivered()


def test_a_rate_limited_event_is_sent_again() -> None:
    assert said(["a", "b"], [{"status": "rate_limit", "user_id": "a"}, ok("b")]) == Partial({}, [0])


def test_an_unknown_status_is_told() -> None:
    assert said(["a"], [{"status": "odd", "user_id": "a"}]) == Partial({0: "status odd"}, [])


def test_a_mapping_may_send_another_user_id_than_the_event_s() -> None:
    answer = json.dumps({"status": "ok", "results": [ok("guest-a"), failed("guest-b")]}).encode()
    payloads = [event("guest-a"), event("guest-b")]
    verdict = answered(settings("teak"), "event", payloads, 200, answer, ["a", "b"])
    assert verdict == Partial({1: "user_id could not be found"}, [])


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"status":"ok"}', b'{"results":3}', b'{"results":[3]}'])
def test_an_unreadable_200_is_sent_again(answer: bytes) -> None:
    assert isinstance(answered(settings("teak"), "event", [LEVEL_UP], 200, answer), Retry)


@pytest.mark.parametrize(
    ("send", "status", "answer", "verdict"),
    [
        (
            "batch",
            400,
            {"status": "error", "errors": {"events": ["must be a non-empty array (max 100 items)"]}},
            Split("HTTP 400: events must be a non-empty array (max 100 items)"),
        ),
        (
            "batch",
            429,
            {"status": "rate_limit", "errors": {"rate_limit": ["may only be called 100 times per second"]}},
            Retry("HTTP 429: rate_limit may only be called 100 times per second"),
        ),
        ("batch", 404, {"status": "error", "errors": UNKNOWN}, Split("HTTP 404: user_id could not be found")),
        (
            "batch",
            404,
            {"status": "error", "errors": {**UNKNOWN, "game_id": ["could not be found"]}},
            Stop("credentials.game_id", "HTTP 404: user_id could not be found; game_id could not be found"),
        ),
        ("batch", 404, {"status": "error"}, Stop("url", 'HTTP 404: {"status": "error"}')),
        (
            "batch",
            404,
            {"status": "error", "errors": {"game_id": ["could not be found"]}},
            Stop("credentials.game_id", "HTTP 404: game_id could not be found"),
        ),
        ("single", 404, {"status": "error", "errors": UNKNOWN}, Reject("HTTP 404: user_id could not be found")),
        ("single", 404, {"status": "error"}, Stop("url", 'HTTP 404: {"status": "error"}')),
        ("single", 200, {"status": "ok"}, Delivered()),
        ("single", 200, {"status": "error", "errors": UNKNOWN}, Reject("user_id could not be found")),
        ("single", 200, {}, Retry("HTTP 200 without a readable status: {}")),
        ("single", 401, {"status": "error"}, Stop("credentials", 'HTTP 401: {"status": "error"}')),
    ],
)
def test_answers(send: str, status: int, answer: Any, verdict: Verdict) -> None:
    at = settings("teak", send=send)
    assert answered(at, "event", [LEVEL_UP], status, json.dumps(answer).encode()) == verdict
