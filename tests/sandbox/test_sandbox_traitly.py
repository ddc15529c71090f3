"""Traitly: the document's own examples (the event's cleared of the customer's fields), and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sandbox_client import Answer, counts, post, reasons, send

from sandbox.credentials import TRAITLY_TOKEN
from sandbox.server import Running

AUTH = {"Authorization": f"Token {TRAITLY_TOKEN}"}
EVENT = {"customer_id": "1", "name": "Logged in", "created_at": 1493933699}
CUSTOMER: dict[str, Any] = {
    "customer_id": "123",
    "name": "John Smith",
    "created_at": 1493933699,
    "monthly_payment_amount": 199,
    "location": "San Francisco",
    "email": "john.smith@example.com",
    "phone_number": "0123456789",
    "plan": "Starter",
    "custom_attributes": {"role": "manager", "account_type": "admin"},
}
SHOWN_EVENT = {"customer_id": "1", "name": "Logged in", "created_at": "1493933699", "success": 1}
SHOWN_CUSTOMER = {**CUSTOMER, "created_at": "1493933699", "organisation_id": None}


def create(sandbox: Running, model: str, body: object, headers: dict[str, str] = AUTH) -> Answer:
    return post(sandbox, f"/traitly/api/v1/{model}", body, headers)


def get(sandbox: Running, query: str, headers: dict[str, str] | None = None) -> Answer:
    sent = {"Content-Type": "application/json", **AUTH} if headers is None else headers
    return send(sandbox, "GET", f"/traitly/api/v1/{query}", headers=sent)


def refusal(field: str, message: str) -> dict[str, Any]:
    return {"data": [], "metadata": {"errors": {field: message}}, "object": "error"}


@pytest.mark.parametrize(
    ("model", "body", "shown"), [("event", EVENT, SHOWN_EVENT), ("customer", CUSTOMER, SHOWN_CUSTOMER)]
)
def test_the_documents_example_is_taken(
    sandbox: Running, model: str, body: dict[str, Any], shown: dict[str, Any]
) -> None:
    answer = create(sandbox, model, body)
    assert answer.status == 200
    assert abs(int(answer.json["created"]) - time.time()) < 5
    assert answer.json == {"data": [shown], "metadata": {}, "created": answer.json["created"], "object": model}
    (item,) = sandbox.items("traitly")
    assert (item["model"], item["user"], item["time"]) == (model, body["customer_id"], 1493933699000)
    assert item["item"] == body
    assert sandbox.violations() == []


def test_created_at_is_now_when_absent(sandbox: Running) -> None:
    answer = create(sandbox, "event", {"customer_id": "1", "name": "Logged in"})
    assert abs(int(answer.json["data"][0]["created_at"]) - time.time()) < 5


WRONG: list[tuple[str, dict[str, Any], str, Any, str]] = [
    ("event", EVENT, "customer_id", 15, "must be a string"),
    ("event", EVENT, "customer_id", "", "must not be empty"),
    ("event", EVENT, "name", None, "must be a string"),
    ("event", EVENT, "created_at", "1493933699", "must be whole seconds since the Unix epoch"),
    ("event", EVENT, "created_at", 1493933699.5, "must be whole seconds since the Unix epoch"),
    ("event", EVENT, "created_at", 1493933699000, "must be whole seconds since the Unix epoch"),
    ("event", EVENT, "created_at", -1, "must be whole seconds since the Unix epoch"),
    ("customer", CUSTOMER, "email", "john", "must be an e-mail address"),
    ("customer", CUSTOMER, "plan", "", "must not be empty"),
    ("customer", CUSTOMER, "custom_attributes", ["manager"], "must be an object"),
    ("customer", CUSTOMER, "monthly_payment_amount", "199", "must be a number"),
    ("customer", CUSTOMER, "location", 7, "must be a string"),
    ("customer", CUSTOMER, "organisation_id", None, "must be a string"),
]


@pytest.mark.parametrize(("model", "example", "field", "value", "message"), WRONG)
def test_a_wrong_value(
    sandbox: Running, model: str, example: dict[str, Any], field: str, value: Any, message: str
) -> None:
    answer = create(sandbox, model, {**example, field: value})
    assert (answer.status, answer.json) == (400, refusal(field, message))
    assert reasons(sandbox) == [f"{field}: {message}"]
    assert counts(sandbox, "traitly") == (1, 0, 1)


@pytest.mark.parametrize(
    ("model", "example", "field"),
    [
        ("event", EVENT, "customer_id"),
        ("event", EVENT, "name"),
        ("customer", CUSTOMER, "customer_id"),
        ("customer", CUSTOMER, "name"),
        ("customer", CUSTOMER, "email"),
        ("customer", CUSTOMER, "plan"),
    ],
)
def test_a_missing_field(sandbox: Running, model: str, example: dict[str, Any], field: str) -> None:
    answer = create(sandbox, model, {key: value for key, value in example.items() if key != field})
    assert (answer.status, answer.json) == (400, refusal(field, "is required"))
    assert reasons(sandbox) == [f"{field}: is required"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "answer"),
    [
        ("POST", "v1/event", {"Authorization": "Token no"}, b"{}", 401, ("authorization", "missing or wrong token")),
        (
            "POST",
            "v1/event",
            {"Authorization": f"Bearer {TRAITLY_TOKEN}"},
            b"{}",
            401,
            ("authorization", "missing or wrong token"),
        ),
        ("POST", "event", {}, b"{}", 404, ("path", "no such endpoint")),
        ("PUT", "v1/event", {}, b"{}", 405, ("body", "method PUT is not allowed, use POST or GET")),
        (
            "POST",
            "v1/recommended-next-actions",
            {},
            b"{}",
            405,
            ("body", "method POST is not allowed, use GET"),
        ),
        ("POST", "v1/event", {}, b"nothing", 400, ("body", "body is not valid JSON")),
        ("POST", "v1/event", {}, b"[]", 400, ("body", "must be an object")),
        (
            "POST",
            "v1/event",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"{}",
            400,
            ("body", "content-type must be application/json"),
        ),
        (
            "POST",
            "v1/event",
            {"Content-Encoding": "gzip"},
            b"{}",
            400,
            ("body", "content-encoding gzip is not taken"),
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
    answer: tuple[str, str],
) -> None:
    sent = {"Content-Type": "application/json", **AUTH, **headers}
    found = send(sandbox, method, f"/traitly/api/{path}", body, sent)
    assert (found.status, found.json) == (status, refusal(*answer))
    assert len(sandbox.violations()) == 1


def test_unknown_keys_are_taken_but_told(sandbox: Running) -> None:
    assert create(sandbox, "event", {**EVENT, "plan": "Atom"}).status == 200
    assert reasons(sandbox) == ["plan: unknown key"]


def test_events_are_listed_by_customer_and_name(sandbox: Running) -> None:
    create(sandbox, "event", EVENT)
    create(sandbox, "event", {**EVENT, "created_at": 1494020099})
    create(sandbox, "event", {**EVENT, "name": "Logged out"})
    create(sandbox, "event", {**EVENT, "customer_id": "2"})
    answer = get(sandbox, "event?customer_id=1&name=Logged%20in")
    assert answer.status == 200
    assert answer.json == {
        "data": [SHOWN_EVENT, {**SHOWN_EVENT, "created_at": "1494020099"}],
        "metadata": {},
        "retrieved": answer.json["retrieved"],
        "object": "event",
    }
    assert sandbox.violations() == []


def test_customers_are_listed_and_updated(sandbox: Running) -> None:
    create(sandbox, "customer", CUSTOMER)
    alice = {"customer_id": "456", "name": "Alice", "email": "alice.smith@example.com", "plan": "Freemium"}
    create(sandbox, "customer", alice)
    assert [each["customer_id"] for each in get(sandbox, "customer").json["data"]] == ["123", "456"]
    create(sandbox, "customer", {**CUSTOMER, "plan": "Pro"})
    (found,) = get(sandbox, "customer?plan=Pro").json["data"]
    assert found == {**SHOWN_CUSTOMER, "plan": "Pro"}
    assert get(sandbox, "customer?customer_id=456&name=Bob").json["data"] == []
    assert sandbox.violations() == []


def test_recommended_next_actions(sandbox: Running) -> None:
    for customer, name in (("1", "a"), ("1", "a"), ("2", "a"), ("2", "b")):
        create(sandbox, "event", {"customer_id": customer, "name": name})
    answer = get(sandbox, "recommended-next-actions?customer_id=2&goal_name=30-day%20Conversion").json
    assert answer["meta"] == {"customer_id": "2", "goal_name": "30-day Conversion"}
    assert answer["object"] == "recommended-next-actions"
    assert [(each["event_name"], each["total_num_completed"], each["importance"]) for each in answer["data"]] == [
        ("a", 1, 0.75),
        ("b", 1, 0.25),
    ]
    assert sandbox.violations() == []


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("event?name=a", "customer_id", "is required"),
        ("event?customer_id=1", "name", "is required"),
        ("recommended-next-actions", "customer_id", "is required"),
        ("customer?email=a", "email", "unknown parameter"),
        ("customer?a&b", "body", "malformed form encoding"),
    ],
)
def test_a_wrong_lookup(sandbox: Running, query: str, field: str, message: str) -> None:
    answer = get(sandbox, query)
    assert (answer.status, answer.json) == (400, refusal(field, message))
    assert len(sandbox.violations()) == 1


def test_a_lookup_carries_the_content_type(sandbox: Running) -> None:
    answer = get(sandbox, "customer", AUTH)
    assert (answer.status, answer.json) == (400, refusal("body", "content-type must be application/json"))
