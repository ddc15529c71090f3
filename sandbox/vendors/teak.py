"""Teak server-side analytics events (v2). Source: Teak documentation, Analytics Events; headings named at each rule."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from sandbox import checks
from sandbox.checks import Shape
from sandbox.credentials import Credentials
from sandbox.exchange import Item, Refused, Reply, Request
from sandbox.vendors.base import FORM, Vendor, content_type, encode, json_body, pairs, require_method, strings

#: "Maximum of 100 events per request." (Batch Sending)
MAX_EVENTS = 100
#: "100 requests per second" (Rate Limiting), of each endpoint
MAX_REQUESTS_A_SECOND = 100

_SINGLE = "/v2/analytics_events"
_BATCH = "/v2/analytics_events/batch"


def _count_numeral(value: object) -> str | None:
    return checks.whole_numeral(value) or checks.positive_numeral(value)


_REQUIRED = {"user_id": checks.filled, "action_type": checks.filled}
_TEXTS = {
    "object_type": checks.text,
    "object_instance_id": checks.text,
    "client_ip": checks.ip_address,
    "country_code": checks.country,
}
_JSON_EVENT = Shape(
    _REQUIRED,
    {**_TEXTS, "event_count": checks.at_least_one, "value": checks.number, "sum_of_squares": checks.number},
)
_FORM_EVENT = Shape(
    _REQUIRED,
    {
        **_TEXTS,
        "event_count": _count_numeral,
        "value": checks.any_numeral,
        "sum_of_squares": checks.any_numeral,
    },
)
_CREDENTIALS = frozenset({"game_id", "secret_key"})
# events[][user_id]=1&events[][action_type]=spin, or with a number between the brackets
_FORM_KEY = re.compile(r"events\[(\d{0,4})\]\[(\w+)\]")


class Teak(Vendor):
    slug = "teak"
    item_answers = True
    setting_names = ("unknown_users",)

    def __init__(self, credentials: Credentials) -> None:
        self._secrets = credentials.teak
        self._unknown: frozenset[str] = frozenset()
        self._recent: dict[str, deque[float]] = {_SINGLE: deque(), _BATCH: deque()}

    def error_body(self, status: int, field: str, message: str) -> bytes:
        name = field or ("rate_limit" if status == 429 else "base")
        return encode({"status": "rate_limit" if status == 429 else "error", "errors": {name: [message]}})

    def configure(self, settings: dict[str, Any]) -> None:
        self._unknown = strings(settings["unknown_users"])

    def settings(self) -> dict[str, Any]:
        return {"unknown_users": sorted(self._unknown)}

    def usual_text(self, status: int, path: str) -> str:
        if status != 429:
            return super().usual_text(status, path)
        times = f"may only be called {MAX_REQUESTS_A_SECOND} times per second"
        return f"{path} {times}. Please wait a second and try again"

    def over_rate(self, request: Request, clock: float) -> Reply | None:
        """At most 100 requests of an endpoint are let pass in any one second; refused ones do not count."""
        recent = self._recent.get(request.path)
        if recent is None:
            return None
        while recent and recent[0] <= clock - 1.0:
            recent.popleft()
        if len(recent) < MAX_REQUESTS_A_SECOND:
            recent.append(clock)
            return None
        return Reply(
            429,
            self.error_body(429, "", self.usual_text(429, request.path)),
            violations=[f"more than {MAX_REQUESTS_A_SECOND} requests in one second"],
        )

    def handle(self, request: Request) -> Reply:
        if request.path not in self._recent:
            raise Refused(404, "path", "could not be found")
        request.model = "event"
        require_method(request, "POST")
        form = content_type(request) == FORM
        if request.path == _SINGLE:
            return self._single(request, form)
        return self._batch(request, form)

    def _single(self, request: Request, form: bool) -> Reply:
        """Sending a Single Event"""
        body = _flat_form(request.body) if form else _object(json_body(request))
        request.count = 1
        request.users = _users([body])
        self._authorise(body)
        event = {key: value for key, value in body.items() if key not in _CREDENTIALS}
        shape = _FORM_EVENT if form else _JSON_EVENT
        for field, wrong in shape.problems(event):
            raise Refused(400, field, wrong)
        if event["user_id"] in self._unknown or 0 in request.item_errors:
            raise Refused(404, "user_id", "could not be found", violation=False)
        violations = _doubts(event, shape)
        return Reply(200, b'{"status":"ok"}', [Item("event", event["user_id"], None, event)], violations=violations)

    def _batch(self, request: Request, form: bool) -> Reply:
        """Batch Sending"""
        body = _nested_form(request.body) if form else _object(json_body(request))
        events = body.get("events")
        if type(events) is list:
            request.count = len(events)
            request.users = _users(events)
        self._authorise(body)
        if type(events) is not list or not 1 <= len(events) <= MAX_EVENTS:
            raise Refused(400, "events", f"must be a non-empty array (max {MAX_EVENTS} items)")
        shape = _FORM_EVENT if form else _JSON_EVENT
        reply = Reply(200)
        for key in body:
            if key != "events" and key not in _CREDENTIALS:
                reply.violations.append(f"{key}: unknown key of the body")
        results = [self._result(event, index, request, shape, reply) for index, event in enumerate(events)]
        if request.reorder:
            results.reverse()
        summary = {
            "total_events": len(events),
            "successful_events": len(reply.items),
            "failed_events": reply.rejected.get("event", 0),
        }
        reply.body = encode({"status": "ok", "results": results, "summary": summary})
        return reply

    def _result(self, event: Any, index: int, request: Request, shape: Shape, reply: Reply) -> dict[str, Any]:
        """One event's answer: "Individual event failures do not prevent other events ... from being processed"."""
        user = event.get("user_id") if type(event) is dict else None
        errors: dict[str, list[str]] = {}
        for field, wrong in shape.problems(event):
            errors.setdefault(field or "base", []).append(wrong)
            reply.violations.append(f"events: {field} {wrong}")
        if not errors and (user in self._unknown or index in request.item_errors):
            errors["user_id"] = ["could not be found"]
        if errors:
            reply.reject("event")
            return {"status": "error", "user_id": user, "errors": errors}
        reply.violations += _doubts(event, shape)
        reply.items.append(Item("event", event["user_id"], None, event))
        return {"status": "ok", "user_id": user}

    def _authorise(self, body: dict[str, Any]) -> None:
        """The documents know one answer that fits: 404, naming "which resource was not found"."""
        game, secret = body.get("game_id"), body.get("secret_key")
        if type(game) is not str or game not in self._secrets:
            raise Refused(404, "game_id", "could not be found")
        if secret != self._secrets[game]:
            raise Refused(404, "secret_key", "could not be found")


