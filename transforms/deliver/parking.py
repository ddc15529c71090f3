"""Parking: a vendor that does not answer is asked with one request at a time until it does, and nobody types anything."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from transforms.deliver.gate import Halt

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between probes: they double from the first to the longest, with jitter."""


def words(destination: str, halt: Halt) -> str:
    """Why nothing is sent to a destination, and what to mend."""
    return f"{halt.reason}; check destinations.{destination}.{halt.key} in the relay file" if halt.key else halt.reason


class Parking:
    """Whether one destination is parked, in this process. Times are of time.monotonic(), in seconds.

    changed: called with why when the destination is parked, and with None when it takes items again.
    """

    def __init__(self, changed: Callable[[Halt | None], None], first_pause: float = FIRST_PAUSE) -> None:
        self.halt: Halt | None = None
        """Why it is parked; None when it is not."""
        self._changed = changed
        self._first_pause = self._pause = first_pause
        self._next = 0.0
        self._earlier = False
        """Whether it was an earlier process that found it down."""

    def go_on(self, reason: str) -> None:
        """It was parked when an earlier process ended: the first request is a probe, which leaves at once."""
        self.halt, self._earlier = Halt(reason), True

    def still(self, reason: str) -> Halt:
        """Why it is parked when a probe found it down. That it is still down is no news; that its key is right now, or
        what an earlier process did not know, is."""
        return Halt(reason) if self.halt is None or self.halt.key or self._earlier else self.halt

    def park(self, halt: Halt, now: float, retry_after: float = 0.0) -> None:
        """The destination takes nothing. Asked again later, or again after a probe, the next pause is longer."""
        changed, fresh = self.halt != halt, self.halt is None
        self.halt, self._earlier = halt, False
        if fresh or now >= self._next:
            self._pause = self._first_pause if fresh else min(2 * self._pause, LONGEST_PAUSE)
            self._next = now + self._pause * random.uniform(0.75, 1.0)
        # Else it was no probe, but one of those that were on their way when it was parked.
        self._next = max(self._next, now + retry_after)
        if changed:
            self._changed(halt)

    def release(self) -> None:
        """The destination answers again."""
        if self.halt is not None:
            self.halt = None
            self._changed(None)

    def wait(self, now: float, flying: int) -> float:
        """Seconds to wait before a request may leave while `flying` are on their way; 0 when it may."""
        if self.halt is None:
            return 0.0
        return 1.0 if flying else max(0.0, self._next - now)


_parkings: dict[tuple[str, str], Parking] = {}
_lock = threading.Lock()


def put(run: str, destination: str, parking: Parking) -> None:
    """Makes a destination's items wait for it in this run, instead of being given up."""
    with _lock:
        _parkings[run, destination] = parking


def of(run: str, destination: str) -> Parking | None:
    """The parking of a destination; None in a run that gives up instead."""
    return _parkings.get((run, destination))


def forget(run: str) -> None:
    """Drops the parkings of a finished run."""
    with _lock:
        for key in [key for key in _parkings if key[0] == run]:
            del _parkings[key]
