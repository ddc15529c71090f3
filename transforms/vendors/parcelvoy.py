"""Parcelvoy: events, user profiles, devices and aliases through the client API.

Rules are from Parcelvoy's document "Client API", checked against a running server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.vendors.base import (
    Answer,
    Batch,
    Credential,
    Frame,
    Limits,
    Model,
    On,
    Reject,
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

BODY_BYTES = 1 << 20
"""A body above 1 MiB is refused with 400. Source: observed of a running server, Client API."""

ARRAY_EVENTS = 5_000
"""Events a request: as many were seen to be taken; the document names no limit. Source: Client API, Post Event."""

UNKNOWN_KEY = 6000
"""`code` of the 404 that means the key is not known, not the path. Source: observed of a running server."""

_ONE = Limits(1, BODY_BYTES, "Client API: one object a request; body limit as observed")
EVENTS = Route("events", "/api/client/events", Limits(ARRAY_EVENTS, BODY_BYTES, "Client API, Post Event; as observed"))
IDENTIFY = Route("identify", "/api/client/identify", _ONE)
DEVICES = Route("devices", "/api/client/devices", _ONE)
ALIAS = Route("alias", "/api/client/alias", _ONE)


def _base_url(credentials: Mapping[str, str], options: Mapping[str, Any]) -> str:
    return "https://app.parcelvoy.com"


def _headers(settings: Settings, route: Route) -> list[str]:
    return [f"Authorization: Bearer {settings.credentials['api_key']}"]


def _frame(settings: Settings, route: Route, user: str, now: float) -> Frame:
    return Frame(b"[", b"]") if route.name == EVENTS.name else Frame(b"", b"")


def _message(answer: Answer) -> str:
    body = answer_fields(answer)
    error = body.get("error") or body.get("errors") or body.get("message")
    return f"HTTP {answer.status}: {error_text(error) if error else excerpt(answer.body)}"


def _not_found(answer: Answer, batch: Batch) -> Verdict:
    known = answer_fields(answer).get("code") == UNKNOWN_KEY
    return Stop("credentials.api_key" if known else "url", _message(answer))


def _refused(answer: Answer, batch: Batch) -> Verdict:
    """One bad item makes the whole array be refused (Client API, Responses: 422)."""
    return Split(_message(answer)) if batch.route.name == EVENTS.name else Reject(_message(answer))


VENDOR = Vendor(
    slug="parcelvoy",
    title="Parcelvoy",
    doc="Events, profiles, devices and aliases. Parcelvoy dates events by arrival; their own time goes into `data`.",
    credentials=(Credential("api_key", "Public API key (pk_…)."),),
    credential_sets=(frozenset({"api_key"}),),
    models={
        "event": Model("parcelvoy/event", EVENTS, "Something a user did."),
        "identify": Model("parcelvoy/identify", IDENTIFY, "A user's profile."),
        "device": Model("parcelvoy/device", DEVICES, "A user's device, with its push token."),
        "alias": Model(
            "parcelvoy/alias", ALIAS, "An anonymous id becomes a known user; only a user's first alias counts."
        ),
    },
    base_url=_base_url,
    frame=_frame,
    headers=_headers,
    answers=(
        On((400, 413, 422), _refused),
        On((401, 403), lambda answer, _: Stop("credentials.api_key", _message(answer))),
        On(404, _not_found),
    ),
    gzip=True,
    # Events are dated by arrival, and an alias or profile must be there before the events that need it.
    in_order_across_routes=True,
)
