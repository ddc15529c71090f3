"""What the five vendors of the sandbox have in common."""

from __future__ import annotations

import urllib.parse
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec

from sandbox.exchange import Item, Refused, Reply, Request

_STATUSES = frozenset(int(status) for status in HTTPStatus)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class Vendor:
    """One vendor. A subclass says in `handle` how a request is answered and in `error_body` how an error looks."""

    #: The path prefix, and the vendor's name in the view and in faults.
    slug: ClassVar[str]
    #: Whether gzip request bodies are taken.
    gzip: ClassVar[bool] = False
    #: Whether single items of a request can fail, so that `item_errors` faults make sense.
    item_answers: ClassVar[bool] = False
    #: The names of the settings that `configure` takes.
    setting_names: ClassVar[tuple[str, ...]] = ()

    def handle(self, request: Request) -> Reply:
        """Answer one request; raises Refused. Changes no state: what it accepts is handed to `accepted`."""
        raise NotImplementedError

    def error_body(self, status: int, field: str, message: str) -> bytes:
        """The body of an error answer as the vendor's documents show it."""
        raise NotImplementedError

    def usual_text(self, status: int, path: str) -> str:
        """What the vendor says with a status that a fault injects."""
        return HTTPStatus(status).phrase if status in _STATUSES else "Error"

    def over_rate(self, request: Request, clock: float) -> Reply | None:
        """The answer to a request that comes too early, `clock` being monotonic seconds; None when it may pass."""
        return None

    def accepted(self, items: list[Item]) -> None:
        """Items that count as received."""

    def configure(self, settings: dict[str, Any]) -> None:
        """Change settings, all of which are named in `setting_names`; raises ValueError."""

    def settings(self) -> dict[str, Any]:
        """The settings as they are."""
        return {}

    def answer(self, request: Request) -> Reply:
        """The vendor's answer to a request."""
        try:
            return self.handle(request)
        except Refused as refused:
            return Reply(
                refused.status,
                self.error_body(refused.status, refused.field, refused.message),
                rejected={request.model: request.count} if request.count else {},
                violations=[str(refused)] if refused.violation else [],
            )


def require_method(request: Request, *methods: str, status: int = 405) -> None:
    """Refuse any other HTTP method."""
    if request.method not in methods:
        raise Refused(status, "", f"method {request.method[:20]} is not allowed, use {' or '.join(methods)}")


def content_type(request: Request) -> str:
    """The content type without parameters, in lower case."""
    return request.header(b"content-type").partition(";")[0].strip().lower()


def require_content_type(request: Request, expected: str) -> None:
    """Refuse any other content type."""
    if content_type(request) != expected:
        raise Refused(400, "", f"content-type must be {expected}")


def json_body(request: Request, *, status: int = 400) -> Any:
    """The decoded JSON body; refuses another content type and malformed JSON."""
    require_content_type(request, JSON)
    try:
        return _decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(status, "", "body is not valid JSON") from None


def pairs(encoded: bytes) -> list[tuple[str, str]]:
    """The pairs of a form-encoded body or a query string, in order; refuses malformed ones."""
    if not encoded:
        return []
    try:
        return urllib.parse.parse_qsl(
            encoded.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError:
        raise Refused(400, "", "malformed form encoding") from None


def strings(value: object) -> frozenset[str]:
    """A setting that is a list of strings; raises ValueError."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return frozenset(value)
