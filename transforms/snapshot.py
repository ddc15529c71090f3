"""What a running relay shows of itself at one moment: to its live view, its logs and its metrics."""

from __future__ import annotations

from typing import NamedTuple


class DestinationState(NamedTuple):
    """A destination's state, and what became of its items so far."""

    name: str
    state: str
    """`sending`; `parked`: its vendor takes nothing now, and its items wait; or `stopped`: nothing more is sent."""
    reason: str
    """Why it is parked or stopped; empty when it is sending."""
    delivered: int
    """Items, as all of these."""
    rejected: int
    undelivered: int
    parked_items: int
    """Items that wait on disk until the vendor takes them."""
    parked_bytes: int
    requests: int
    retries: int


class Snapshot(NamedTuple):
    """A relay at one moment."""

    seconds: float
    """Since it began."""
    records: int
    """Read so far."""
    undecodable: int
    """Records, of those, that could not be decoded."""
    slices: int
    unacknowledged: int
    """Messages that were pulled and are not acknowledged."""
    oldest_unacknowledged_s: float | None
    """Age of the oldest of these in seconds; None when there is none."""
    holding: str
    """Why nothing is pulled; empty when it is."""
    errors: int
    destinations: tuple[DestinationState, ...]
