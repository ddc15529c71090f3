"""The shipped mappings: what each canonical event becomes at each vendor, and what is dropped or rejected."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from mapped import Outcome, mapped

import schemas
from transforms.vendors import get, slugs
from transforms.vendors.swrve import RESERVED_PARAMETERS

TIME = 1_764_000_000_123
SECONDS = 1_764_000_000
UTC = "2025-11-24 16:00:00"


def event(event_type: str, /, **fields: Any) -> dict[str, Any]:
    return {"event_type": event_type, "event_timestamp": TIME, "user_id": "u1", **fields}


def payloads(slug: str, record: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Model -> payload of what the record becomes; nothing may be dropped or rejected."""
    outcome = mapped(slug, record, options)
    assert not outcome.dropped
    assert not outcome.rejected
    return outcome.payloads


def reasons(outcome: Outcome) -> tuple[list[str], list[str]]:
    """(dropped, rejected) reasons of a record that became nothing."""
    assert not outcome.payloads
    return outcome.dropped, outcome.rejected


PLAYER = {"country": "DE", "platform": "ios", "language": "de-DE", "app_version": "1.2.3", "ip": "203.0.113.7"}
LEVEL_UP = event(
    "level_up", **PLAYER, event_data={"level": 7, "character": "mage"}, params={"zone": {"x": 1}, "ok": True}
)
LOGIN = event("login", **PLAYER, register_date="2020-02-29", last_login_timestamp=TIME - 1000, device_model="iPhone15,2",
              event_data={"level": 7, "group_id": "clan9"})  # fmt: skip
REAL = event("purchase", event_data={"currency": "USD", "amount": 9.99, "item_id": "gems", "product_id": "com.gems.1"})
VIRTUAL = event("purchase", event_data={"currency": "gold", "amount": 30, "quantity": 3, "item_id": "sword"})
SPEND = event(
    "spend_virtual_currency", event_data={"currency": "gold", "amount": 30, "quantity": 3, "item_id": "sword"}
)
EARN = event("earn_virtual_currency", event_data={"currency": "gold", "amount": 12.5})
IDENTIFY = event("identify", **PLAYER, name="Ann", email="ann@example.com", plan="Gold", phone="1", city="Berlin",
                 timezone="Europe/Berlin", register_date="2020-02-29", user_properties={"vip": True, "rank": 3})  # fmt: skip
SOCIAL = event("social", event_data={"target_user_id": 17, "connection": "unlinked", "interaction": "friend"})

