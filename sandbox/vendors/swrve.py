"""Swrve Events API. Source: Swrve Events API (last modified September 6, 2021); headings are named at each rule.

The document gives an error's code and text, here as `{"code": 403, "message": "Invalid API Key"}`. Success is 200
without a body, and with `nonexistent_external_user_ids` for the multi-user batch. The host's `<app_id>` is no part of
the sandbox's address, so only the session token tells which app is meant.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sandbox import checks
from sandbox.credentials import Credentials, SwrveApp
from sandbox.exchange import Item, Refused, Reply, Request
from sandbox.vendors import swrve_events
from sandbox.vendors.base import FORM, Vendor, encode, json_body, pairs, require_content_type, require_method, strings

#: Multi-user batch: "Maximum events per batch: 10,000"; of the single-user batch the document says nothing.
MAX_EVENTS = 10_000
#: Multi-user batch: "Maximum UTF-8 characters per batch: 4MB"
MAX_BYTES = 4_000_000
#: A session token is good for 48 hours.
TOKEN_SECONDS = 48 * 3600
#: How far a token's time may lie ahead of our clock.
_CLOCK_SKEW = 300

#: Error codes (Session start, Multi-user batch)
_TEXTS = {403: "Invalid API Key", 410: "API key no longer valid", 429: "Rate limit exceeded"}
_SECONDS = re.compile(r"[0-9]{1,12}")
_WHO = frozenset({"user", "external_user_id"})
_KEYS = frozenset({"api_key", "identity_secret_key"})
_BATCH_BODY = frozenset({"version", "app_version", "session_token", "identity_secret_key", "data"}) | _WHO
_MULTI_BODY = frozenset({"version", "app_version", "data"}) | _KEYS
_MULTI_EVENT = _WHO | {"app_version"}


class Swrve(Vendor):
    slug = "swrve"
    item_answers = True
    setting_names = ("unknown_users", "currencies")

    def __init__(self, credentials: Credentials) -> None:
        self._apps = credentials.swrve
        self._unknown: frozenset[str] = frozenset()
        self._currencies: frozenset[str] | None = None

    def error_body(self, status: int, field: str, message: str) -> bytes:
        # 400 has one text in the document, "Invalid Parameter", but for batches that are too large.
        text = "Invalid Parameter" if status == 400 and message != "Batch limit exceeded" else message
        return encode({"code": status, "message": text})

    def usual_text(self, status: int, path: str) -> str:
        return _TEXTS.get(status) or super().usual_text(status, path)

    def configure(self, settings: dict[str, Any]) -> None:
        if "unknown_users" in settings:
            self._unknown = strings(settings["unknown_users"])
        if "currencies" in settings:
            known = settings["currencies"]
            self._currencies = None if known is None else strings(known)

    def settings(self) -> dict[str, Any]:
        known = self._currencies
        return {"unknown_users": sorted(self._unknown), "currencies": None if known is None else sorted(known)}

    def handle(self, request: Request) -> Reply:
        call = request.path.removeprefix("/1/")
        if call == request.path or (call not in swrve_events.SINGLE and call not in ("batch", "multi_user_batch")):
            raise Refused(404, "", "no such endpoint")
        request.model = call
        if call == "batch":
            return self._batch(request)
        if call == "multi_user_batch":
            return self._multi_user_batch(request)
        return self._single(request, call)

    def _single(self, request: Request, call: str) -> Reply:
        """Session start ... User: form-encoded or in the URL, but for /1/iap, which is JSON."""
        if call == "iap":
            require_method(request, "POST")
            params = _object(json_body(request))
        else:
            require_method(request, "POST", "GET")
            params = _form(request)
        request.count = 1
        user, external = _who(params)
        request.users = {user}
        self._require_key(params, external=external)
        event = {key: value for key, value in params.items() if key not in _WHO and key not in _KEYS}
        shape = swrve_events.SINGLE[call]
        for field, wrong in swrve_events.problems(call, event, shape):
            raise Refused(400, field, wrong)
        if external:
            self._require_known(request, user, 0)
        for name in swrve_events.currencies(call, event):
            if not self._knows(name):
                raise Refused(400, name, "no such currency", violation=False)
        if call != "user":
            violations = swrve_events.doubts(call, event, shape, frozenset())
        elif not shape.unknown(event):
            violations = ["an update without any attribute has no effect"]
        else:
            violations = []
        return Reply(200, items=[Item(call, user, None, event)], violations=violations)

    def _batch(self, request: Request) -> Reply:
        """Batch: events of one user, all taken or none, but for unknown currencies."""
        body = _batch_body(request, version=2)
        user, external = _who(body)
        request.users = {user}
        if external:
            self._require_identity_key(body)
        else:
            self._require_token(body, user, request.now)
        violations = [f"{key}: unknown key of the body" for key in body if key not in _BATCH_BODY]
        _require_limits(request, body["data"])
        reply = Reply(200, violations=violations)
        # One user's events are about that user, so none of them names another.
        for event in body["data"]:
            _check(event, frozenset(), reply)
        if external:
            self._require_known(request, user, 0)
        _check_order([(user, event["time"]) for event in body["data"]], reply)
        for event in body["data"]:
            self._take(user, event, reply)
        return reply

    def _multi_user_batch(self, request: Request) -> Reply:
        """Multi-user batch: all taken or none, but for unknown external users and currencies."""
        body = _batch_body(request, version=3)
        data = body["data"]
        people = [_who(event) for event in map(_object, data[: MAX_EVENTS + 1])]
        request.users = {user for user, _ in people}
        # "If you're using the Swrve user ID, you must use the app API key"
        if any(not external for _, external in people):
            self._require_api_key(body)
        if any(external for _, external in people):
            self._require_identity_key(body)
        _require_limits(request, data)
        reply = Reply(200, violations=[f"{key}: unknown key of the body" for key in body if key not in _MULTI_BODY])
        for event in data:
            _check(event, _MULTI_EVENT, reply)
        _check_order([(user, event["time"]) for (user, _), event in zip(people, data, strict=True)], reply)
        nonexistent: dict[str, None] = {}
        for index, ((user, external), event) in enumerate(zip(people, data, strict=True)):
            if external and (user in self._unknown or index in request.item_errors):
                nonexistent[user] = None
                reply.reject(event["type"])
            else:
                self._take(user, event, reply)
        ids = list(nonexistent)
        if request.reorder:
            ids.reverse()
        reply.body = encode({"nonexistent_external_user_ids": ids})
        return reply

    def _take(self, user: str, event: dict[str, Any], reply: Reply) -> None:
        """Batch, Important notes: events that name an unknown currency are ignored."""
        kind = event["type"]
        if all(self._knows(name) for name in swrve_events.currencies(kind, event)):
            reply.items.append(Item(kind, user, event["time"], event))
        else:
            reply.reject(kind)

    def _knows(self, currency: str) -> bool:
        return self._currencies is None or currency in self._currencies

    def _require_known(self, request: Request, user: str, index: int) -> None:
        if user in self._unknown or index in request.item_errors:
            raise Refused(403, "", "No such external ID", violation=False)

    def _require_key(self, params: dict[str, Any], *, external: bool) -> None:
        """URL parameters: "If you're using the Swrve user ID, you may use either the app API key or Identity key"."""
        if external or "api_key" not in params:
            self._require_identity_key(params)
        else:
            self._require_api_key(params)

    def _require_api_key(self, params: dict[str, Any]) -> SwrveApp:
        key = params.get("api_key")
        for app in self._apps:
            if key == app.api_key:
                return _living(app)
        raise Refused(403, "", "Invalid API Key")

    def _require_identity_key(self, params: dict[str, Any]) -> SwrveApp:
        key = params.get("identity_secret_key")
        for app in self._apps:
            if key and key == app.identity_secret_key:
                return _living(app)
        raise Refused(403, "", "Invalid Secret Key")

    def _require_token(self, body: dict[str, Any], user: str, now: float) -> None:
        """Session token: app_id=user_id=unix_seconds=md5hex(user_id + unix_seconds + api_key), good for 48 hours."""
        token = body.get("session_token")
        parts = token.split("=", 1) + token.rsplit("=", 2)[1:] if type(token) is str else []
        app = next((app for app in self._apps if parts and parts[0] == app.app_id), None)
        if app is None or len(parts) != 4 or not _SECONDS.fullmatch(parts[2]):
            raise Refused(403, "session_token", "Invalid API Key")
        seconds = parts[2]
        expected = hashlib.md5((user + seconds + app.api_key).encode(), usedforsecurity=False).hexdigest()
        if token != f"{app.app_id}={user}={seconds}={expected}":
            raise Refused(403, "session_token", "Invalid API Key")
        _living(app)
        if not now - TOKEN_SECONDS <= int(seconds) <= now + _CLOCK_SKEW:
            raise Refused(403, "session_token", "Invalid API Key")


def _living(app: SwrveApp) -> SwrveApp:
    if app.gone:
        raise Refused(410, "", "API key no longer valid")
    return app


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Refused(400, "", "must be an object")
    return value


def _form(request: Request) -> dict[str, Any]:
    """A single call's parameters: of the URL for GET, of the form body for POST."""
    if request.method == "GET":
        found = pairs(request.query)
    else:
        require_content_type(request, FORM)
        found = pairs(request.body)
        if request.query:
            raise Refused(400, "", "parameters belong into the body of a POST")
    params: dict[str, Any] = dict(found)
    if len(params) != len(found):
        raise Refused(400, "", "a parameter is given twice")
    return params


