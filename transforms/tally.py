"""Figures of a destination, merged from bundles, segments and slices without losing exactness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

Key = TypeVar("Key")

_STEPS = 12
"""Latency buckets a doubling: each is 6 % wide."""


class Tally(msgspec.Struct):
    """What became of the records and items of one destination."""

    records: int = 0
    """Records that reached the mapping, undecodable ones included."""
    undecodable: int = 0
    """Records that were not what the source's schema says."""
    touched: int = 0
    """Records that gave at least one item or were rejected by the mapping."""
    mapped: int = 0
    """Items the mapping made."""
    delivered: int = 0
    """Items the vendor took."""
    rejected: int = 0
    """Items the vendor or its limits refused."""
    undelivered: int = 0
    """Items that could not be sent."""
    requests: int = 0
    retries: int = 0
    bytes: int = 0
    """Bytes of request bodies, each attempt counted."""
    late: int = 0
    """Items of a stream that came when their window was over."""
    filtered: dict[str, int] = msgspec.field(default_factory=dict)
    """Reason -> records that no model takes."""
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    """Reason -> items (for undecodable records: records) rejected or undelivered."""
    latency: dict[int, int] = msgspec.field(default_factory=dict)
    """Bucket -> answered requests; see `percentile`."""

    def add_latency(self, seconds: float) -> None:
        """Counts an answered request."""
        bucket = round(_STEPS * math.log2(max(seconds * 1000, 0.01)))
        self.latency[bucket] = self.latency.get(bucket, 0) + 1

    def percentile(self, share: float) -> float | None:
        """Latency in ms below which `share` (0 to 1) of the answered requests lie; None without any."""
        left = share * sum(self.latency.values())
        for bucket in sorted(self.latency):
            left -= self.latency[bucket]
            if left <= 0:
                return round(2 ** (bucket / _STEPS), 3)
        return None

    def traffic(self) -> Tally:
        """What was sent, without what became of it."""
        return Tally(requests=self.requests, retries=self.retries, bytes=self.bytes, latency=self.latency)

    def add(self, other: Tally) -> None:
        """Adds another tally of the same destination to this one."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        count(self.filtered, other.filtered)
        count(self.reasons, other.reasons)
        count(self.latency, other.latency)


_COUNTS = tuple(field for field, kind in Tally.__annotations__.items() if kind == "int")


def count(into: dict[Key, int], more: Mapping[Key, int]) -> None:
    """Adds the counts of `more` to `into`."""
    for key, number in more.items():
        into[key] = into.get(key, 0) + number


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result
