"""Swrve's single calls: the document's own examples, keys, and what is refused."""

from __future__ import annotations

import urllib.parse

import pytest
from sandbox_client import counts, post, post_form, reasons, send

from sandbox.credentials import (
    SWRVE_API_KEY,
    SWRVE_GONE_API_KEY,
    SWRVE_IDENTITY_SECRET_KEY,
)
from sandbox.server import Running

USER = {"api_key": SWRVE_API_KEY, "user": "user_id"}
EXTERNAL = {"identity_secret_key": SWRVE_IDENTITY_SECRET_KEY, "external_user_id": "ext_1"}
INVALID = {"code": 400, "message": "Invalid Parameter"}

SINGLE: list[tuple[str, dict[str, str]]] = [
    ("session_start", {"swrve_payload": '{"optional_key":"optional_value","paid":1}'}),
    ("session_start", {}),
    ("session_end", {"app_version": "1.00"}),
    ("event", {"name": "winning"}),
    ("event", {"name": "Swrve.user_tag_update", "swrve_payload": '{"action":"add","tag_name":"list_1"}'}),
    ("purchase", {"item": "hammer_17", "currency": "coins", "quantity": "2", "cost": "100"}),
    ("purchase", {"item": "shield_2", "currency": "gems", "cost": "5", "swrve_payload": '{"level":1}'}),
    ("currency_given", {"given_currency": "coins", "given_amount": "1000"}),
    ("currency_given", {"given_currency": "coins", "given_amount": "6.5"}),
    ("user", {"level": "7"}),
    ("user", {"age": "24", "gender": "male", "location": "Ireland"}),
    ("user", {"Swrve.referrer_id": "my_advertising_partner.campaign_name", "user_initiated": "false"}),
    ("user", {"checked_out": "2016-03-11T09:29:33.915Z"}),
]


@pytest.mark.parametrize(("call", "params"), SINGLE)
@pytest.mark.parametrize(
    "who",
    [USER, EXTERNAL, {"identity_secret_key": SWRVE_IDENTITY_SECRET_KEY, "user": "user_id"}],
    ids=["api key", "external", "identity key"],
)
def test_single_calls(sandbox: Running, call: str, params: dict[str, str], who: dict[str, str]) -> None:
    answer = post_form(sandbox, f"/swrve/1/{call}", {**who, **params})
    assert (answer.status, answer.body) == (200, b"")
    query = urllib.parse.urlencode({**who, **params})
    assert send(sandbox, "GET", f"/swrve/1/{call}?{query}").status == 200
    items = sandbox.items("swrve")
    assert [(each["model"], each["item"]) for each in items] == [(call, params)] * 2
    assert items[0]["user"] == who.get("user", "ext_1")
    assert sandbox.violations() == []


def test_the_single_iap_is_json(sandbox: Running) -> None:
    coins = {
        "product_id": "com.coinpack.1",
        "cost": "0.99",
        "local_currency": "USD",
        "rewards": {"coins": {"type": "currency", "amount": "1000"}},
        "quantity": "1",
        "app_store": "unknown_store",
    }
    assert post(sandbox, "/swrve/1/iap", {**USER, **coins}).status == 200
    assert sandbox.items("swrve", model="iap")[0]["item"] == coins
    assert sandbox.violations() == []
    form = {**USER, "product_id": "p", "cost": "1", "quantity": "1", "app_store": "unknown_store"}
    assert post_form(sandbox, "/swrve/1/iap", form).json == INVALID
    assert reasons(sandbox) == ["content-type must be application/json"]


