"""Swrve's batches: the document's own examples, session tokens, external ids, limits, and what is refused."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
from sandbox_client import FORM, JSON, Answer, counts, post, post_form, reasons, send

from sandbox.credentials import (
    SWRVE_API_KEY,
    SWRVE_APP_ID,
    SWRVE_GONE_API_KEY,
    SWRVE_GONE_APP_ID,
    SWRVE_IDENTITY_SECRET_KEY,
)
from sandbox.server import Running

DATA: list[dict[str, Any]] = [
    {"type": "session_start", "time": 1327211960781},
    {
        "type": "purchase",
        "time": 1327312660341,
        "item": "item_name",
        "currency": "gold",
        "cost": "100",
        "quantity": "1",
    },
    {"type": "currency_given", "time": 1327332452053, "given_currency": "gold", "given_amount": "100.0"},
    {"type": "event", "time": 1327440860341, "name": "event.name", "payload": {"key": "value"}},
    {"type": "user", "time": 1327441035690, "attributes": {"balance": 1200, "level": 12, "experience": 101}},
    {"type": "session_end", "time": 1327611741945},
]
EVENT = DATA[3]
IAP: dict[str, Any] = {
    "type": "iap",
    "time": 1327441035690,
    "product_id": "com.coinpack.1",
    "local_cost": 0.99,
    "local_currency": "USD",
    "rewards": {"coins": {"type": "currency", "amount": 1000}, "avatar": {"type": "item", "amount": "1"}},
    "quantity": 1,
    "app_store": "unknown_store",
}
GOOGLE: dict[str, Any] = {**IAP, "app_store": "google", "receipt": "r", "receipt_signature": "s"}
APPLE: dict[str, Any] = {
    **{key: value for key, value in IAP.items() if key not in ("product_id", "quantity")},
    "app_store": "apple",
    "receipt": "r",
    "transaction_id": "t",
}
USER = {"api_key": SWRVE_API_KEY, "user": "user_id"}
EXTERNAL = {"identity_secret_key": SWRVE_IDENTITY_SECRET_KEY, "external_user_id": "ext_1"}
INVALID = {"code": 400, "message": "Invalid Parameter"}


def token(
    user: str = "user_id", *, app: str = SWRVE_APP_ID, key: str = SWRVE_API_KEY, age: float = 0, sign: str = ""
) -> str:
    seconds = str(int(time.time() - age))
    return f"{app}={user}={seconds}=" + (sign or hashlib.md5((user + seconds + key).encode()).hexdigest())


def body(data: object, user: str = "user_id", **more: Any) -> dict[str, Any]:
    base = {"user": user, "version": "2", "app_version": "1.00", "session_token": token(user), "data": data}
    return {key: value for key, value in {**base, **more}.items() if value is not ...}


def batch(sandbox: Running, data: object, **more: Any) -> Answer:
    return post(sandbox, "/swrve/1/batch", body(data, **more))


def multi(sandbox: Running, data: object, **more: Any) -> Answer:
    base = {"version": "3", "api_key": SWRVE_API_KEY, "data": data}
    sent = {key: value for key, value in {**base, **more}.items() if value is not ...}
    return post(sandbox, "/swrve/1/multi_user_batch", sent)


def test_the_documents_batch(sandbox: Running) -> None:
    answer = batch(sandbox, DATA)
    assert (answer.status, answer.body) == (200, b"")
    items = sandbox.items("swrve", user="user_id")
    assert [(each["model"], each["time"], each["item"]) for each in items] == [
        (event["type"], event["time"], event) for event in DATA
    ]
    assert sandbox.violations() == []


def test_the_documents_multi_user_batch(sandbox: Running) -> None:
    users = ["user1", "user2", "user3", "user1", "user1"]
    answer = multi(sandbox, [{"user": user, **event} for user, event in zip(users, DATA, strict=False)])
    assert (answer.status, answer.json) == (200, {"nonexistent_external_user_ids": []})
    assert [each["user"] for each in sandbox.items("swrve")] == users
    assert sandbox.violations() == []


@pytest.mark.parametrize("event", [IAP, GOOGLE, APPLE], ids=["unknown_store", "google", "apple"])
def test_purchases_of_each_store(sandbox: Running, event: dict[str, Any]) -> None:
    assert batch(sandbox, [event]).status == 200
    assert batch(sandbox, [{**event, "rewards": {}}]).status == 200
    assert sandbox.violations() == []


def without(event: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != field}


BAD_EVENTS: list[tuple[Any, str]] = [
    (7, "must be an object"),
    ({"time": 1327440860341}, "type: must be one of session_start, session_end, event, purchase, iap, "),
    ({**EVENT, "type": "login"}, "type: must be one of session_start, session_end, event, purchase, iap, "),
    (without(EVENT, "time"), "event.time: is required"),
    ({**EVENT, "time": 1327440860}, "event.time: must be milliseconds since the Unix epoch"),
    ({**EVENT, "time": "1327440860341"}, "event.time: must be milliseconds since the Unix epoch"),
    (without(EVENT, "name"), "event.name: is required"),
    ({**EVENT, "payload": {"paid": False}}, "event.payload: values must be strings or integers"),
    ({**EVENT, "payload": {"price": 1.5}}, "event.payload: values must be strings or integers"),
    ({**EVENT, "payload": {"nested": {}}}, "event.payload: values must be strings or integers"),
    ({**EVENT, "payload": {str(key): 1 for key in range(501)}}, "event.payload: must have at most 500 pairs"),
    ({**EVENT, "payload": "{}"}, "event.payload: must be an object"),
    ({**DATA[1], "cost": 1.5}, "purchase.cost: must be an integer"),
    ({**DATA[2], "given_amount": 0}, "currency_given.given_amount: must be above 0"),
    (without(DATA[4], "attributes"), "user.attributes: is required"),
    ({**DATA[4], "attributes": {"a": None}}, "user.attributes: values must be strings, numbers or booleans"),
    ({**DATA[4], "user_initiated": "false"}, "user.user_initiated: is not supported in a batch"),
    (without(IAP, "local_cost"), "iap.local_cost: is required"),
    (without(IAP, "local_currency"), "iap.local_currency: is required"),
    ({**IAP, "cost": 0.99}, "iap.cost: must not be there: local_cost stands in its place"),
    ({**IAP, "local_currency": "gold"}, "iap.local_currency: must be three capital letters (ISO 4217)"),
    ({**IAP, "app_store": "steam"}, "iap.app_store: must be one of apple, google, unknown_store"),
    (without(IAP, "app_store"), "iap.app_store: is required"),
    (without(IAP, "product_id"), "iap.product_id: is required for unknown_store"),
    (without(IAP, "quantity"), "iap.quantity: is required for unknown_store"),
    (without(GOOGLE, "product_id"), "iap.product_id: is required for google"),
    (without(GOOGLE, "receipt"), "iap.receipt: is required for google"),
    (without(GOOGLE, "receipt_signature"), "iap.receipt_signature: is required for google"),
    (without(APPLE, "receipt"), "iap.receipt: is required for apple"),
    ({**IAP, "rewards": {"a": {"type": "gift", "amount": 1}}}, "iap.rewards: type must be item or currency"),
    ({**IAP, "rewards": {"a": {"type": "item", "amount": 0}}}, "iap.rewards: amount must be above 0"),
    ({**IAP, "rewards": {"a": {"type": "item"}}}, "iap.rewards: each must be a name with type and amount"),
]


@pytest.mark.parametrize(("event", "reason"), BAD_EVENTS)
def test_a_bad_event_refuses_the_batch(sandbox: Running, event: Any, reason: str) -> None:
    answer = batch(sandbox, [EVENT, event])
    assert (answer.status, answer.json) == (400, INVALID)
    if isinstance(event, dict):
        assert multi(sandbox, [{"user": "u", **EVENT}, {"user": "u", **event}]).json == INVALID
    assert reasons(sandbox)[0].startswith(reason)
    assert counts(sandbox, "swrve")[1] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "3"}, "version: must be 2"),
        ({"version": ...}, "version: must be 2"),
        ({"app_version": 1.0}, "app_version: must be a string"),
        ({"data": ...}, "data: must be an array of at least one event"),
        ({"data": []}, "data: must be an array of at least one event"),
        ({"user": ...}, "user: either user or external_user_id is required"),
        ({"user": "some.one@example.com"}, "user: must not be an e-mail address"),
        ({"external_user_id": "e"}, "user: either user or external_user_id is required"),
    ],
)
def test_a_wrong_batch(sandbox: Running, change: dict[str, Any], reason: str) -> None:
    sent = {key: value for key, value in {**body([EVENT]), **change}.items() if value is not ...}
    assert post(sandbox, "/swrve/1/batch", sent).json == INVALID
    assert reasons(sandbox) == [reason]


@pytest.mark.parametrize(
    ("data", "more", "reasons_"),
    [
        ([{**EVENT, "seqnum": 1}], {}, ["seqnum: unknown key of event"]),
        ([{**EVENT, "user": "other"}], {}, ["user: unknown key of event"]),
        ([EVENT], {"device": "x"}, ["device: unknown key of the body"]),
        ([EVENT, DATA[0]], {}, ["time: a user's events are not in time order"]),
    ],
)
def test_a_batch_that_is_taken_but_told(
    sandbox: Running, data: object, more: dict[str, Any], reasons_: list[str]
) -> None:
    assert batch(sandbox, data, **more).status == 200
    assert reasons(sandbox) == reasons_


@pytest.mark.parametrize(
    ("made", "status", "message"),
    [
        (token(age=47 * 3600), 200, ""),
        (token(age=-200), 200, ""),
        (token(age=48 * 3600 + 60), 403, "Invalid API Key"),
        (token(age=-3600), 403, "Invalid API Key"),
        (token("other"), 403, "Invalid API Key"),
        (token(app="77"), 403, "Invalid API Key"),
        (token(key="wrong"), 403, "Invalid API Key"),
        (token(sign="0" * 32), 403, "Invalid API Key"),
        (token(app=SWRVE_GONE_APP_ID, key=SWRVE_GONE_API_KEY), 410, "API key no longer valid"),
        ("1000=user_id", 403, "Invalid API Key"),
        ("1000", 403, "Invalid API Key"),
        ("", 403, "Invalid API Key"),
        (5, 403, "Invalid API Key"),
        (..., 403, "Invalid API Key"),
    ],
    ids=range(14),  # a token holds the time, so it is no name for a test
)
def test_the_session_token(sandbox: Running, made: Any, status: int, message: str) -> None:
    answer = batch(sandbox, [EVENT], session_token=made)
    assert answer.status == status
    if status != 200:
        assert answer.json == {"code": status, "message": message}
        assert len(sandbox.violations()) == 1


def test_a_token_of_a_user_id_with_equals_signs(sandbox: Running) -> None:
    assert batch(sandbox, [EVENT], user="a=b==").status == 200


def test_a_batch_of_an_external_user(sandbox: Running) -> None:
    sent = {"version": "2", "data": [EVENT], **EXTERNAL}
    assert post(sandbox, "/swrve/1/batch", sent).status == 200
    assert post(sandbox, "/swrve/1/batch", {**sent, "identity_secret_key": "no"}).json == {
        "code": 403,
        "message": "Invalid Secret Key",
    }
    sandbox.reset()
    sandbox.configure("swrve", unknown_users=["ext_1"])
    for answer in (
        post(sandbox, "/swrve/1/batch", sent),
        post_form(sandbox, "/swrve/1/event", {**EXTERNAL, "name": "a"}),
    ):
        assert (answer.status, answer.json) == (403, {"code": 403, "message": "No such external ID"})
    assert sandbox.violations() == []
    assert counts(sandbox, "swrve") == (2, 0, 2)


def test_nonexistent_external_users_fail_alone(sandbox: Running) -> None:
    sandbox.configure("swrve", unknown_users=["userid_1", "userid_2"])
    data = [{"external_user_id": user, **EVENT} for user in ("userid_1", "known", "userid_2", "userid_1")]
    answer = multi(sandbox, data, api_key=..., identity_secret_key=SWRVE_IDENTITY_SECRET_KEY)
    assert (answer.status, answer.json) == (200, {"nonexistent_external_user_ids": ["userid_1", "userid_2"]})
    assert counts(sandbox, "swrve") == (1, 1, 3)
    assert sandbox.violations() == []


@pytest.mark.parametrize(
    ("who", "keys", "message"),
    [
        ({"user": "u"}, {"api_key": "wrong"}, "Invalid API Key"),
        ({"user": "u"}, {"api_key": ..., "identity_secret_key": SWRVE_IDENTITY_SECRET_KEY}, "Invalid API Key"),
        ({"external_user_id": "e"}, {}, "Invalid Secret Key"),
        ({"external_user_id": "e"}, {"identity_secret_key": "wrong"}, "Invalid Secret Key"),
    ],
)
def test_each_kind_of_user_needs_its_key(
    sandbox: Running, who: dict[str, str], keys: dict[str, Any], message: str
) -> None:
    answer = multi(sandbox, [{**who, **EVENT}], **keys)
    assert (answer.status, answer.json) == (403, {"code": 403, "message": message})
    assert reasons(sandbox) == [message]


def test_unknown_currencies_are_ignored_in_a_batch(sandbox: Running) -> None:
    sandbox.configure("swrve", currencies=["gold"])
    gems = [{**DATA[1], "currency": "Gold"}, {**DATA[2], "given_currency": "gems"}, {**IAP, "time": 1327611741945}]
    assert batch(sandbox, [*DATA[:4], *[{**each, "time": 1327440860342} for each in gems]]).status == 200
    assert counts(sandbox, "swrve") == (1, 4, 3)
    answer = post_form(sandbox, "/swrve/1/currency_given", {**USER, "given_currency": "gems", "given_amount": "1"})
    assert (answer.status, answer.json) == (400, INVALID)
    assert sandbox.violations() == []


def test_ten_thousand_events_and_four_megabytes(sandbox: Running) -> None:
    small = {"user": "u", "type": "session_start", "time": 1327211960781}
    limit = {"code": 400, "message": "Batch limit exceeded"}
    assert multi(sandbox, [small] * 10_000).status == 200
    assert multi(sandbox, [small] * 10_001).json == limit

    def filled_to(size: int) -> bytes:
        made: dict[str, Any] = {"version": "3", "api_key": SWRVE_API_KEY, "data": [{**small, "payload": {"k": ""}}]}
        made["data"][0]["payload"]["k"] = "x" * (size - len(json.dumps(made)))
        return json.dumps(made).encode()

    assert post(sandbox, "/swrve/1/multi_user_batch", filled_to(4_000_000)).status == 200
    assert post(sandbox, "/swrve/1/multi_user_batch", filled_to(4_000_001)).json == limit
    assert reasons(sandbox) == ["Batch limit exceeded"]


@pytest.mark.parametrize(
    ("method", "path", "kind", "sent", "status", "message"),
    [
        ("GET", "1/batch", JSON, b"", 405, "method GET is not allowed, use POST"),
        ("GET", "1/iap", JSON, b"", 405, "method GET is not allowed, use POST"),
        ("PUT", "1/event", FORM, b"", 405, "method PUT is not allowed, use POST or GET"),
        ("POST", "1/login", FORM, b"", 404, "no such endpoint"),
        ("POST", "2/batch", JSON, b"{}", 404, "no such endpoint"),
        ("POST", "1/event", JSON, b"{}", 400, "Invalid Parameter"),
        ("POST", "1/event?name=a", FORM, b"user=u", 400, "Invalid Parameter"),
        ("POST", "1/event", FORM, b"user=u&user=u", 400, "Invalid Parameter"),
        ("POST", "1/event", FORM, b"user", 400, "Invalid Parameter"),
        ("POST", "1/batch", FORM, b"{}", 400, "Invalid Parameter"),
        ("POST", "1/batch", JSON, b"[]", 400, "Invalid Parameter"),
        ("POST", "1/multi_user_batch", JSON, b'{"version":3,"data":[5]}', 400, "Invalid Parameter"),
    ],
)
def test_a_wrong_request(
    sandbox: Running, method: str, path: str, kind: str, sent: bytes, status: int, message: str
) -> None:
    answer = send(sandbox, method, f"/swrve/{path}", sent, {"Content-Type": kind})
    assert (answer.status, answer.json) == (status, {"code": status, "message": message})
    assert len(sandbox.violations()) == 1


def test_gzip_is_not_taken(sandbox: Running) -> None:
    answer = post(sandbox, "/swrve/1/batch", b"", {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json) == (400, INVALID)
    assert reasons(sandbox) == ["content-encoding gzip is not taken"]
