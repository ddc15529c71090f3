"""The events of the Swrve Events API: what each type holds, in a batch and as a single call.

Source: Swrve Events API (last modified September 6, 2021); headings are named at each rule. Numbers may come as JSON
numbers or as text, as in the document's examples. A batch event carries `type`, `time` and perhaps `payload`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from sandbox import checks
from sandbox.checks import Problem, Shape, Test

#: "at most 500 pairs" in a payload
MAX_PAYLOAD_PAIRS = 500

STORES = ("apple", "google", "unknown_store")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TAG_UPDATE = "Swrve.user_tag_update"
#: Milliseconds: later than 1973 and before 2286; a time in seconds lies outside.
_TIMES = range(100_000_000_000, 10_000_000_000_000)


def _milliseconds(value: object) -> str | None:
    return None if type(value) is int and value in _TIMES else "must be milliseconds since the Unix epoch"


def _name(value: object) -> str | None:
    """Events: "The first string of valid characters is taken as the event name"; without one there is no name."""
    return None if type(value) is str and _NAME.search(value) else "must hold letters, digits, dashes, _ or dots"


def _payload(value: object) -> str | None:
    """Event payload: "a JSON object of name/value pairs ... restricted to containing string or integers"."""
    if type(value) is not dict:
        return "must be an object"
    if len(value) > MAX_PAYLOAD_PAIRS:
        return f"must have at most {MAX_PAYLOAD_PAIRS} pairs"
    for item in value.values():
        if type(item) is not str and type(item) is not int:
            return "values must be strings or integers"
    return None


def _payload_text(value: object) -> str | None:
    """A single call's swrve_payload: the same, as JSON text."""
    if type(value) is not str:
        return "must be JSON text"
    try:
        return _payload(msgspec.json.decode(value.encode()))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return "must be JSON text"


def _attributes(value: object) -> str | None:
    if type(value) is not dict:
        return "must be an object"
    for item in value.values():
        if type(item) not in (str, int, float, bool):
            return "values must be strings, numbers or booleans"
    return None


def _rewards(value: object) -> str | None:
    """IAP, rewards: {name: {"type": "item" | "currency", "amount": above 0}}"""
    if type(value) is not dict:
        return "must be an object"
    for name, reward in value.items():
        if not name or type(reward) is not dict or set(reward) != {"type", "amount"}:
            return "each must be a name with type and amount"
        if reward["type"] not in ("item", "currency"):
            return "type must be item or currency"
        wrong = checks.positive_numeral(reward["amount"])
        if wrong:
            return f"amount {wrong}"
    return None


_PURCHASE: dict[str, Test] = {
    "item": checks.filled,
    "cost": checks.whole_numeral,
    "currency": checks.filled,
}
_GIVEN: dict[str, Test] = {"given_currency": checks.filled, "given_amount": checks.positive_numeral}
_IAP: dict[str, Test] = {
    "product_id": checks.filled,
    "quantity": checks.whole_numeral,
    "rewards": _rewards,
    "receipt": checks.filled,
    "receipt_signature": checks.filled,
    "transaction_id": checks.filled,
}
_STORE: dict[str, Test] = {"app_store": checks.one_of(*STORES)}
_QUANTITY: dict[str, Test] = {"quantity": checks.whole_numeral}


def _batch_shape(required: dict[str, Test], optional: dict[str, Test] | None = None) -> Shape:
    always: dict[str, Test] = {"type": checks.text, "time": _milliseconds}
    return Shape({**always, **required}, {"payload": _payload, **(optional or {})})


#: Batch: what each type of event holds besides user or external_user_id
BATCH = {
    "session_start": _batch_shape({}),
    "session_end": _batch_shape({}),
    "event": _batch_shape({"name": _name}),
    "purchase": _batch_shape(_PURCHASE, _QUANTITY),
    # Batch, Important notes: local_cost and local_currency are required, and local_cost stands in place of cost.
    "iap": _batch_shape(
        {**_STORE, "local_cost": checks.positive_numeral, "local_currency": checks.currency_code}, _IAP
    ),
    "currency_given": _batch_shape(_GIVEN),
    # Batch, Important notes: "The attributes field is required for user update events"
    "user": _batch_shape({"attributes": _attributes}),
}


def _single_shape(required: dict[str, Test], optional: dict[str, Test] | None = None) -> Shape:
    return Shape(required, {"app_version": checks.text, "swrve_payload": _payload_text, **(optional or {})})


#: The single calls: what each holds besides the user and the key
SINGLE = {
    "session_start": _single_shape({}),
    "session_end": _single_shape({}),
    "event": _single_shape({"name": _name}),
    "purchase": _single_shape(_PURCHASE, _QUANTITY),
    # JSON, so its payload is an object. local_currency is USD when absent.
    "iap": Shape(
        {**_STORE, "cost": checks.positive_numeral},
        {
            **_IAP,
            "local_cost": checks.positive_numeral,
            "local_currency": checks.currency_code,
            "app_version": checks.text,
            "swrve_payload": _payload,
        },
    ),
    "currency_given": _single_shape(_GIVEN),
    # Every other parameter is an attribute.
    "user": _single_shape({}, {"user_initiated": checks.text}),
}


def problems(kind: str, event: dict[str, Any], shape: Shape) -> list[Problem]:
    """What makes Swrve refuse an event of a known type."""
    found = shape.problems(event)
    if kind == "iap":
        found += _store_problems(event)
        if "cost" in event and "cost" not in shape.fields:
            found.append(("cost", "must not be there: local_cost stands in its place"))
    elif kind == "user" and "user_initiated" in event and "user_initiated" not in shape.fields:
        found.append(("user_initiated", "is not supported in a batch"))
    elif kind == "event" and event.get("name") == _TAG_UPDATE:
        found += _tag_problems(event)
    return found


def _store_problems(event: dict[str, Any]) -> Iterator[Problem]:
    """IAP, URL parameters: what each store requires."""
    store = event.get("app_store")
    needed = {
        "google": ("product_id", "receipt", "receipt_signature"),
        "unknown_store": ("product_id", "quantity"),
        "apple": ("receipt",),
    }.get(store if type(store) is str else "", ())
    for field in needed:
        if field not in event:
            yield field, f"is required for {store}"


def _tag_problems(event: dict[str, Any]) -> Iterator[Problem]:
    """Update user list content: the payload names the action and the list."""
    payload = event.get("payload", event.get("swrve_payload"))
    if type(payload) is str:
        try:
            payload = msgspec.json.decode(payload.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return  # said by the field's own test
    if type(payload) is not dict or payload.get("action") not in ("add", "remove") or not payload.get("tag_name"):
        yield "payload", "must hold action (add or remove) and tag_name"


def doubts(kind: str, event: dict[str, Any], shape: Shape, besides: frozenset[str]) -> list[str]:
    """What Swrve takes and a correct client does not send. `besides` are keys that are no part of the event."""
    found = [f"{key}: unknown key of {kind}" for key in shape.unknown(event) if key not in besides]
    if kind == "event" and not _NAME.fullmatch(event["name"]):
        found.append("name: holds other characters than letters, digits, dashes, underscores and dots")
    return found


def currencies(kind: str, event: dict[str, Any]) -> list[str]:
    """The in-app currencies an event names; Swrve must know them all."""
    if kind == "purchase":
        return [event["currency"]]
    if kind == "currency_given":
        return [event["given_currency"]]
    if kind == "iap":
        return [name for name, reward in event.get("rewards", {}).items() if reward["type"] == "currency"]
    return []
