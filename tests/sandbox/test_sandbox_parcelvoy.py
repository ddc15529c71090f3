"""Parcelvoy: the document's own examples, what is refused, and what is answered 204 and lost."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from sandbox_client import Answer, counts, post, reasons, send

from sandbox.credentials import PARCELVOY_API_KEY
from sandbox.server import Running

AUTH = {"Authorization": f"Bearer {PARCELVOY_API_KEY}"}
ALIAS = {"anonymous_id": "ANONYMOUS_ID", "external_id": "EXTERNAL_ID"}
IDENTIFY: dict[str, Any] = {
    "external_id": "EXTERNAL_ID",
    "email": "test@test.com",
    "timezone": "America/Chicago",
    "locale": "en",
    "data": {"first_name": "John", "last_name": "Smith", "has_completed_onboarding": True},
}
DEVICE = {
    "external_id": "EXTERNAL_ID",
    "device_id": "5e356e66-03aa-4926-a322-d7f5c89049c1",
    "token": "45d2e0c7bbb649679723a96d92d0fa305e356e6603aa4926a322d7f5c89",
    "os": "iOS 16.3",
    "model": "iPhone15,2",
    "app_build": "465",
    "app_version": "1.2.4",
}
EVENT = {
    "external_id": "EXTERNAL_ID",
    "name": "Product Purchased",
    "data": {"product_id": 12345, "price": 49.99, "quantity": 4},
}


def call(sandbox: Running, path: str, body: object, headers: dict[str, str] = AUTH) -> Answer:
    return post(sandbox, f"/parcelvoy/api/client/{path}", body, headers)


@pytest.mark.parametrize(
    ("path", "model", "body"),
    [
        ("alias", "alias", ALIAS),
        ("identify", "identify", IDENTIFY),
        ("identify", "identify", {"anonymous_id": "a"}),
        ("devices", "device", DEVICE),
        ("devices", "device", {key: value for key, value in DEVICE.items() if key != "token"}),
        ("events", "event", [EVENT]),
        ("events", "event", [{"anonymous_id": "a", "name": "n"}] * 5000),
    ],
)
def test_the_documents_example_is_taken(sandbox: Running, path: str, model: str, body: Any) -> None:
    answer = call(sandbox, path, body)
    assert (answer.status, answer.body) == (204, b"")
    items = sandbox.items("parcelvoy", model=model)
    assert [each["item"] for each in items] == (body if isinstance(body, list) else [body])
    first = items[0]["item"]
    assert items[0]["user"] == first.get("external_id", first.get("anonymous_id"))
    assert sandbox.violations() == []


WRONG: list[tuple[str, Any, str]] = [
    ("alias", {"external_id": "e"}, "anonymous_id is required"),
    ("alias", {"anonymous_id": "a"}, "external_id is required"),
    ("alias", {"anonymous_id": 7, "external_id": "e"}, "anonymous_id must be a string"),
    ("alias", [], "must be an object"),
    ("identify", {"data": {}}, "must have an external_id or an anonymous_id"),
    ("identify", {**IDENTIFY, "plan": "x"}, "plan must not be there"),
    ("identify", {**IDENTIFY, "timezone": "Chicago"}, "timezone must be an IANA time zone name"),
    ("identify", {**IDENTIFY, "email": None}, "email must be a string"),
    ("identify", {**IDENTIFY, "data": []}, "data must be an object"),
    ("devices", {**DEVICE, "app_build": 465}, "app_build must be a string"),
    ("devices", {key: value for key, value in DEVICE.items() if key != "os"}, "os is required"),
    ("devices", {key: value for key, value in DEVICE.items() if key != "model"}, "model is required"),
    ("devices", {key: value for key, value in DEVICE.items() if key != "app_version"}, "app_version is required"),
    ("devices", {key: value for key, value in DEVICE.items() if key != "device_id"}, "device_id is required"),
    ("events", EVENT, "must be an array of at least one event"),
    ("events", [], "must be an array of at least one event"),
    ("events", [EVENT, {"external_id": "e"}], "name is required"),
    ("events", [EVENT, {**EVENT, "external_id": 5}], "external_id must be a string"),
    ("events", [EVENT, 5], "must be an object"),
]


@pytest.mark.parametrize(("path", "body", "message"), WRONG)
def test_a_wrong_body_is_refused_whole(sandbox: Running, path: str, body: Any, message: str) -> None:
    answer = call(sandbox, path, body)
    assert (answer.status, answer.json) == (422, {"status": "error", "error": message})
    assert len(reasons(sandbox)) == 1
    assert counts(sandbox, "parcelvoy")[1] == 0


@pytest.mark.parametrize(
    ("path", "body", "reason", "accepted"),
    [
        ("events", [{**EVENT, "timestamp": 1}], "timestamp: unknown key, dropped silently", 1),
        ("devices", {**DEVICE, "brand": "x"}, "brand: unknown key, dropped silently", 1),
        ("events", [{"name": "n"}, EVENT], "neither external_id nor anonymous_id: makes a junk user", 1),
        ("devices", {**DEVICE, "external_id": ""}, "neither external_id nor anonymous_id: makes a junk user", 0),
        ("events", [{**EVENT, "name": "n" * 256}], "name: above 255 characters, dropped silently", 0),
        ("identify", {"external_id": "é" * 256}, "external_id: above 255 characters, dropped silently", 0),
        ("alias", {**ALIAS, "anonymous_id": "a" * 256}, "anonymous_id: above 255 characters, dropped silently", 0),
    ],
)
def test_what_is_answered_204_and_lost(sandbox: Running, path: str, body: Any, reason: str, accepted: int) -> None:
    assert call(sandbox, path, body).status == 204
    assert reasons(sandbox) == [reason]
    assert counts(sandbox, "parcelvoy")[1] == accepted


def test_255_characters_are_taken(sandbox: Running) -> None:
    assert call(sandbox, "events", [{"external_id": "é" * 255, "name": "n" * 255}]).status == 204
    assert sandbox.violations() == []


@pytest.mark.parametrize(
    ("headers", "status", "answer"),
    [
        ({}, 401, {"status": "error", "error": "Authorization error.", "code": 1000}),
        ({"Authorization": "Bearer sk_x"}, 401, {"status": "error", "error": "Authorization error.", "code": 1000}),
        (
            {"Authorization": "Bearer pk_other"},
            404,
            {"status": "error", "error": "The API key does not exist.", "code": 6000},
        ),
    ],
)
def test_a_wrong_key(sandbox: Running, headers: dict[str, str], status: int, answer: dict[str, Any]) -> None:
    found = call(sandbox, "events", [EVENT], headers)
    assert (found.status, found.json) == (status, answer)
    assert len(reasons(sandbox)) == 1


def exactly(size: int) -> bytes:
    """A correct body of exactly so many bytes."""
    empty = json.dumps([{**EVENT, "data": {"x": ""}}])
    return json.dumps([{**EVENT, "data": {"x": "x" * (size - len(empty))}}]).encode()


def test_one_mebibyte_is_the_limit_also_of_gzip(sandbox: Running) -> None:
    packed = {**AUTH, "Content-Encoding": "gzip"}
    assert len(exactly(2**20)) == 2**20
    assert call(sandbox, "events", exactly(2**20)).status == 204
    assert call(sandbox, "events", gzip.compress(exactly(2**20)), packed).status == 204
    assert sandbox.violations() == []
    for body, headers in ((exactly(2**20 + 1), AUTH), (gzip.compress(exactly(2**20 + 1)), packed)):
        answer = call(sandbox, "events", body, headers)
        assert (answer.status, answer.json) == (400, {"status": "error", "error": "body is above 1048576 bytes"})
    assert reasons(sandbox) == ["body is above 1048576 bytes"]


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"plain", "gzip", "body is not valid gzip"),
        (gzip.compress(b"[]", mtime=0)[:-4], "gzip", "body is not one whole gzip stream"),
        (gzip.compress(bytes(40 * 2**20)), "gzip", "body is not one whole gzip stream"),
        (b"[]", "br", "content-encoding br is not taken"),
        (b"[", "identity", "body is not valid JSON"),
    ],
)
def test_a_wrong_encoding(sandbox: Running, body: bytes, encoding: str, message: str) -> None:
    answer = call(sandbox, "events", body, {**AUTH, "Content-Encoding": encoding})
    assert (answer.status, answer.json) == (400, {"status": "error", "error": message})
    assert reasons(sandbox) == [message]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "api/client/events", 405), ("POST", "api/events", 404)])
def test_a_wrong_address(sandbox: Running, method: str, path: str, status: int) -> None:
    assert send(sandbox, method, f"/parcelvoy/{path}", b"[]", AUTH).status == status
    assert len(reasons(sandbox)) == 1
