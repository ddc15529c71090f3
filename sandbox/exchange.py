"""One request to a vendor and the vendor's answer, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Item(NamedTuple):
    """One item a vendor took."""

    model: str
    user: str
    time_ms: int | None
    body: Any


@dataclass(slots=True)
class Request:
    """A whole request. `path` is the part behind the vendor's prefix; header names are lower case.

    `number` counts the vendor's requests from 1. `model`, `users` and `count` are filled in as the request is
    understood, so that they are known even when it is refused half way. `item_errors` and `reorder` are injected
    faults for vendors that answer item by item.
    """

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    now: float
    number: int = 0
    item_errors: frozenset[int] = frozenset()
    reorder: bool = False
    model: str = ""
    users: set[str] = field(default_factory=set)
    count: int = 0

    def header(self, name: bytes) -> str:
        """A header's value, or the empty string."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(slots=True)
class Reply:
    """A vendor's answer: what goes back, what was accepted, how many items of each model were refused, and what no
    correct client would have sent."""

    status: int
    body: bytes = b""
    items: list[Item] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def reject(self, model: str) -> None:
        """Count one item of a model as refused."""
        self.rejected[model] = self.rejected.get(model, 0) + 1


class Refused(Exception):
    """The whole request is refused. `violation` is false where a correct client can meet this answer too."""

    def __init__(self, status: int, field: str, message: str, *, violation: bool = True) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.status = status
        self.field = field
        self.message = message
        self.violation = violation