def _who(params: dict[str, Any]) -> tuple[str, bool]:
    """The user an event or request is about, and whether the id is an external one."""
    if ("user" in params) == ("external_user_id" in params):
        raise Refused(400, "user", "either user or external_user_id is required")
    external = "external_user_id" in params
    field = "external_user_id" if external else "user"
    user = params[field]
    wrong = checks.filled(user)
    if wrong:
        raise Refused(400, field, wrong)
    # API calls - API key and user ID: "Emails or other personally identifiable information ... will be rejected"
    if checks.looks_like_email(user):
        raise Refused(400, field, "must not be an e-mail address")
    return user, external


def _batch_body(request: Request, *, version: int) -> dict[str, Any]:
    require_method(request, "POST")
    body = _object(json_body(request))
    data = body.get("data")
    if type(data) is list:
        request.count = len(data)
    if body.get("version") not in (version, str(version)):
        raise Refused(400, "version", f"must be {version}")
    if type(body.get("app_version", "")) is not str:
        raise Refused(400, "app_version", "must be a string")
    if type(data) is not list or not data:
        raise Refused(400, "data", "must be an array of at least one event")
    return body


def _require_limits(request: Request, data: list[Any]) -> None:
    if len(data) > MAX_EVENTS or len(request.body) > MAX_BYTES:
        raise Refused(400, "", "Batch limit exceeded")


def _check(event: Any, besides: frozenset[str], reply: Reply) -> None:
    """Refuse the batch for a bad event."""
    kind = _object(event).get("type")
    shape = swrve_events.BATCH.get(kind) if type(kind) is str else None
    if shape is None or type(kind) is not str:
        raise Refused(400, "type", "must be one of " + ", ".join(swrve_events.BATCH))
    for field, wrong in swrve_events.problems(kind, event, shape):
        raise Refused(400, f"{kind}.{field}", wrong)
    reply.violations += swrve_events.doubts(kind, event, shape, besides)


def _check_order(times: list[tuple[str, int]], reply: Reply) -> None:
    """Batch, Important notes: the order of events is their order in the batch, so it has to be that of time."""
    last: dict[str, int] = {}
    for user, time_ms in times:
        if time_ms < last.get(user, 0):
            reply.violations.append("time: a user's events are not in time order")
            return
        last[user] = time_ms
