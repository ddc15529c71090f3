"""Traitly: events and customers, one object a request.

Rules are from Traitly's document "API Reference". Its read side (lookups) and its webhooks are
no part of sending and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.vendors.base import (
    Answer,
    Batch,
    Credential,
    Delivered,
    Frame,
    Limits,
    Model,
    On,
    Reject,
    Route,
    Settings,
    Stop,
    Vendor,
    Verdict,
    answer_fields,
    excerpt,
)

BODY_BYTES = 1_000_000
"""Bytes of a body: Traitly's document names no limit. This is what web servers commonly take unless told otherwise."""

EVENT = Route("event", "/api/v1/event", Limits(1, BODY_BYTES, "API Reference, Create an Event: one object a request"))
CUSTOMER = Route(
    "customer", "/api/v1/customer", Limits(1, BODY_BYTES, "API Reference, Create a Customer: one object a request")
)


def _base_url(credentials: Mapping[str, str], options: Mapping[str, Any]) -> str:
    return "https://api.traitly.com"


def _headers(settings: Settings, route: Route) -> list[str]:
    return [f"Authorization: Token {settings.credentials['token']}"]


def _frame(settings: Settings, route: Route, user: str, now: float) -> Frame:
    return Frame(b"", b"")


def _taken(answer: Answer, batch: Batch) -> Verdict:
    """Each object of an answer to an event says `"success": 1` (Create an Event); anything false there is a refusal."""
    if b'"success"' not in answer.body:
        return Delivered()
    data = answer_fields(answer).get("data")
    objects = data if isinstance(data, list) else []
    refused = any(isinstance(one, dict) and one.get("success", 1) in (0, False, "0") for one in objects)
    return Reject(f"HTTP {answer.status}: {excerpt(answer.body)}") if refused else Delivered()


VENDOR = Vendor(
    slug="traitly",
    title="Traitly",
    doc="Events and customers; one object a request.",
    credentials=(Credential("token", "API token of the account."),),
    credential_sets=(frozenset({"token"}),),
    models={
        "event": Model("traitly/event", EVENT, "Something a customer did."),
        "customer": Model("traitly/customer", CUSTOMER, "A customer's profile."),
    },
    base_url=_base_url,
    frame=_frame,
    headers=_headers,
    answers=(
        On(range(200, 300), _taken),
        On((401, 403), lambda answer, _: Stop("credentials.token", f"HTTP {answer.status}: {excerpt(answer.body)}")),
    ),
)
