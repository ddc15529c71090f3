"""Traitly's requests, byte for byte, and what its answers mean (API Reference)."""

from __future__ import annotations

import pytest
from vendor_requests import answered, batches, request, settings

from transforms.vendors.base import Delivered, Reject, Retry, Split, Stop, Verdict

HEADERS = ["Content-Type: application/json", "Authorization: Token t0ken"]
EVENT = b'{"customer_id":"15","name":"Logged in","created_at":1493933699}'
CUSTOMER = b'{"customer_id":"123","name":"John Smith","email":"john.smith@example.com","plan":"Starter"}'


@pytest.mark.parametrize(
    ("model", "path", "payload"), [("event", "/api/v1/event", EVENT), ("customer", "/api/v1/customer", CUSTOMER)]
)
def test_one_object_a_request(model: str, path: str, payload: bytes) -> None:
    assert request(settings("traitly"), model, payload) == (path, HEADERS, payload)
    assert [len(batch.items) for batch in batches(settings("traitly"), model, [payload] * 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "answer", "verdict"),
    [
        (200, b'{"data":[{"customer_id":"1","name":"Logged in","success":1}],"object":"event"}', Delivered()),
        (201, b'{"data":[{"customer_id":"123"}],"object":"customer"}', Delivered()),
        (204, b"", Delivered()),
        (200, b'{"data":[{"success":0}]}', Reject('HTTP 200: {"data":[{"success":0}]}')),
        (400, b"no name", Split("HTTP 400: no name")),
        (401, b"who?", Stop("credentials.token", "HTTP 401: who?")),
        (403, b"who?", Stop("credentials.token", "HTTP 403: who?")),
        (404, b"", Stop("url", "HTTP 404: ")),
        (429, b"", Retry("HTTP 429")),
        (500, b"", Retry("HTTP 500")),
    ],
)
def test_answers(status: int, answer: bytes, verdict: Verdict) -> None:
    assert answered(settings("traitly"), "event", [EVENT], status, answer) == verdict
