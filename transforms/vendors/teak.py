"""Teak: analytics events.

Rules are from Teak's document "Analytics Events" (sections Sending a Single Event, Batch Sending).
An HTTP 200 does not mean delivered: a batch's answer holds one result an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from transforms.elements import Item
from transforms.vendors.base import (
    Answer,
    Batch,
    Credential,
    Delivered,
    Frame,
    Limits,
    Model,
    On,
    Option,
    Partial,
    Reject,
    Retry,
    Route,
    Settings,
    Split,
    Stop,
    Vendor,
    Verdict,
    answer_fields,
    error_text,
    excerpt,
)

BATCH_EVENTS = 100
"""Events a request. Source: Analytics Events, Batch Sending, Batch Size."""

REQUESTS_A_SECOND = 100
"""Source: Analytics Events, Rate Limiting of each endpoint."""

BODY_BYTES = 1_000_000
"""Bytes of a body: Teak's document names no limit. 100 events are about 20 kB, so this only stops runaway records."""

BATCH = Route(
    "batch",
    "/v2/analytics_events/batch",
    Limits(BATCH_EVENTS, BODY_BYTES, "Analytics Events, Batch Sending, Batch Size"),
)
SINGLE = Route(
    "single", "/v2/analytics_events", Limits(1, BODY_BYTES, "Analytics Events, Sending a Single Event"), wrapped=True
)

MODELS = {"event": Model("teak/event", BATCH, "What a player did, for segmentation; Teak dates it by arrival.")}
_SINGLE_MODELS = {"event": Model("teak/event", SINGLE, MODELS["event"].doc)}


class _Result(msgspec.Struct, gc=False):
    status: Any = None
    user_id: Any = None
    errors: Any = None


class _Results(msgspec.Struct, gc=False):
    results: list[_Result]


_decode_results = msgspec.json.Decoder(_Results).decode
_encode = msgspec.json.Encoder().encode


def _base_url(credentials: Mapping[str, str], options: Mapping[str, Any]) -> str:
    return "https://api.gocarrot.com"


def _headers(settings: Settings, route: Route) -> list[str]:
    return []


def _models_for(options: Mapping[str, Any]) -> Mapping[str, Model]:
    return _SINGLE_MODELS if options.get("send") == "single" else MODELS


def _frame(settings: Settings, route: Route, user: str, now: float) -> Frame:
    """The keys go into the body (Analytics Events, Required Parameters)."""
    keys = _encode({"game_id": settings.credentials["game_id"], "secret_key": settings.credentials["secret_key"]})[:-1]
    if route.name == SINGLE.name:
        return Frame(keys + b",", b"")
    return Frame(keys + b',"events":[', b"]}")


def _wrap(settings: Settings, route: Route) -> Callable[[Item], bytes]:
    """A single event's fields stand beside the keys: its opening brace is the frame's."""
    return lambda item: item[0][1:]


def _single_taken(answer: Answer, batch: Batch) -> Verdict:
    """HTTP 200 of the single endpoint (Sending a Single Event, Success Response)."""
    body = answer_fields(answer)
    if body.get("status") == "ok":
        return Delivered()
    if body.get("status") == "error":
        return Reject(error_text(body.get("errors")))
    return Retry(f"HTTP 200 without a readable status: {excerpt(answer.body)}")


def _batch_taken(answer: Answer, batch: Batch) -> Verdict:
    """HTTP 200 of the batch endpoint: one result an event (Batch Sending, Success Response)."""
    try:
        results = _decode_results(answer.body).results
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Retry(f"HTTP 200 without readable results: {excerpt(answer.body)}")
    users = [item[2] for item, _ in batch.items]
    if [result.user_id for result in results] == users and {result.status for result in results} == {"ok"}:
        return Delivered()
    rejected: dict[int, str] = {}
    again: list[int] = []
    for index, result in enumerate(_by_item(results, batch)):
        if result is None or result.status == "rate_limit":
            again.append(index)
        elif result.status != "ok":
            rejected[index] = (
                error_text(result.errors) if result.errors else f"status {excerpt(str(result.status).encode())}"
            )
    return Partial(rejected, again) if rejected or again else Delivered()


def _by_item(results: list[_Result], batch: Batch) -> list[_Result | None]:
    """Each item's own result. Results come in the order of the events; where the users do not agree with
    that, a user's results are taken in order for the user's items. None: no result for this item."""
    users = [_sent_user(item) for item, _ in batch.items]
    named = [None if result.user_id is None else str(result.user_id) for result in results]
    if named == users:
        return list(results)
    waiting: dict[str | None, deque[_Result]] = {}
    for result, user in zip(results, named, strict=True):
        waiting.setdefault(user, deque()).append(result)
    return [waiting[user].popleft() if waiting.get(user) else None for user in users]


class _User(msgspec.Struct, gc=False):
    user_id: str = ""


_decode_user = msgspec.json.Decoder(_User).decode


def _sent_user(item: Item) -> str:
    """The user_id as the payload has it: a mapping may send another than the item's user."""
    return _decode_user(item[0]).user_id


def _user_unknown(answer: Answer) -> bool:
    errors = answer_fields(answer).get("errors")
    return isinstance(errors, dict) and "user_id" in errors


def _unknown_key(answer: Answer) -> str:
    """The credential that Teak does not know; empty when it is none."""
    errors = answer_fields(answer).get("errors")
    return next((key for key in ("game_id", "secret_key") if isinstance(errors, dict) and key in errors), "")


def _error(answer: Answer) -> str:
    errors = answer_fields(answer).get("errors")
    return f"HTTP {answer.status}: {error_text(errors) if errors else excerpt(answer.body)}"


def _not_found(answer: Answer, batch: Batch) -> Verdict:
    """404 names which resource was not found (Sending a Single Event, Not Found): a key, a user, or the address itself."""
    key = _unknown_key(answer)
    if not key and _user_unknown(answer):
        # A batch is told of its users one by one with a 200, but should it ever be refused for one, only that one is wrong.
        return Reject(_error(answer)) if batch.route.name == SINGLE.name else Split(_error(answer))
    return Stop(f"credentials.{key}" if key else "url", _error(answer))


def _ok(answer: Answer, batch: Batch) -> Verdict:
    return _single_taken(answer, batch) if batch.route.name == SINGLE.name else _batch_taken(answer, batch)


VENDOR = Vendor(
    slug="teak",
    title="Teak",
    doc="Analytics events for segmentation.",
    credentials=(
        Credential("game_id", "Teak App ID.", secret=False),
        Credential("secret_key", "Teak Server Secret."),
    ),
    credential_sets=(frozenset({"game_id", "secret_key"}),),
    options=(
        Option(
            "send",
            "`batch`: up to 100 events a request. `single`: one event a request.",
            default="batch",
            choices=("batch", "single"),
        ),
    ),
    models=MODELS,
    models_for=_models_for,
    base_url=_base_url,
    frame=_frame,
    headers=_headers,
    wrap=_wrap,
    answers=(
        On(200, _ok),
        On(400, lambda answer, _: Split(_error(answer))),
        On(404, _not_found),
        On(429, lambda answer, _: Retry(_error(answer))),
    ),
    rate=REQUESTS_A_SECOND,
    rate_source="Analytics Events, Rate Limiting",
)