def _doubts(event: dict[str, Any], shape: Shape) -> list[str]:
    """What Teak takes and a correct client does not send."""
    found = [f"{key}: unknown key of an event" for key in shape.unknown(event)]
    if ("value" in event) != ("sum_of_squares" in event):
        found.append("value and sum_of_squares: one without the other leaves a wrong default of 1")
    return found


def _users(events: list[Any]) -> set[str]:
    return {each["user_id"] for each in events if type(each) is dict and type(each.get("user_id")) is str}


def _object(body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise Refused(400, "", "must be a JSON object")
    return body


def _flat_form(encoded: bytes) -> dict[str, Any]:
    found = pairs(encoded)
    body: dict[str, Any] = dict(found)
    if len(body) != len(found):
        raise Refused(400, "", "a parameter is given twice")
    return body


def _nested_form(encoded: bytes) -> dict[str, Any]:
    """A form with an array of objects. With empty brackets, a key that comes again begins the next object."""
    body: dict[str, Any] = {}
    rows: dict[int, dict[str, str]] = {}
    last = -1
    for key, value in pairs(encoded):
        match = _FORM_KEY.fullmatch(key)
        if match is None:
            if key in body:
                raise Refused(400, "", "a parameter is given twice")
            body[key] = value
            continue
        index, name = match.groups()
        if index:
            row = rows.setdefault(int(index), {})
            if name in row:
                raise Refused(400, "", "a parameter is given twice")
        else:
            if last < 0 or name in rows[last]:
                last += 1
            row = rows.setdefault(last, {})
        row[name] = value
    if rows:
        body["events"] = [rows[index] for index in sorted(rows)]
    return body
