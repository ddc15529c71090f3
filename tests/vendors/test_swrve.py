"""Swrve's requests, byte for byte, and what its answers mean (Swrve Events API)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from vendor_requests import NOW, answered, batches, path, request, settings

from transforms.vendors import get
from transforms.vendors.base import Delivered, Partial, Reject, Retry, Split, Stop, Verdict
from transforms.vendors.swrve import session_token

JSON = ["Content-Type: application/json"]
FORM = ["Content-Type: application/x-www-form-urlencoded"]
IDENTITY = ("app_id", "identity_secret_key")
BOTH = ("app_id", "api_key", "identity_secret_key")

BATCH_FORM = {
    "session_start": b'{"type":"session_start","time":1327211960781}',
    "session_end": b'{"type":"session_end","time":1327611741945}',
    "event": b'{"type":"event","time":1327440860341,"name":"event.name","payload":{"key":"value"}}',
    "purchase": b'{"type":"purchase","time":1327312660341,"item":"item_name","currency":"gold","cost":100,"quantity":1}',
    "iap": b'{"type":"iap","time":1,"local_cost":0.99,"local_currency":"USD","app_store":"unknown_store"}',
    "currency_given": b'{"type":"currency_given","time":1327332452053,"given_currency":"gold","given_amount":100.0}',
    "user": b'{"type":"user","time":1327441035690,"attributes":{"balance":1200,"level":12}}',
}

SINGLE_FORM = {
    "session_start": (
        b'{"swrve_payload":{"paid":"false"}}',
        b"&swrve_payload=%7B%22paid%22%3A%22false%22%7D",
    ),
    "session_end": (b"{}", b""),
    "event": (b'{"name":"winning","app_version":"1.2"}', b"&name=winning&app_version=1.2"),
    "purchase": (
        b'{"item":"hammer_17","currency":"coins","quantity":2,"cost":100}',
        b"&item=hammer_17&currency=coins&quantity=2&cost=100",
    ),
    "currency_given": (b'{"given_currency":"g & t","given_amount":6.5}', b"&given_currency=g+%26+t&given_amount=6.5"),
    "user": (
        b'{"attributes":{"level":7,"vip":true,"town":"K\xc3\xb6ln","tags":["a"]},"app_version":"1"}',
        b"&app_version=1&level=7&vip=true&town=K%C3%B6ln&tags=%5B%22a%22%5D",
    ),
}


def test_a_session_token() -> None:
    digest = hashlib.md5(b"u11700000000pk_s3cret").hexdigest()
    assert session_token("123", "u1", "pk_s3cret", NOW) == f"123=u1=1700000000={digest}"


@pytest.mark.parametrize("model", BATCH_FORM)
def test_batch(model: str) -> None:
    token = session_token("123", "u1", "pk_s3cret", NOW).encode()
    item = BATCH_FORM[model]
    assert request(settings("swrve"), model, item, item) == (
        "/1/batch",
        JSON,
        b'{"user":"u1","version":"2","session_token":"' + token + b'","data":[' + item + b"," + item + b"]}",
    )


def test_a_batch_names_the_version_it_is_told() -> None:
    _, _, sent = request(settings("swrve", app_version="1.00"), "session_end", BATCH_FORM["session_end"])
    assert sent.startswith(b'{"user":"u1","version":"2","app_version":"1.00","session_token":"123=u1=')


def test_a_batch_is_of_one_user() -> None:
    items = [BATCH_FORM["event"]] * 3
    packed = batches(settings("swrve"), "event", items, ["a", "b", "a"])
    assert [(batch.user, len(batch.items)) for batch in packed] == [("a", 2), ("b", 1)]


def test_batch_of_an_external_user() -> None:
    item = BATCH_FORM["event"]
    for at in (settings("swrve", IDENTITY), settings("swrve", BOTH, user_ids="external")):
        _, _, sent = request(at, "event", item)
        assert sent == (
            b'{"external_user_id":"u1","version":"2","identity_secret_key":"id3ntity","data":[' + item + b"]}"
        )


def test_with_both_keys_the_ids_are_swrve_s_unless_told() -> None:
    _, _, sent = request(settings("swrve", BOTH), "event", BATCH_FORM["event"])
    assert sent.startswith(b'{"user":"u1"')
    assert b"id3ntity" not in sent


def test_multi_user_batch() -> None:
    at = settings("swrve", send="multi_user_batch")
    assert request(at, "event", BATCH_FORM["event"], BATCH_FORM["event"], users=["a", 'b"']) == (
        "/1/multi_user_batch",
        JSON,
        (
            b'{"version":"3","api_key":"pk_s3cret","data":['
            b'{"user":"a","type":"event","time":1327440860341,"name":"event.name","payload":{"key":"value"}},'
            b'{"user":"b\\"","type":"event","time":1327440860341,"name":"event.name","payload":{"key":"value"}}]}'
        ),
    )
    external = settings("swrve", IDENTITY, send="multi_user_batch")
    assert request(external, "session_end", BATCH_FORM["session_end"]) == (
        "/1/multi_user_batch",
        JSON,
        (
            b'{"version":"3","identity_secret_key":"id3ntity","data":['
            b'{"external_user_id":"u1","type":"session_end","time":1327611741945}]}'
        ),
    )


@pytest.mark.parametrize("model", SINGLE_FORM)
def test_single_calls(model: str) -> None:
    payload, form = SINGLE_FORM[model]
    assert request(settings("swrve", send="single"), model, payload) == (
        f"/1/{model}",
        FORM,
        b"api_key=pk_s3cret&user=u1" + form,
    )


def test_a_single_iap_is_json() -> None:
    payload = (
        b'{"product_id":"com.coinpack.1","cost":0.99,"local_currency":"USD","rewards":{"coins":{"type":"currency"}}}'
    )
    assert request(settings("swrve", send="single"), "iap", payload) == (
        "/1/iap",
        JSON,
        b'{"api_key":"pk_s3cret","user":"u1",' + payload[1:],
    )


def test_a_single_call_for_an_external_user() -> None:
    _, _, sent = request(settings("swrve", IDENTITY, send="single"), "event", b'{"name":"winning"}', users=["a&b"])
    assert sent == b"identity_secret_key=id3ntity&external_user_id=a%26b&name=winning"


def test_attributes_that_do_not_count_as_activity() -> None:
    payload = b'{"attributes":{"level":7},"user_initiated":false}'
    sent = request(settings("swrve", send="single", user_initiated=False), "user", payload)[2]
    assert sent == b"api_key=pk_s3cret&user=u1&user_initiated=false&level=7"


def test_attributes_never_stand_for_the_call_s_own_parameters() -> None:
    payload = b'{"attributes":{"user":"other","api_key":"x","user_initiated":"false","level":7}}'
    assert request(settings("swrve", send="single"), "user", payload)[2] == b"api_key=pk_s3cret&user=u1&level=7"


def test_hosts() -> None:
    assert path({"app_id": "123"}, "swrve") == "https://123.api.swrve.com"
    assert get("swrve").base_url({"app_id": "123"}, {"region": "eu"}) == "https://123.eu-api.swrve.com"


def test_batches_are_cut_at_10000_events_and_4_mb() -> None:
    for send in ("batch", "multi_user_batch"):
        at = settings("swrve", send=send)
        item = BATCH_FORM["session_end"]
        assert [len(batch.items) for batch in batches(at, "session_end", [item] * 10_001)] == [10_000, 1]
        large = b'{"type":"event","name":"' + b"x" * 1_900_000 + b'"}'
        assert [len(batch.items) for batch in batches(at, "event", [large] * 3)] == [2, 1]


@pytest.mark.parametrize(
    ("credentials", "options", "key"),
    [
        (("app_id", "api_key"), {"user_ids": "external"}, "user_ids"),
        (IDENTITY, {"user_ids": "swrve"}, "user_ids"),
        (("app_id", "api_key"), {"user_initiated": False, "send": "batch"}, "user_initiated"),
        (("app_id", "api_key"), {"app_version": "1", "send": "single"}, "app_version"),
        (("app_id", "api_key"), {"app_version": "1", "send": "batch"}, None),
        (BOTH, {"user_ids": "external", "send": "single", "user_initiated": False}, None),
    ],
)
def test_what_does_not_go_together_is_said(
    credentials: tuple[str, ...], options: dict[str, Any], key: str | None
) -> None:
    check = get("swrve").check
    assert check is not None
    assert [found for found, _ in check(credentials, options)] == ([key] if key else [])


@pytest.mark.parametrize(
    ("send", "credentials", "status", "answer", "verdict"),
    [
        ("batch", BOTH, 200, b"OK", Delivered()),
        ("multi_user_batch", BOTH, 200, b"OK", Delivered()),
        ("multi_user_batch", IDENTITY, 200, b"", Delivered()),
        ("multi_user_batch", IDENTITY, 200, b"{ }", Delivered()),
        ("multi_user_batch", IDENTITY, 200, b'{"nonexistent_external_user_ids":[]}', Delivered()),
        ("multi_user_batch", IDENTITY, 200, b"<html>", Retry("HTTP 200 without a readable answer: <html>")),
        (
            "multi_user_batch",
            IDENTITY,
            200,
            b'{"nonexistent_external_user_ids":["b",7]}',
            Partial(
                {
                    1: "No such external ID (nonexistent_external_user_ids)",
                    3: "No such external ID (nonexistent_external_user_ids)",
                }
            ),
        ),
        ("batch", BOTH, 400, b"Invalid Parameter", Split("HTTP 400: Invalid Parameter")),
        ("multi_user_batch", BOTH, 400, b"Batch limit exceeded", Split("HTTP 400: Batch limit exceeded")),
        ("batch", IDENTITY, 403, b"No such external ID", Reject("HTTP 403: No such external ID")),
        ("single", IDENTITY, 403, b"No such external ID", Reject("HTTP 403: No such external ID")),
        ("multi_user_batch", IDENTITY, 403, b"No such external ID", Split("HTTP 403: No such external ID")),
        (
            "batch",
            IDENTITY,
            403,
            b"Invalid Secret Key",
            Stop("credentials.identity_secret_key", "HTTP 403: Invalid Secret Key"),
        ),
        ("batch", BOTH, 403, b"Invalid API Key", Stop("credentials.api_key", "HTTP 403: Invalid API Key")),
        ("batch", BOTH, 403, b"", Stop("credentials", "HTTP 403: ")),
        (
            "batch",
            BOTH,
            410,
            b"API key no longer valid",
            Stop("credentials.app_id", "HTTP 410: API key no longer valid"),
        ),
        (
            "batch",
            IDENTITY,
            429,
            b"Alias resolution is at capacity, try again later",
            Retry("HTTP 429: Alias resolution is at capacity, try again later"),
        ),
        ("multi_user_batch", BOTH, 429, b"Rate limit exceeded", Retry("HTTP 429: Rate limit exceeded")),
        ("batch", BOTH, 503, b"Service Unavailable", Retry("HTTP 503: Service Unavailable")),
    ],
)
def test_answers(send: str, credentials: tuple[str, ...], status: int, answer: bytes, verdict: Verdict) -> None:
    users = ["a", "b", "c", "b", "d"] if send == "multi_user_batch" else ["a"]
    at = settings("swrve", credentials, send=send)
    assert answered(at, "session_start", [b'{"type":"x"}'] * len(users), status, answer, users) == verdict


def test_every_model_has_a_golden_request() -> None:
    models = set(get("swrve").models)
    assert set(BATCH_FORM) == models == set(SINGLE_FORM) | {"iap"}
    assert all(json.loads(payload) for payload in BATCH_FORM.values())
