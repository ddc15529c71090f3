"""Parcelvoy client API. Source: Parcelvoy documentation, Client API; where it is silent, what a running server does.

Success is 204 without a body. Errors: 401 code 1000 for a bad header, 404 code 6000 for an unknown key, 422 for a
body of the wrong shape, 400 for malformed JSON and for bodies above 1 MiB. Some mistakes are answered 204 and
then dropped, or stored as junk: those are violations all the same.
"""

from __future__ import annotations

import zoneinfo
from typing import Any

from sandbox import checks
from sandbox.checks import Shape
from sandbox.credentials import Credentials
from sandbox.exchange import Item, Refused, Reply, Request
from sandbox.vendors.base import Vendor, encode, json_body, require_method

#: A body above 1 MiB, after decompression, is refused.
MAX_BYTES = 1024 * 1024
#: Longer ids and names are taken with 204 and then dropped.
MAX_CHARACTERS = 255

_ZONES = frozenset(zoneinfo.available_timezones())
_CODES = {401: 1000, 404: 6000}


def _timezone(value: object) -> str | None:
    return None if type(value) is str and value in _ZONES else "must be an IANA time zone name"


_IDS = {"anonymous_id": checks.text, "external_id": checks.text}
# Alias User
_ALIAS = Shape(_IDS, {})
# Identify User
_IDENTIFY = Shape(
    {},
    {
        **_IDS,
        "email": checks.text,
        "phone": checks.text,
        "timezone": _timezone,
        "locale": checks.text,
        "data": checks.mapping,
    },
)
# Register Device
_DEVICE = Shape(
    {
        "device_id": checks.text,
        "os": checks.text,
        "model": checks.text,
        "app_build": checks.text,
        "app_version": checks.text,
    },
    {**_IDS, "token": checks.text},
)
# Post Event
_EVENT = Shape({"name": checks.text}, {**_IDS, "data": checks.mapping})

_ROUTES = {
    "/api/client/alias": ("alias", _ALIAS),
    "/api/client/identify": ("identify", _IDENTIFY),
    "/api/client/devices": ("device", _DEVICE),
    "/api/client/events": ("event", _EVENT),
}


class Parcelvoy(Vendor):
    slug = "parcelvoy"
    gzip = True

    def __init__(self, credentials: Credentials) -> None:
        self._keys = credentials.parcelvoy

    def error_body(self, status: int, field: str, message: str) -> bytes:
        said = f"{field} {message}" if field else message
        answer: dict[str, Any] = {"status": "error", "error": said}
        if status in _CODES:
            answer["code"] = _CODES[status]
        return encode(answer)

    def handle(self, request: Request) -> Reply:
        route = _ROUTES.get(request.path)
        if route is None:
            raise Refused(404, "", "no such endpoint")
        require_method(request, "POST")
        request.model, shape = route
        scheme, _, key = request.header(b"authorization").partition(" ")
        if scheme != "Bearer" or not key.startswith("pk_"):
            raise Refused(401, "", "Authorization error.")
        if key not in self._keys:
            raise Refused(404, "", "The API key does not exist.")
        if len(request.body) > MAX_BYTES:
            raise Refused(400, "", f"body is above {MAX_BYTES} bytes")
        body = json_body(request)
        if request.model == "event":
            if type(body) is not list or not body:
                raise Refused(422, "", "must be an array of at least one event")
            items: list[Any] = body
        else:
            items = [body]
        request.count = len(items)
        request.users = {user for item in items if (user := _user(item))}
        for item in items:
            for field, wrong in shape.problems(item):
                raise Refused(422, field, wrong)
        if request.model == "identify":
            _check_identify(body)
        return _take(request, shape, items)


def _user(item: object) -> str:
    """Who an item is about: the external id, or else the anonymous one."""
    if type(item) is not dict:
        return ""
    found = item.get("external_id") or item.get("anonymous_id")
    return found if type(found) is str else ""


def _check_identify(item: dict[str, Any]) -> None:
    for key in _IDENTIFY.unknown(item):
        raise Refused(422, key, "must not be there")
    if "external_id" not in item and "anonymous_id" not in item:
        raise Refused(422, "", "must have an external_id or an anonymous_id")


def _take(request: Request, shape: Shape, items: list[Any]) -> Reply:
    """204, whatever becomes of each item behind the answer."""
    reply = Reply(204)
    for item in items:
        for key in shape.unknown(item):
            reply.violations.append(f"{key}: unknown key, dropped silently")
        if not _user(item):
            reply.violations.append("neither external_id nor anonymous_id: makes a junk user")
            reply.reject(request.model)
            continue
        long = [
            key
            for key in ("external_id", "anonymous_id", "name", "device_id")
            if len(item.get(key, "")) > MAX_CHARACTERS
        ]
        if long:
            reply.violations.append(f"{long[0]}: above {MAX_CHARACTERS} characters, dropped silently")
            reply.reject(request.model)
            continue
        reply.items.append(Item(request.model, _user(item), None, item))
    return reply
