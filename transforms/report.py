"""The run report: figures that account for every record, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.tally import Tally

NOT_BALANCED = 4
UNDELIVERED = 3
DONE = 0
"""Exit codes of a run; 2 is for usage and the relay file."""


REASONS = 100
"""Reasons a destination that a report names; the rest is summed up, as vendors may put a user's text into theirs."""


def most(reasons: Mapping[str, int], limit: int = REASONS) -> dict[str, int]:
    """The most frequent reasons first, the rare ones beyond `limit` together."""
    ordered = sorted(reasons.items(), key=lambda pair: -pair[1])
    rest = sum(number for _, number in ordered[limit:])
    named = dict(ordered[:limit])
    if rest:
        named["other reasons"] = named.get("other reasons", 0) + rest
    return named


class Totals:
    """Figures of one destination: the tally of its items and its records by outcome."""

    def __init__(self, tally: Tally, rejected: int, undelivered: int) -> None:
        self.tally = tally
        self.rejected = rejected
        """Records whose worst outcome is rejected."""
        self.undelivered = undelivered

    @property
    def filtered(self) -> int:
        """Records that no model takes."""
        return sum(self.tally.filtered.values())

    @property
    def delivered(self) -> int:
        """Records all of whose items were taken."""
        return self.tally.touched - self.rejected - self.undelivered

    def balanced(self, read: int) -> bool:
        """Whether every record, and every item, has exactly one outcome."""
        tally = self.tally
        return (
            read == tally.records == self.filtered + tally.touched
            and tally.mapped == tally.delivered + tally.rejected + tally.undelivered
            and self.delivered >= 0
        )

    def as_json(self) -> dict[str, Any]:
        """The destination's part of the report. Records, unless it says items."""
        tally = self.tally
        return {
            "mapped": tally.touched,
            "filtered": self.filtered,
            "delivered": self.delivered,
            "rejected": self.rejected,
            "undelivered": self.undelivered,
            "items": {
                "mapped": tally.mapped,
                "delivered": tally.delivered,
                "rejected": tally.rejected,
                "undelivered": tally.undelivered,
            },
            "requests": tally.requests,
            "retries": tally.retries,
            "bytes": tally.bytes,
            "latency_ms": {"p50": tally.percentile(0.5), "p99": tally.percentile(0.99)},
            "reasons": most(tally.filtered | tally.reasons),
        }


class Report:
    """What a run did. `stopped`: destination -> why nothing more was sent to it. `reads`: destination -> records that
    were read for it, where it is not the same for all."""

    def __init__(
        self,
        totals: Mapping[str, Totals],
        read: int,
        seconds: float,
        stopped: Mapping[str, str] | None = None,
        reads: Mapping[str, int] | None = None,
    ) -> None:
        self.totals = totals
        self.read = read
        self.reads = dict(reads or {})
        self.seconds = seconds
        self.stopped = dict(stopped or {})

    @property
    def balanced(self) -> bool:
        """Whether the sums add up for every destination."""
        return all(total.balanced(self.reads.get(name, self.read)) for name, total in self.totals.items())

    @property
    def undecodable(self) -> int:
        """Records that were not what the source's schema says."""
        return max((total.tally.undecodable for total in self.totals.values()), default=0)

    def exit_code(self, max_rejected: int | None = None) -> int:
        """0, or what went wrong; `max_rejected`: rejected records of all destinations that are still fine."""
        return exit_code(self.as_json(), max_rejected)

    def as_json(self) -> dict[str, Any]:
        """The report as `--report` writes it."""
        destinations = {}
        for name, total in self.totals.items():
            destinations[name] = total.as_json()
            if self.reads.get(name, self.read) != self.read:
                destinations[name] = {"read": self.reads[name], **destinations[name]}
            if name in self.stopped:
                destinations[name]["stopped"] = self.stopped[name]
        return {
            "records": {"read": self.read, "undecodable": self.undecodable},
            "destinations": destinations,
            "seconds": round(self.seconds, 3),
            "balanced": self.balanced,
        }


def exit_code(report: Mapping[str, Any], max_rejected: int | None = None) -> int:
    """The exit code of a run by its report, as JSON has it."""
    destinations = report["destinations"].values()
    if not report["balanced"]:
        return NOT_BALANCED
    if any(one["undelivered"] for one in destinations):
        return UNDELIVERED
    if max_rejected is not None and sum(one["rejected"] for one in destinations) > max_rejected:
        return UNDELIVERED
    return DONE
