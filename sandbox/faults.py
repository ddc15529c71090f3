"""Faults on request: what a vendor does wrong, and to which of the requests that come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import msgspec

from sandbox.vendors.base import JSON, Vendor

_KEYS = (
    "vendor", "path", "containing", "status", "body", "content_type", "retry_after", "delay_s", "reset", "truncate", "drop",
    "item_errors", "next", "every", "after",
)  # fmt: skip


@dataclass(slots=True)
class Fault:
    """One fault. `left` is how many more requests it strikes, None being all of them."""

    number: int
    vendor: str
    path: str  # prefix of the path behind the vendor's own prefix
    containing: bytes  # part of the body, decompressed
    status: int | None
    body: bytes | None
    content_type: str
    retry_after: str | None
    delay_s: float
    reset: str | None  # "before" or "after"
    truncate: int | None  # bytes of the body that still go out
    drop: bool
    item_errors: frozenset[int]
    reorder: bool
    left: int | None
    every: int
    after: int
    asked: dict[str, Any]
    seen: int = 0
    struck: int = 0

    @property
    def refuses(self) -> bool:
        """Whether the vendor takes nothing of a request struck by this fault."""
        return self.drop or self.reset == "before" or (self.status is not None and self.status >= 300)

    def retry_after_value(self) -> str | None:
        """The Retry-After header; `date+N` becomes the HTTP date N seconds from now."""
        value = self.retry_after
        if value is not None and value.startswith("date+"):
            return formatdate(time.time() + float(value[5:]), usegmt=True)
        return value

    def view(self) -> dict[str, Any]:
        return {
            **self.asked,
            "number": self.number,
            "active": self.left != 0,
            "left": self.left,
            "seen": self.seen,
            "struck": self.struck,
        }


class Faults:
    """The faults that are set, oldest first; a request is struck by the first that fits."""

    def __init__(self, vendors: dict[str, Vendor]) -> None:
        self._vendors = vendors
        self._faults: list[Fault] = []
        self._number = 0

    def add(self, asked: object) -> Fault:
        """Set a fault as the control API takes it; raises ValueError saying what is wrong."""
        fault = _parse(asked, self._vendors, self._number + 1)
        self._number += 1
        self._faults.append(fault)
        return fault

    def take(self, vendor: str, path: str, content: Callable[[], bytes]) -> Fault | None:
        """The fault that strikes this request, if any. content: gives its body, decompressed."""
        for fault in self._faults:
            if fault.vendor != vendor or not path.startswith(fault.path) or fault.left == 0:
                continue
            if fault.containing and fault.containing not in content():
                continue
            fault.seen += 1
            due = fault.seen - fault.after
            if due <= 0 or due % fault.every:
                continue
            if fault.left is not None:
                fault.left -= 1
            fault.struck += 1
            return fault
        return None

    def clear(self) -> None:
        """Take back all faults."""
        self._faults.clear()

    def view(self) -> list[dict[str, Any]]:
        return [fault.view() for fault in self._faults]


def _parse(asked: object, vendors: dict[str, Vendor], number: int) -> Fault:
    if type(asked) is not dict:
        raise ValueError("a fault is a JSON object")
    for key in asked:
        if key not in _KEYS:
            raise ValueError(f"{key}: unknown key; a fault has {', '.join(_KEYS)}")
    vendor = asked.get("vendor")
    if vendor not in vendors:
        raise ValueError(f"vendor: must be one of {', '.join(vendors)}")
    item_errors = asked.get("item_errors")
    if item_errors is not None and not vendors[vendor].item_answers:
        raise ValueError(f"item_errors: {vendor} does not answer item by item")
    status = _integer(asked, "status", 100, 599)
    retry_after = _retry_after(asked.get("retry_after"))
    if status is None and retry_after is not None:
        status = 429
    every = _integer(asked, "every", 1, 10**9)
    # `every` without `next` goes on; otherwise one request is struck. null means no end.
    left = _integer(asked, "next", 1, 10**9) if "next" in asked else (1 if every is None else None)
    body, content_type = _body(asked.get("body"), asked.get("content_type"))
    return Fault(
        number=number,
        vendor=vendor,
        path=_text(asked, "path") or "",
        containing=(_text(asked, "containing") or "").encode(),
        status=status,
        body=body,
        content_type=content_type,
        retry_after=retry_after,
        delay_s=_seconds(asked.get("delay_s", 0)),
        reset=_choice(asked, "reset", ("before", "after")),
        truncate=_integer(asked, "truncate", 0, 10**9),
        drop=_boolean(asked, "drop"),
        item_errors=_indexes(item_errors),
        reorder=item_errors == "reorder",
        left=left,
        every=every or 1,
        after=_integer(asked, "after", 0, 10**9) or 0,
        asked=asked,
    )


def _integer(asked: dict[str, Any], key: str, low: int, high: int) -> int | None:
    value = asked.get(key)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key}: must be an integer from {low} to {high}")
    return value


def _text(asked: dict[str, Any], key: str) -> str | None:
    value = asked.get(key)
    if value is not None and type(value) is not str:
        raise ValueError(f"{key}: must be a string")
    return value


def _boolean(asked: dict[str, Any], key: str) -> bool:
    value = asked.get(key, False)
    if type(value) is not bool:
        raise ValueError(f"{key}: must be true or false")
    return value


def _choice(asked: dict[str, Any], key: str, choices: tuple[str, ...]) -> str | None:
    value = _text(asked, key)
    if value is not None and value not in choices:
        raise ValueError(f"{key}: must be {' or '.join(choices)}")
    return value


def _seconds(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= float(value) <= 3600:  # type: ignore[arg-type]  # narrowed just now
        raise ValueError("delay_s: must be a number of seconds up to 3600")
    return float(value)  # type: ignore[arg-type]  # as above


def _retry_after(value: object) -> str | None:
    if value is None:
        return None
    if type(value) is int and value >= 0:
        return str(value)
    if type(value) is str and value.startswith("date+"):
        try:
            float(value[5:])
        except ValueError:
            raise ValueError("retry_after: date+ is followed by a number of seconds") from None
        return value
    if type(value) is str and value.isascii() and value.isprintable():
        return value
    raise ValueError("retry_after: must be seconds, an HTTP date or date+SECONDS")


def _body(value: object, content_type: object) -> tuple[bytes | None, str]:
    """Text goes out as it is, anything else as JSON."""
    if content_type is not None and not (
        type(content_type) is str and content_type.isascii() and content_type.isprintable()
    ):
        raise ValueError("content_type: must be a string")
    given = str(content_type) if content_type is not None else None
    if value is None:
        return None, given or JSON
    if type(value) is str:
        return value.encode(), given or "text/plain; charset=utf-8"
    return msgspec.json.encode(value), given or JSON


def _indexes(value: object) -> frozenset[int]:
    if value is None or value == "reorder":
        return frozenset()
    if not isinstance(value, list) or not all(type(index) is int and index >= 0 for index in value):
        raise ValueError('item_errors: must be a list of indexes or "reorder"')
    return frozenset(value)