GOLDEN: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # Teak
    (
        "teak", {}, LEVEL_UP,
        {"event": {"user_id": "u1", "action_type": "level_up", "object_type": "level", "object_instance_id": "7",
                   "client_ip": "203.0.113.7", "country_code": "DE"}},
    ),
    (
        "teak", {}, SPEND,
        {"event": {"user_id": "u1", "action_type": "spend_virtual_currency", "object_type": "item",
                   "object_instance_id": "sword", "value": 30, "sum_of_squares": 900}},
    ),
    (
        "teak", {}, event("purchase", event_data={"price": 2.5, "quantity": 2, "currency": "USD", "product_id": "p"}),
        {"event": {"user_id": "u1", "action_type": "purchase", "object_type": "product", "object_instance_id": "p",
                   "value": 5.0, "sum_of_squares": 25.0}},
    ),
    ("teak", {}, event("post_score", event_data={"score": 5}),
     {"event": {"user_id": "u1", "action_type": "post_score", "value": 5, "sum_of_squares": 25}}),
    ("teak", {}, event("login", country="Germany", ip="unknown"), {"event": {"user_id": "u1", "action_type": "login"}}),
    ("teak", {}, {**event("login"), "user_id": 17}, {"event": {"user_id": "17", "action_type": "login"}}),
    ("teak", {"send": "single"}, event("login"), {"event": {"user_id": "u1", "action_type": "login"}}),
    # 12traits
    (
        "12traits", {}, event("level_end", event_data={"level": 7, "success": True, "duration_s": 1.5},
                              params={"zone": {"x": 1}, "hard": False}),
        {"action": {"player_id": "u1", "action_id": "level_end", "action_name": "level_end", "timestamp": UTC,
                    "action_params": [{"key": "level", "value": "7"}, {"key": "success", "value": "true"},
                                      {"key": "duration_s", "value": "1.5"}, {"key": "zone", "value": '{"x":1}'},
                                      {"key": "hard", "value": "false"}]}},
    ),
    ("12traits", {}, LEVEL_UP, {"level_up": {"player_id": "u1", "level": 7, "timestamp": UTC}}),
    (
        "12traits", {}, LOGIN,
        {"player_login": {"player_id": "u1", "timestamp": UTC, "clan_id": "clan9", "level": 7, "device": "iPhone15,2",
                          "country": "DE", "platform": "ios", "language": "de-DE", "register_date": "2020-02-29",
                          "last_login_timestamp": "2025-11-24 15:59:59"}},
    ),
    ("12traits", {}, REAL, {"purchase": {"player_id": "u1", "item_id": "gems", "count": 1, "price": 9.99, "timestamp": UTC}}),
    ("12traits", {}, VIRTUAL, {"virtual_purchase": {"player_id": "u1", "item_id": "sword", "count": 3,
                                                    "virtual_price": 30, "currency": "gold", "timestamp": UTC}}),
    ("12traits", {}, SPEND, {"virtual_purchase": {"player_id": "u1", "item_id": "sword", "count": 3,
                                                  "virtual_price": 30, "currency": "gold", "timestamp": UTC}}),
    ("12traits", {}, event("kpi", event_data={"kpi_id": "LTV", "kpi_title": "ours", "kpi_value": 10.25}),
     {"kpi": {"player_id": "u1", "kpi_id": "LTV", "value": 10.25, "timestamp": UTC}}),
    ("12traits", {}, event("kpi", event_data={"kpi_id": "FUN", "kpi_value": 3}),
     {"kpi": {"player_id": "u1", "kpi_custom_title": "FUN", "value": 3, "timestamp": UTC}}),
    ("12traits", {}, event("kpi", event_data={"kpi_title": "Fun", "kpi_value": 3}),
     {"kpi": {"player_id": "u1", "kpi_custom_title": "Fun", "value": 3, "timestamp": UTC}}),
    ("12traits", {}, event("item", user_id=None, event_data={"item_id": "axe", "price": 25.5, "currency": "USD",
                                                             "item_name": "Axe", "item_type": "weapon"}),
     {"item": {"item_id": "axe", "price": 25.5, "currency": "USD", "name": "Axe", "type": "weapon"}}),
    ("12traits", {}, SOCIAL, {"social_dynamics": {"player_id": "u1", "target_player_id": "17", "connection": "unlinked",
                                                  "interaction": "friend", "timestamp": UTC}}),
    ("12traits", {"unlinked_word": "unllinked"}, SOCIAL,
     {"social_dynamics": {"player_id": "u1", "target_player_id": "17", "connection": "unllinked",
                          "interaction": "friend", "timestamp": UTC}}),
    # Traitly
    ("traitly", {}, LEVEL_UP, {"event": {"customer_id": "u1", "name": "level_up", "created_at": SECONDS}}),
    ("traitly", {}, IDENTIFY,
     {"customer": {"customer_id": "u1", "name": "Ann", "email": "ann@example.com", "plan": "Gold", "created_at": 1582934400,
                   "custom_attributes": {"vip": True, "rank": 3}, "location": "Berlin", "phone_number": "1"}}),
    # Parcelvoy
    (
        "parcelvoy", {}, {**LEVEL_UP, "anonymous_id": 5},
        {"event": {"name": "level_up", "external_id": "u1", "anonymous_id": "5",
                   "data": {"event_timestamp": "2025-11-24T16:00:00.123Z", "platform": "ios", "app_version": "1.2.3",
                            "country": "DE", "level": 7, "character": "mage", "zone": {"x": 1}, "ok": True}}},
    ),
    ("parcelvoy", {}, IDENTIFY,
     {"identify": {"external_id": "u1", "email": "ann@example.com", "phone": "1", "timezone": "Europe/Berlin",
                   "locale": "de-DE", "data": {"name": "Ann", "plan": "Gold", "country": "DE", "city": "Berlin",
                                               "platform": "ios", "vip": True, "rank": 3}}}),
    ("parcelvoy", {}, event("identify", user_id=None, anonymous_id="a", timezone="+02:00"),
     {"identify": {"anonymous_id": "a", "data": {}}}),
    ("parcelvoy", {}, event("device", platform="ios", device_id="d", device_model="iPhone15,2", push_token="t",
                            app_build="465", app_version="1.2.4"),
     {"device": {"external_id": "u1", "device_id": "d", "token": "t", "os": "ios", "model": "iPhone15,2",
                 "app_build": "465", "app_version": "1.2.4"}}),
    ("parcelvoy", {}, event("alias", previous_id=99), {"alias": {"anonymous_id": "99", "external_id": "u1"}}),
    # Swrve, in batches
    ("swrve", {}, LOGIN, {"session_start": {"type": "session_start", "time": TIME, "payload": {
        "platform": "ios", "country": "DE", "language": "de-DE", "level": 7}}}),
    ("swrve", {}, event("logout"), {"session_end": {"type": "session_end", "time": TIME}}),
    ("swrve", {}, LEVEL_UP, {"event": {"type": "event", "time": TIME, "name": "level_up", "payload": {
        "level": 7, "character": "mage", "zone": '{"x":1}', "ok": "true"}}}),
    ("swrve", {"send": "multi_user_batch"}, event("boss fight/2"),
     {"event": {"type": "event", "time": TIME, "name": "boss_fight_2", "payload": {}}}),
    ("swrve", {}, SPEND, {"purchase": {"type": "purchase", "time": TIME, "item": "sword", "cost": 10, "quantity": 3,
                                       "currency": "gold"}}),
    ("swrve", {}, VIRTUAL, {"purchase": {"type": "purchase", "time": TIME, "item": "sword", "cost": 10, "quantity": 3,
                                         "currency": "gold"}}),
    ("swrve", {}, REAL, {"iap": {"type": "iap", "time": TIME, "product_id": "com.gems.1", "local_cost": 9.99,
                                 "local_currency": "USD", "quantity": 1, "app_store": "unknown_store"}}),
    (
        "swrve", {}, event("purchase", event_data={
            "currency": "EUR", "amount": 20, "quantity": 4, "product_id": "p", "store": "apple", "receipt": "cmVj",
            "transaction_id": "t1", "rewards": {"gold": {"type": "currency", "amount": 100}}}),
        {"iap": {"type": "iap", "time": TIME, "product_id": "p", "local_cost": 5, "local_currency": "EUR", "quantity": 4,
                 "app_store": "apple", "receipt": "cmVj", "transaction_id": "t1",
                 "rewards": {"gold": {"type": "currency", "amount": 100}}}},
    ),
    (
        "swrve", {}, event("purchase", event_data={
            "currency": "EUR", "price": 5, "quantity": 4, "product_id": "p", "store": "google", "receipt": "r",
            "receipt_signature": "s"}),
        {"iap": {"type": "iap", "time": TIME, "product_id": "p", "local_cost": 20, "local_currency": "EUR",
                 "app_store": "google", "receipt": "r", "receipt_signature": "s"}},
    ),
    ("swrve", {}, event("purchase", event_data={"currency": "EUR", "amount": 5, "product_id": "p", "store": "google",
                                                "receipt": "r"}),
     {"iap": {"type": "iap", "time": TIME, "product_id": "p", "local_cost": 5, "local_currency": "EUR", "quantity": 1,
              "app_store": "unknown_store"}}),
    ("swrve", {}, EARN, {"currency_given": {"type": "currency_given", "time": TIME, "given_currency": "gold",
                                            "given_amount": 12.5}}),
    ("swrve", {}, IDENTIFY, {"user": {"type": "user", "time": TIME, "attributes": {
        "language": "de-DE", "country": "DE", "plan": "Gold", "vip": "true", "rank": 3}}}),
    ("swrve", {}, event("identify"), {"user": {"type": "user", "time": TIME, "attributes": {}}}),
    # Swrve, in single calls
    ("swrve", {"send": "single"}, LOGIN, {"session_start": {"app_version": "1.2.3", "swrve_payload":
        {"platform": "ios", "country": "DE", "language": "de-DE", "level": 7}}}),
    ("swrve", {"send": "single"}, event("session_end", app_version="1"), {"session_end": {"app_version": "1"}}),
    ("swrve", {"send": "single"}, LEVEL_UP, {"event": {"name": "level_up", "app_version": "1.2.3", "swrve_payload":
        {"level": 7, "character": "mage", "zone": '{"x":1}', "ok": "true"}}}),
    ("swrve", {"send": "single"}, SPEND, {"purchase": {"item": "sword", "cost": 10, "quantity": 3, "currency": "gold"}}),
    ("swrve", {"send": "single"}, REAL, {"iap": {"product_id": "com.gems.1", "cost": 9.99, "local_currency": "USD",
                                                 "quantity": 1, "app_store": "unknown_store"}}),
    ("swrve", {"send": "single"}, EARN, {"currency_given": {"given_currency": "gold", "given_amount": 12.5}}),
    ("swrve", {"send": "single"}, IDENTIFY, {"user": {"app_version": "1.2.3", "attributes": {
        "language": "de-DE", "country": "DE", "plan": "Gold", "vip": "true", "rank": 3}}}),
    ("swrve", {"send": "single", "user_initiated": False}, event("identify", user_properties={"rank": 3}),
     {"user": {"attributes": {"rank": 3}, "user_initiated": False}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("slug", "options", "record", "expected"),
    GOLDEN,
    ids=[
        f"{slug}-{'-'.join(map(str, options.values()))}-{record['event_type']}" for slug, options, record, _ in GOLDEN
    ],
)
def test_a_canonical_event_becomes(
    slug: str, options: dict[str, Any], record: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert payloads(slug, record, **options) == expected


@pytest.mark.parametrize("slug", slugs())
def test_every_model_has_a_golden_payload(slug: str) -> None:
    found = {model for vendor, _, _, expected in GOLDEN if vendor == slug for model in expected}
    assert found == {name for name, model in get(slug).models.items() if not model.passthrough}


def test_every_swrve_model_has_a_golden_payload_in_single_form() -> None:
    single = {model for _, options, _, expected in GOLDEN if options.get("send") == "single" for model in expected}
    assert single == set(get("swrve").models)


@pytest.mark.parametrize(
    ("slug", "record", "reason"),
    [
        ("teak", event("login", user_id=None, anonymous_id="a"), "no user_id"),
        ("traitly", event("login", user_id=None), "no user_id"),
        ("traitly", {**IDENTIFY, "email": None}, "no name, email or plan"),
        ("parcelvoy", event("login", user_id=None), "no user_id and no anonymous_id"),
        ("12traits", event("login", user_id=None), "no user_id"),
        ("12traits", event("purchase", event_data={"currency": "USD", "amount": 1}), "no item_id"),
        ("12traits", event("purchase", event_data={"currency": "USD", "item_id": "a"}), "no amount"),
        ("12traits", event("spend_virtual_currency", event_data={"amount": 1, "item_id": "a"}), "no currency"),
        ("swrve", event("session_end", user_id=None), "no user_id"),
        ("swrve", event("spend_virtual_currency", event_data={"currency": "gold", "amount": 1}), "no item_id"),
        ("swrve", event("purchase", event_data={"amount": 1, "product_id": "a"}), "no currency"),
        ("swrve", event("purchase", event_data={"currency": "USD", "amount": 1}), "no product_id"),
        ("swrve", event("purchase", event_data={"currency": "USD", "product_id": "a"}), "no amount"),
        ("swrve", event("earn_virtual_currency", event_data={"amount": 1}), "no currency"),
    ],
)
def test_what_data_normally_lacks_is_dropped_and_counted(slug: str, record: dict[str, Any], reason: str) -> None:
    assert reasons(mapped(slug, record, {})) == ([reason], [])


@pytest.mark.parametrize("properties", [None, {}, {"vip": None}])
def test_an_update_of_no_attribute_is_no_single_call(properties: dict[str, Any] | None) -> None:
    record = event("identify", user_properties=properties)
    assert reasons(mapped("swrve", record, {"send": "single"})) == (["no attributes"], [])
    country = event("identify", user_properties=properties, country="DE")
    assert payloads("swrve", country, send="single") == {"user": {"attributes": {"country": "DE"}}}


def test_swrves_user_list_is_updated_by_its_own_event() -> None:
    record = event("Swrve.user_tag_update", params={"action": "add", "tag_name": "vip"})
    payload = {"action": "add", "tag_name": "vip"}
    assert payloads("swrve", record)["event"] | {"time": 0} == {
        "type": "event", "time": 0, "name": "Swrve.user_tag_update", "payload": payload,
    }  # fmt: skip
    assert payloads("swrve", record, send="single")["event"] == {
        "name": "Swrve.user_tag_update", "swrve_payload": payload,
    }  # fmt: skip


ADDRESSES = [
    "203.0.113.7", "0.0.0.0", "255.255.255.255", "256.1.1.1", "01.2.3.4", "1.2.3", "1.2.3.4.5", "1.2.3.4.", "unknown", "", "::", "::1",
    "fe80::1", "2001:db8:1:2:3:4:5:6", "1::3:4:5:6:7:8", "1:2:3:4:5:6:7", "1::2::3", ":::", "1:2:3:4:5:6:7:8:9", "::12345", "g::1",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_teak_gets_addresses_only(address: str) -> None:
    try:
        ipaddress.ip_address(address)
        sent = {"client_ip": address}
    except ValueError:
        sent = {}
    payload = payloads("teak", event("spin", ip=address))["event"]
    assert payload == {"user_id": "u1", "action_type": "spin", **sent}


@pytest.mark.parametrize(
    ("slug", "options", "record", "part"),
    [
        ("swrve", {}, event("login", user_id="ann@example.com"), "e-mail"),
        ("swrve", {}, event("identify", user_id="ann@example.com"), "e-mail"),
        *(("swrve", {"send": send}, event(name, user_id="", event_data={"currency": "g", "amount": 1.0, "item_id": "a"}),
           "user_id is empty")
          for send in ("batch", "single")
          for name in ("login", "logout", "spin", "spend_virtual_currency", "earn_virtual_currency")),
        *(("swrve", {"send": send}, event("Swrve.user_tag_update", params=params), "params.action")
          for send in ("batch", "single")
          for params in ({}, {"action": "add"}, {"action": "put", "tag_name": "vip"})),
        ("swrve", {"send": "single"}, event("level_up", params={f"k{n}": n for n in range(501)}), "swrve_payload"),
        ("12traits", {}, event("login", register_date="2023-02-29"), "register_date"),
        ("swrve", {"illegal_names": "reject"}, event("boss fight"), "name"),
        ("swrve", {"send": "single", "illegal_names": "reject"}, event("boss fight"), "name"),
        ("swrve", {}, event("spend_virtual_currency", event_data={"currency": "g", "amount": 10, "quantity": 3,
                                                                  "item_id": "a"}), "cost"),
        ("swrve", {}, event("earn_virtual_currency", event_data={"currency": "g", "amount": 0}), "given_amount"),
        ("swrve", {}, event("purchase", event_data={"currency": "USD", "amount": 0, "product_id": "a"}), "local_cost"),
        ("swrve", {}, event("level_up", params={f"k{n}": n for n in range(501)}), "payload"),
        ("swrve", {"send": "single"}, event("identify", user_properties={"api_key": "x"}), "parameter"),
        ("12traits", {}, event("purchase", event_data={"currency": "USD", "amount": 0, "item_id": "a"}), "price"),
        ("12traits", {}, event("level_up"), "level"),
        ("12traits", {}, event("kpi", event_data={"kpi_value": 1}), "kpi_custom_title"),
        ("12traits", {}, event("kpi", event_data={"kpi_id": "LTV"}), "value"),
        ("12traits", {}, event("social", event_data={"target_user_id": "b", "connection": "linked"}), "interaction"),
        ("12traits", {}, event("item", event_data={"item_id": "axe"}), "price"),
        ("parcelvoy", {}, event("login", user_id="u" * 256), "external_id"),
        ("parcelvoy", {}, event("x" * 256), "name"),
        ("parcelvoy", {}, event("device", device_id="d"), "os"),
        ("parcelvoy", {}, event("alias"), "anonymous_id"),
        ("traitly", {}, {**IDENTIFY, "email": "nobody"}, "email"),
        ("teak", {}, event("login", user_id=""), "user_id"),
    ],
)  # fmt: skip
def test_a_fault_of_the_data_is_rejected(slug: str, options: dict[str, Any], record: dict[str, Any], part: str) -> None:
    dropped, rejected = reasons(mapped(slug, record, options))
    assert not dropped
    assert len(rejected) == 1
    assert part in rejected[0]


@pytest.mark.parametrize("currency", ["gold", "usd", "US", "EURO", "U$D", "usd "])
def test_a_purchase_for_the_games_own_currency_is_never_real_money(currency: str) -> None:
    record = event("purchase", event_data={"currency": currency, "amount": 5, "item_id": "a", "product_id": "p"})
    assert set(payloads("12traits", record)) == {"virtual_purchase"}
    for send in ("batch", "single"):
        assert set(payloads("swrve", record, send=send)) == {"purchase"}


def test_every_known_kpi_goes_under_its_id() -> None:
    known = schemas.load("twelve_traits/kpi").fields["kpi_id"].rules.one_of
    assert known is not None
    assert len(known) == 9
    for kpi in known:
        sent = payloads("12traits", event("kpi", event_data={"kpi_id": kpi, "kpi_title": "t", "kpi_value": 1}))
        assert sent["kpi"]["kpi_id"] == kpi


@pytest.mark.parametrize("name", sorted(RESERVED_PARAMETERS))
def test_an_attribute_with_a_parameter_s_name_is_rejected_in_single_calls(name: str) -> None:
    dropped, rejected = reasons(mapped("swrve", event("identify", user_properties={name: "x"}), {"send": "single"}))
    assert not dropped
    assert len(rejected) == 1
    assert "parameter of Swrve's own" in rejected[0]


def test_a_record_passes_through_unchanged() -> None:
    outcome = mapped("12traits", event("login"), {}, models=("playfab",), original=b'{"EventName": "x",  "a":1}')
    assert outcome.raw == {"playfab": b'{"EventName": "x",  "a":1}'}


def test_payloads_are_compact_json() -> None:
    raw = mapped("traitly", LEVEL_UP, {}).raw["event"]
    assert raw == json.dumps(json.loads(raw), separators=(",", ":")).encode()
