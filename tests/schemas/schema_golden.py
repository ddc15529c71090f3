"""For each shipped schema: payloads that fit, most of them the vendor documents' own examples, and payloads that do not.

A bad payload stands beside the name of the field, or the words, that its refusal must tell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Payload = dict[str, Any]


class Golden(NamedTuple):
    good: list[Payload]
    bad: list[tuple[Payload, str]]


def _without(payload: Payload, name: str) -> Payload:
    return {key: value for key, value in payload.items() if key != name}


STAMP = "2019-01-01 15:04:05"
LOGIN: Payload = {
    "player_id": "1001", "timestamp": STAMP, "clan_id": "2002", "level": 10, "device": "iPhone X", "country": "US",
    "platform": "Apple", "language": "en-US", "register_date": "2018-11-14", "last_login_timestamp": "2019-01-01 11:10:06",
}  # fmt: skip
KPI: Payload = {"player_id": "1001", "value": 10.25, "timestamp": STAMP, "kpi_id": "LTV"}
SOCIAL: Payload = {
    "player_id": "1001", "target_player_id": "1002", "connection": "linked", "interaction": "friend", "timestamp": STAMP,
}  # fmt: skip
BOUGHT: Payload = {
    "player_id": "1001",
    "item_id": "2002",
    "count": 1,
    "price": 25.5,
    "timestamp": STAMP,
    "platform": "Steam",
}
VIRTUAL: Payload = {
    "player_id": "1001", "item_id": "2002", "count": 1, "virtual_price": 25.5, "currency": "gold", "timestamp": STAMP,
}  # fmt: skip
ITEM: Payload = {"item_id": "1001", "price": 25.5, "currency": "USD", "name": "Axe", "type": "weapon"}
CUSTOMER: Payload = {
    "customer_id": "123", "name": "John Smith", "email": "john.smith@example.com", "plan": "Starter",
    "created_at": 1493933699, "custom_attributes": {"role": "manager", "account_type": "admin"},
    "monthly_payment_amount": 199.0, "location": "San Francisco", "phone_number": "0123456789",
}  # fmt: skip
IDENTIFY: Payload = {
    "external_id": "EXTERNAL_ID", "email": "test@test.com", "timezone": "America/Chicago", "locale": "en",
    "data": {"first_name": "John", "last_name": "Smith", "has_completed_onboarding": True},
}  # fmt: skip
DEVICE: Payload = {
    "device_id": "5e356e66-03aa-4926-a322-d7f5c89049c1", "os": "iOS 16.3", "model": "iPhone15,2", "app_build": "465",
    "app_version": "1.2.4", "external_id": "EXTERNAL_ID", "token": "45d2e0c7bbb649679723a96d92d0fa305e356e6603aa4926",
}  # fmt: skip
SPIN: Payload = {
    "user_id": "player_456", "action_type": "spin", "object_type": "Mr. Bling Bling's Slots",
    "object_instance_id": "bet_5000", "event_count": 10, "value": 50000.0, "sum_of_squares": 250000000.0,
    "country_code": "US",
}  # fmt: skip
REWARDS = {"avatar": {"type": "item", "amount": 1.0}, "diamonds": {"type": "currency", "amount": 1000.0}}
IAP: Payload = {
    "time": 1327312660341, "local_cost": 10.99, "local_currency": "USD", "app_store": "unknown_store", "type": "iap",
    "product_id": "com.VIP.bundle.gold", "quantity": 1, "rewards": REWARDS,
}  # fmt: skip
GOOGLE: Payload = {
    "time": 1327312660341, "local_cost": 0.99, "local_currency": "EUR", "app_store": "google", "type": "iap",
    "product_id": "com.coinpack.1", "receipt": "{}", "receipt_signature": "c2ln",
}  # fmt: skip
SINGLE_IAP: Payload = {
    "cost": 0.99, "app_store": "unknown_store", "local_currency": "USD", "product_id": "com.coinpack.1", "quantity": 1,
    "rewards": {"coins": {"type": "currency", "amount": 1000.0}}, "app_version": "1.00",
}  # fmt: skip
PURCHASE: Payload = {"item": "item_name", "cost": 100, "currency": "gold", "quantity": 1}
GIVEN: Payload = {"given_currency": "gold", "given_amount": 100.0}
TIME = 1327312660341
LEVEL_UP: Payload = {
    "event_type": "level_up", "event_timestamp": 1764000000000, "event_id": "e1", "user_id": "u1", "session_id": 77,
    "app_version": "1.2.3", "platform": "ios", "country": "DE",
    "event_data": {
        "level": 7, "success": True, "amount": 9.99, "currency": "USD", "target_user_id": 5,
        "rewards": {"gold": {"type": "currency", "amount": 5.0}},
    },
    "params": {"boss": "hydra", "tries": 3, "party": ["a", "b"], "at": {"x": 1.5}},
    "user_properties": {"vip": False, "none": None},
}  # fmt: skip
AWS: Payload = {
    "event": {
        "event_id": "3a8bd9a9-7b1c-4d9b-8d1a-6c9a9f2b1c3d", "event_type": "level_completed", "event_name": "level_completed",
        "event_timestamp": 1795394085, "event_version": "1.0.0", "app_version": "1.1.0",
        "event_data": {"level_id": "3", "level_version": 2},
    },
    "application_id": "9a9eb274-aaf7-4476-929a-d2902687aecf",
}  # fmt: skip
PLAYSTREAM: Payload = {
    "EventName": "player_realmoney_purchase", "Timestamp": "2016-03-07T00:00:00Z", "EntityId": "64647AA368D6448E",
    "EntityType": "player", "TitleId": "AAAA", "OrderId": "o1", "OrderTotal": 499, "TransactionCurrency": "USD",
    "PurchasedProduct": ["sword", "shield"],
}  # fmt: skip
LOGGED_IN: Payload = {
    "EventName": "player_logged_in", "Timestamp": "2016-03-07T00:00:00Z", "Platform": "Steam",
    "Location": {"City": "Berlin", "CountryCode": "DE", "Latitude": 52.5},
}  # fmt: skip

GOLDEN: dict[str, Golden] = {
    "telemetry/event": Golden(
        [LEVEL_UP, {"event_type": "login", "event_timestamp": 0, "user_id": 12345678901}],
        [
            (_without(LEVEL_UP, "event_type"), "event_type"),
            (_without(LEVEL_UP, "event_timestamp"), "event_timestamp"),
            ({**LEVEL_UP, "event_timestamp": 1764000000000.0}, "event_timestamp"),
            ({**LEVEL_UP, "event_timestamp": "1764000000000"}, "event_timestamp"),
            ({**LEVEL_UP, "event_timestamp": 2**63}, "event_timestamp"),
            ({**LEVEL_UP, "user_id": 1.5}, "user_id"),
            ({**LEVEL_UP, "user_id": True}, "user_id"),
            ({**LEVEL_UP, "event_data": {"level": True}}, "event_data.level"),
            ({**LEVEL_UP, "event_data": {"amount": "5"}}, "event_data.amount"),
            ({**LEVEL_UP, "event_data": {"rewards": {"gold": {"type": "currency"}}}}, "amount"),
            ({**LEVEL_UP, "params": ["boss"]}, "params"),
        ],
    ),
    "telemetry/aws_game_analytics": Golden(
        [AWS, {**AWS, "event": {**_without(AWS["event"], "event_data"), "event_timestamp": 1795394085.25}}],
        [(_without(AWS, "application_id"), "application_id")]
        + [({**AWS, "event": _without(AWS["event"], name)}, name) for name in ("event_id", "event_type", "event_name")]
        + [({**AWS, "event": {**AWS["event"], "event_timestamp": "1795394085"}}, "event.event_timestamp")],
    ),
    "telemetry/playfab": Golden(
        [PLAYSTREAM, LOGGED_IN],
        [
            (_without(PLAYSTREAM, "EventName"), "EventName"),
            (_without(PLAYSTREAM, "Timestamp"), "Timestamp"),
            ({**PLAYSTREAM, "OrderTotal": "499"}, "OrderTotal"),
            ({**LOGGED_IN, "Location": "Berlin"}, "Location"),
        ],
    ),
    "twelve_traits/action": Golden(
        [
            {
                "player_id": "1001",
                "action_id": "2002",
                "action_name": "buy_item",
                "timestamp": STAMP,
                "action_params": [{"key": "item_id", "value": "3003"}],
            },
            {"player_id": "1001", "action_id": "a", "action_name": "a"},
        ],
        [
            ({"player_id": "1001", "action_id": "a"}, "action_name"),
            ({"player_id": 1001, "action_id": "a", "action_name": "a"}, "player_id"),
            (
                {"player_id": "1", "action_id": "a", "action_name": "a", "action_params": [{"key": "k", "value": 1}]},
                "value",
            ),
            ({"player_id": "1", "action_id": "a", "action_name": "a", "timestamp": STAMP + "Z"}, "timestamp"),
        ],
    ),
    "twelve_traits/kpi": Golden(
        [KPI, {"player_id": "1001", "value": 3.0, "kpi_custom_title": "Fun"}],
        [
            ({**KPI, "kpi_id": "ltv"}, "kpi_id"),
            ({**KPI, "kpi_custom_title": "Fun"}, "exactly one of kpi_id, kpi_custom_title"),
            (_without(KPI, "kpi_id"), "exactly one of kpi_id, kpi_custom_title"),
            (_without(KPI, "value"), "value"),
        ],
    ),
    "twelve_traits/player_login": Golden(
        [LOGIN, {"player_id": "1001"}],
        [
            ({**LOGIN, "country": "us"}, "country"),
            ({**LOGIN, "country": "USA"}, "country"),
            ({**LOGIN, "register_date": "2018-11-14 00:00:00"}, "register_date"),
            ({**LOGIN, "last_login_timestamp": "2019-01-01T11:10:06"}, "last_login_timestamp"),
            ({**LOGIN, "level": 2**31}, "level"),
            ({**LOGIN, "language": "en_US"}, "language"),
        ],
    ),
    "twelve_traits/purchase": Golden(
        [BOUGHT],
        [
            ({**BOUGHT, "price": 0.0}, "price"),
            ({**BOUGHT, "count": 1.0}, "count"),
            (_without(BOUGHT, "item_id"), "item_id"),
        ],
    ),
    "twelve_traits/virtual_purchase": Golden(
        [VIRTUAL], [({**VIRTUAL, "currency": ""}, "currency"), (_without(VIRTUAL, "virtual_price"), "virtual_price")]
    ),
    "twelve_traits/level_up": Golden(
        [{"player_id": "1001", "level": 10, "timestamp": STAMP}],
        [({"player_id": "1001", "level": "10"}, "level"), ({"player_id": "", "level": 10}, "player_id")],
    ),
    "twelve_traits/item": Golden(
        [ITEM, _without(ITEM, "type")], [({**ITEM, "price": "25.50"}, "price"), (_without(ITEM, "name"), "name")]
    ),
    "twelve_traits/social_dynamics": Golden(
        [SOCIAL, {**SOCIAL, "connection": "unlinked"}, {**SOCIAL, "connection": "unllinked", "interaction": "party"}],
        [({**SOCIAL, "connection": "blocked"}, "connection"), ({**SOCIAL, "interaction": "clan"}, "interaction")],
    ),
    "twelve_traits/playfab": Golden(
        [{"EventName": "player_logged_in", "Timestamp": "2016-03-07T00:00:00Z", "TitleId": "AAAA"}],
        [({"Timestamp": "2016-03-07T00:00:00Z"}, "EventName")],
    ),
    "traitly/event": Golden(
        [
            {"customer_id": "1", "name": "Logged in", "created_at": 1493933699},
            {"customer_id": "1", "name": "Logged in"},
        ],
        [
            ({"customer_id": "1", "name": "Logged in", "created_at": 1493933699000}, "created_at"),
            ({"customer_id": 1, "name": "Logged in"}, "customer_id"),
            ({"customer_id": "1"}, "name"),
        ],
    ),
    "traitly/customer": Golden(
        [CUSTOMER],
        [
            ({**CUSTOMER, "email": "john.smith"}, "email"),
            (_without(CUSTOMER, "plan"), "plan"),
            (_without(CUSTOMER, "name"), "name"),
        ],
    ),
    "parcelvoy/alias": Golden(
        [{"anonymous_id": "ANONYMOUS_ID", "external_id": "EXTERNAL_ID"}],
        [({"external_id": "e"}, "anonymous_id"), ({"anonymous_id": "a" * 256, "external_id": "e"}, "anonymous_id")],
    ),
    "parcelvoy/identify": Golden(
        [IDENTIFY, {"anonymous_id": "a", "timezone": "Etc/GMT+5"}],
        [
            (_without(IDENTIFY, "external_id"), "one of external_id, anonymous_id"),
            ({**IDENTIFY, "timezone": "CEST"}, "timezone"),
            ({**IDENTIFY, "timezone": "+02:00"}, "timezone"),
            ({**IDENTIFY, "external_id": "e" * 256}, "external_id"),
        ],
    ),
    "parcelvoy/device": Golden(
        [DEVICE, _without(DEVICE, "token")],
        [
            (_without(DEVICE, "external_id"), "one of external_id, anonymous_id"),
            ({**DEVICE, "app_build": 465}, "app_build"),
            (_without(DEVICE, "model"), "model"),
        ],
    ),
    "parcelvoy/event": Golden(
        [
            {
                "name": "Product Purchased",
                "external_id": "E",
                "data": {"product_id": 12345, "price": 49.99, "quantity": 4},
            },
            {"name": "n" * 255, "anonymous_id": "ü" * 255},
        ],
        [
            ({"name": "n" * 256, "external_id": "E"}, "name"),
            ({"external_id": "E"}, "name"),
            ({"name": "n"}, "one of external_id, anonymous_id"),
            ({"name": "n", "external_id": "E", "data": "x"}, "data"),
        ],
    ),
    "swrve/session_start": Golden(
        [
            {"time": 1327211960781, "type": "session_start"},
            {"time": TIME, "type": "session_start", "payload": {"k": "v", "n": 1}},
        ],
        [
            ({"type": "session_start"}, "time"),
            ({"time": 1327211960, "type": "session_start"}, "time"),
            ({"time": TIME, "type": "session_end"}, "type"),
            ({"time": TIME, "type": "session_start", "payload": {"paid": False}}, "payload"),
            ({"time": TIME, "type": "session_start", "payload": {"ratio": 0.5}}, "payload"),
            ({"time": TIME, "type": "session_start", "payload": {str(n): n for n in range(501)}}, "payload"),
        ],
    ),
    "swrve/session_end": Golden(
        [{"time": 1327611741945, "type": "session_end"}], [({"time": "1327611741945"}, "time")]
    ),
    "swrve/event": Golden(
        [{"time": TIME, "name": "event.name", "type": "event", "payload": {str(n): n for n in range(500)}}],
        [
            ({"time": TIME, "name": "level.start/", "type": "event"}, "name"),
            ({"time": TIME, "name": "level up", "type": "event"}, "name"),
            ({"time": TIME, "name": "ok\n", "type": "event"}, "name"),
            ({"time": TIME, "name": "", "type": "event"}, "name"),
        ],
    ),
    "swrve/purchase": Golden(
        [{"time": TIME, **PURCHASE, "type": "purchase"}],
        [
            ({"time": TIME, **PURCHASE, "cost": 1.5, "type": "purchase"}, "cost"),
            ({"time": TIME, **PURCHASE, "quantity": 0, "type": "purchase"}, "quantity"),
            ({"time": TIME, **_without(PURCHASE, "currency"), "type": "purchase"}, "currency"),
        ],
    ),
    "swrve/iap": Golden(
        [IAP, GOOGLE, {**_without(GOOGLE, "product_id"), "app_store": "apple"}],
        [
            ({**IAP, "app_store": "steam"}, "app_store"),
            ({**IAP, "local_currency": "usd"}, "local_currency"),
            ({**IAP, "local_cost": 0.0}, "local_cost"),
            ({**IAP, "rewards": {"coins": {"type": "currency", "amount": 0.0}}}, "amount"),
            ({**IAP, "rewards": {"coins": {"type": "coin", "amount": 1.0}}}, "type"),
            (_without(IAP, "quantity"), "product_id, quantity must be there when app_store is unknown_store"),
            (_without(GOOGLE, "receipt_signature"), "receipt_signature must be there when app_store is google"),
            ({**_without(GOOGLE, "receipt"), "app_store": "apple"}, "receipt must be there when app_store is apple"),
        ],
    ),
    "swrve/currency_given": Golden(
        [{"time": TIME, **GIVEN, "type": "currency_given"}],
        [
            ({"time": TIME, **GIVEN, "given_amount": 0.0, "type": "currency_given"}, "given_amount"),
            ({"time": TIME, **GIVEN, "given_amount": -1.0, "type": "currency_given"}, "given_amount"),
            ({"time": TIME, **GIVEN, "given_currency": "", "type": "currency_given"}, "given_currency"),
        ],
    ),
    "swrve/user": Golden(
        [
            {"time": TIME, "attributes": {"balance": 1200, "level": 12, "name": "x"}, "type": "user"},
            {"time": TIME, "attributes": {}, "type": "user"},
        ],
        [
            ({"time": TIME, "type": "user"}, "attributes"),
            ({"time": TIME, "attributes": {"tags": ["a"]}, "type": "user"}, "attributes"),
        ],
    ),
    "swrve/single_session_start": Golden(
        [{"swrve_payload": {"optional_key": "optional_value"}, "app_version": "1.00"}, {}],
        [({"app_version": 1}, "app_version")],
    ),
    "swrve/single_session_end": Golden([{"app_version": "1.00"}], [({"swrve_payload": "{}"}, "swrve_payload")]),
    "swrve/single_event": Golden([{"name": "winning"}], [({}, "name"), ({"name": "level up"}, "name")]),
    "swrve/single_purchase": Golden(
        [{"item": "shield_2", "cost": 5, "currency": "gems", "quantity": 1, "swrve_payload": {"level": 1}}],
        [({**PURCHASE, "cost": "100"}, "cost"), (_without(PURCHASE, "item"), "item")],
    ),
    "swrve/single_iap": Golden(
        [SINGLE_IAP, _without(SINGLE_IAP, "local_currency")],
        [
            (_without(SINGLE_IAP, "cost"), "cost"),
            (_without(SINGLE_IAP, "product_id"), "product_id, quantity must be there when app_store is unknown_store"),
            ({**SINGLE_IAP, "app_store": "google"}, "receipt_signature must be there when app_store is google"),
            ({**SINGLE_IAP, "app_store": "apple"}, "receipt must be there when app_store is apple"),
        ],
    ),
    "swrve/single_currency_given": Golden([GIVEN], [({**GIVEN, "given_amount": 0.0}, "given_amount")]),
    "swrve/single_user": Golden(
        [{"attributes": {"level": 7, "Swrve.referrer_id": "my_partner"}, "user_initiated": False}],
        [({"user_initiated": "false"}, "user_initiated"), ({"attributes": {"level": None}}, "attributes")],
    ),
    "swrve/identity": Golden(
        [{"user": "user1"}, {"external_user_id": "b6f0@studio"}],
        [
            ({"external_user_id": "jo@example.com"}, "external_user_id"),
            ({"user": "jo@example.com"}, "user"),
            ({"user": "a", "external_user_id": "b"}, "exactly one of user, external_user_id"),
            ({}, "exactly one of user, external_user_id"),
        ],
    ),
    "teak/event": Golden(
        [
            {
                "user_id": "player_123",
                "action_type": "level_up",
                "object_type": "character",
                "object_instance_id": "warrior",
                "event_count": 1,
            },
            SPIN,
            {"user_id": "u", "action_type": "login", "client_ip": "2001:db8::1"},
            {"user_id": "u", "action_type": "login", "client_ip": "203.0.113.9"},
        ],
        [
            (_without(SPIN, "sum_of_squares"), "value, sum_of_squares must be there together"),
            (_without(SPIN, "action_type"), "action_type"),
            ({**SPIN, "user_id": ""}, "user_id"),
            ({**SPIN, "event_count": 0}, "event_count"),
            ({**SPIN, "country_code": "usa"}, "country_code"),
            ({**SPIN, "client_ip": "unknown"}, "client_ip"),
        ],
    ),
}
