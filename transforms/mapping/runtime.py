"""What generated mapping code calls besides conversions: rejections, counting, sharding, patterns, arithmetic.

A value that cannot become what it must raises Bad with the field and a reason. Reasons hold no data, so that a report can
count by them.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

__all__ = [
    "ENCODE_ERRORS",
    "Bad",
    "Matches",
    "Rejected",
    "count_untaken",
    "divide",
    "encode",
    "encode_reason",
    "multiply",
    "replacer",
    "sharder",
]

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
DOUBLE_MAX: Final = 1.7976931348623157e308
FILTER_REASONS: Final = 50
"""Distinct reasons that a tally counts by; further event types that no model takes are counted together."""
_CACHED: Final = 32_768
"""Texts that a pattern remembers; longer ones than _CACHED_LENGTH it does not."""
_CACHED_LENGTH: Final = 100

ENCODE_ERRORS: Final = (msgspec.EncodeError, UnicodeEncodeError, RecursionError)

encode: Final = msgspec.json.Encoder().encode


class Bad(Exception):
    """A value that cannot be sent: the item is rejected."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason


class Rejected(NamedTuple):
    """An item (or, when `model` is empty, a record) that the mapping cannot make."""

    ref: int
    model: str
    field: str
    reason: str
    user: str
    time_ms: int
    payload: bytes | None


def encode_reason(error: Exception) -> str:
    """Why a payload could not be encoded."""
    if isinstance(error, UnicodeEncodeError):
        return "text with half a surrogate pair, which UTF-8 cannot carry"
    return "nested too deeply" if isinstance(error, RecursionError) else f"cannot be encoded: {error}"


def count_untaken(filtered: dict[str, int], event_type: str) -> None:
    """Counts a record whose type no model takes, by type while there are few types."""
    reason = f"no model takes {event_type[:100].encode('utf-8', 'replace').decode()}"
    if reason not in filtered and len(filtered) >= FILTER_REASONS:
        reason = "no model takes other types"
    filtered[reason] = filtered.get(reason, 0) + 1


@functools.cache
def sharder(shards: int, limit: int = 100_000) -> tuple[dict[str, int], Callable[[str], int]]:
    """(cache, function): the shard of a user, crc32 % shards; the function fills the cache and bounds it.

    All mappings of a process share them: what one has just looked up is still in the processor's cache for the next.
    """
    cache: dict[str, int] = {}

    def shard_of(user: str) -> int:
        try:
            shard = zlib.crc32(user.encode()) % shards
        except UnicodeEncodeError as error:
            raise Bad("user_id", encode_reason(error)) from None
        if len(cache) >= limit:
            cache.clear()
        cache[user] = shard
        return shard

    return cache, shard_of


class Matches(dict[str, bool]):
    """Text -> whether it matches a pattern as a whole. Remembers, as a dict is faster than a pattern and texts repeat."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._match = re.compile(pattern).fullmatch

    def __missing__(self, value: str) -> bool:
        found = self._match(value) is not None
        if len(self) >= _CACHED:
            self.clear()
        if len(value) <= _CACHED_LENGTH:
            self[value] = found
        return found


def replacer(pattern: str, by: str) -> Callable[[str], str]:
    """A function that puts `by` for each match of `pattern`. Cached, as names repeat."""
    sub = re.compile(pattern).sub
    cache: dict[str, str] = {}

    def replace(value: str) -> str:
        found = cache.get(value)
        if found is None:
            if len(cache) >= _CACHED:
                cache.clear()
            found = cache[value] = sub(lambda _: by, value)
        return found

    return replace


def divide(one: float | int, other: float | int, field: str) -> float | int:
    """A quotient; whole when both are and nothing remains."""
    if other == 0:
        raise Bad(field, "a division by zero")
    if one.__class__ is int and other.__class__ is int and one % other == 0:
        return one // other
    try:
        return finite(one / other, field)
    except OverflowError:
        raise Bad(field, "not a finite number") from None


def multiply(one: float | int, other: float | int, field: str) -> float | int:
    """A product; whole when both are."""
    try:
        return finite(one * other, field)
    except OverflowError:
        raise Bad(field, "not a finite number") from None


def finite(value: float | int, field: str) -> float | int:
    """The number itself, which is finite."""
    if -DOUBLE_MAX <= value <= DOUBLE_MAX:
        return value
    raise Bad(field, "not a finite number")