@pytest.mark.parametrize(
    ("call", "params", "reason"),
    [
        ("event", {}, "name: is required"),
        ("event", {"name": "/?"}, "name: must hold letters, digits, dashes, _ or dots"),
        ("event", {"name": "a", "swrve_payload": "{"}, "swrve_payload: must be JSON text"),
        ("event", {"name": "a", "swrve_payload": "[]"}, "swrve_payload: must be an object"),
        (
            "event",
            {"name": "a", "swrve_payload": '{"paid":false}'},
            "swrve_payload: values must be strings or integers",
        ),
        ("event", {"name": "Swrve.user_tag_update"}, "payload: must hold action (add or remove) and tag_name"),
        ("purchase", {"currency": "coins", "cost": "1"}, "item: is required"),
        ("purchase", {"item": "i", "cost": "1"}, "currency: is required"),
        ("purchase", {"item": "i", "currency": "coins"}, "cost: is required"),
        ("purchase", {"item": "i", "currency": "coins", "cost": "1.5"}, "cost: must be an integer"),
        (
            "purchase",
            {"item": "i", "currency": "coins", "cost": "1", "quantity": "many"},
            "quantity: must be an integer",
        ),
        ("currency_given", {"given_currency": "", "given_amount": "1"}, "given_currency: must not be empty"),
        ("currency_given", {"given_currency": "c", "given_amount": "0.0"}, "given_amount: must be above 0"),
        ("currency_given", {"given_currency": "c", "given_amount": "-1"}, "given_amount: must be above 0"),
        ("currency_given", {"given_currency": "c", "given_amount": ""}, "given_amount: must be a number"),
        ("currency_given", {"given_currency": "c", "given_amount": "twelve"}, "given_amount: must be a number"),
        ("currency_given", {"given_currency": "c", "given_amount": "inf"}, "given_amount: must be a number"),
    ],
)
def test_a_wrong_single_call(sandbox: Running, call: str, params: dict[str, str], reason: str) -> None:
    answer = post_form(sandbox, f"/swrve/1/{call}", {**USER, **params})
    assert (answer.status, answer.json) == (400, INVALID)
    assert reasons(sandbox) == [reason]
    assert counts(sandbox, "swrve") == (1, 0, 1)


@pytest.mark.parametrize(
    ("call", "params", "reason"),
    [
        (
            "event",
            {"name": "level.start/"},
            "name: holds other characters than letters, digits, dashes, underscores and dots",
        ),
        ("event", {"name": "a", "colour": "red"}, "colour: unknown key of event"),
        ("user", {"user_initiated": "false"}, "an update without any attribute has no effect"),
    ],
)
def test_a_single_call_that_is_taken_but_told(sandbox: Running, call: str, params: dict[str, str], reason: str) -> None:
    assert post_form(sandbox, f"/swrve/1/{call}", {**USER, **params}).status == 200
    assert reasons(sandbox) == [reason]


@pytest.mark.parametrize(
    ("who", "status", "message"),
    [
        ({"user": "u"}, 403, "Invalid Secret Key"),
        ({"user": "u", "api_key": "wrong"}, 403, "Invalid API Key"),
        ({"user": "u", "api_key": SWRVE_GONE_API_KEY}, 410, "API key no longer valid"),
        ({"external_user_id": "e", "api_key": SWRVE_API_KEY}, 403, "Invalid Secret Key"),
        ({"external_user_id": "e", "identity_secret_key": "wrong"}, 403, "Invalid Secret Key"),
        ({"external_user_id": "e", "identity_secret_key": ""}, 403, "Invalid Secret Key"),
        ({"api_key": SWRVE_API_KEY}, 400, "Invalid Parameter"),
        ({"api_key": SWRVE_API_KEY, "user": ""}, 400, "Invalid Parameter"),
        ({"api_key": SWRVE_API_KEY, "user": "u", "external_user_id": "e"}, 400, "Invalid Parameter"),
        ({"api_key": SWRVE_API_KEY, "user": "some.one@example.com"}, 400, "Invalid Parameter"),
    ],
)
def test_who_and_with_what_key(sandbox: Running, who: dict[str, str], status: int, message: str) -> None:
    answer = post_form(sandbox, "/swrve/1/event", {"name": "a", **who})
    assert (answer.status, answer.json) == (status, {"code": status, "message": message})
    assert len(sandbox.violations()) == 1
