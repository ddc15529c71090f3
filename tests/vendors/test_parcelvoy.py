"""Parcelvoy's requests, byte for byte, and what its answers mean (Client API)."""

from __future__ import annotations

import pytest
from vendor_requests import answered, batches, body, request, settings

from transforms.vendors.base import Delivered, Reject, Retry, Split, Stop, Verdict

AUTH = ["Content-Type: application/json", "Authorization: Bearer pk_s3cret"]
EVENT = b'{"external_id":"EXTERNAL_ID","name":"Product Purchased","data":{"product_id":12345,"price":49.99}}'


def test_events_travel_in_an_array() -> None:
    path, headers, sent = request(settings("parcelvoy"), "event", EVENT, EVENT, users=["a", "b"])
    assert (path, headers, sent) == ("/api/client/events", AUTH, b"[" + EVENT + b"," + EVENT + b"]")


@pytest.mark.parametrize(
    ("model", "path", "payload"),
    [
        (
            "identify",
            "/api/client/identify",
            b'{"external_id":"E","email":"test@test.com","locale":"en","data":{"a":1}}',
        ),
        ("device", "/api/client/devices", b'{"external_id":"E","device_id":"d","os":"iOS 16.3","model":"iPhone15,2"}'),
        ("alias", "/api/client/alias", b'{"anonymous_id":"ANONYMOUS_ID","external_id":"EXTERNAL_ID"}'),
    ],
)
def test_the_others_travel_alone(model: str, path: str, payload: bytes) -> None:
    assert request(settings("parcelvoy"), model, payload) == (path, AUTH, payload)
    assert len(batches(settings("parcelvoy"), model, [payload] * 3)) == 3


def test_events_are_cut_at_5000_and_at_one_mebibyte() -> None:
    at = settings("parcelvoy")
    assert [len(batch.items) for batch in batches(at, "event", [b"{}"] * 5_001)] == [5_000, 1]
    large = b'{"name":"' + b"x" * 400_000 + b'"}'
    assert [len(batch.items) for batch in batches(at, "event", [large] * 5)] == [2, 2, 1]
    exact = b'{"name":"' + b"x" * ((1 << 20) - len(b'[{"name":""}]')) + b'"}'
    (one,) = batches(at, "event", [exact])
    assert len(body(at, one)) == 1 << 20


@pytest.mark.parametrize(
    ("model", "status", "answer", "verdict"),
    [
        ("event", 204, b"", Delivered()),
        ("alias", 204, b"", Delivered()),
        ("event", 422, b'{"error":"/0/name is required"}', Split("HTTP 422: /0/name is required")),
        ("identify", 422, b'{"error":"no id"}', Reject("HTTP 422: no id")),
        ("event", 400, b"too large", Split("HTTP 400: too large")),
        ("event", 401, b'{"code":1000,"error":"bad header"}', Stop("credentials.api_key", "HTTP 401: bad header")),
        ("event", 404, b'{"code":6000,"error":"no such key"}', Stop("credentials.api_key", "HTTP 404: no such key")),
        ("event", 404, b"Not Found", Stop("url", "HTTP 404: Not Found")),
        ("event", 502, b"", Retry("HTTP 502")),
    ],
)
def test_answers(model: str, status: int, answer: bytes, verdict: Verdict) -> None:
    assert answered(settings("parcelvoy"), model, [b"{}"], status, answer) == verdict
