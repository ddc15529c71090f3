"""What all senders of one destination in a process share: its pace, its pauses and whether it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

from transforms.deliver.pace import SharedPace

MARGIN = 0.93
"""Share of a rate that is used: requests leave evenly spaced, and the network moves them together a little."""

CATCH_UP = 0.5
"""Share of what the margin leaves that may leave closer together, after a time in which nothing could be sent."""


MEMORY = 50
"""Requests over which it is told how much of what it is asked a vendor takes."""

BROWNOUT = 8
"""Budgets that a batch may use up in a brownout: while its vendor takes less than half of what it is asked."""


class Halt(NamedTuple):
    """Why nothing more is sent to a destination in this run."""

    reason: str
    key: str = ""
    """The relay file's key to mend, when it is the configuration that is wrong."""


class Gate:
    """The pace of one destination in this process, and once `share` was called its part in that of all processes here.

    Times are of time.monotonic(), in seconds.
    """

    def __init__(self, rate: float | None, shards: int) -> None:
        self.halt: Halt | None = None
        self.last_success = 0.0
        """When the newest of the requests that were taken left."""
        self.delivered = 0
        """Items delivered so far, for progress displays only."""
        self.failed = 0
        """Items rejected or undelivered so far, for progress displays only."""
        self._taking = 1.0
        """Share of the requests that are taken, the newest counting most."""
        self._well_since = 0.0
        """When that was last no longer under a half."""
        self._interval = 1 / (rate * MARGIN) if rate else 0.0
        # How many requests may catch up when the process was late, so that a busy machine still uses the rate. With
        # the one that starts a second and those spaced over it, they are always fewer than the rate: the rest is for
        # those that come closer together than they left.
        self._late = max(0.0, rate * (1 - MARGIN) - 1) * CATCH_UP if rate else 0.0
        self._shards = shards
        self._active = 0
        self._next = 0.0
        self._not_before = 0.0
        self._shared: SharedPace | None = None
        self._lock = threading.Lock()

    def share(self, vendor: str, url: str, credentials: Mapping[str, str]) -> None:
        """From now on the pace is kept together with every process of this user on this machine that sends to the
        same URL with the same credentials, and with every other gate of this process that does. Without a rate there
        is nothing to keep, and no file is touched; done once, it is done."""
        with self._lock:
            if self._interval and self._shared is None:
                self._shared = SharedPace(vendor, url, credentials)

    def close(self) -> None:
        """Shares no more."""
        with self._lock:
            if self._shared is not None:
                self._shared.close()
                self._shared = None

    def enter(self, shards: int) -> None:
        """Shards come to this process: its share of the fleet's rate grows by theirs.

        A process that sends alone enters all shards for the whole run, as it may use the rate for a few of them.
        """
        with self._lock:
            self._active += shards

    def leave(self, shards: int) -> None:
        """Shards leave this process."""
        with self._lock:
            self._active -= shards

    def claim(self, now: float) -> float:
        """0 when a request may leave now (and it is counted), else the seconds to wait before asking again."""
        if not self._interval and now >= self._not_before:
            return 0.0
        with self._lock:
            if now < self._not_before:
                return self._not_before - now
            if now < self._next:
                return self._next - now
            # What may catch up is a share too, so it takes the fleet's interval.
            late = self._late * self._interval
            if self._shared is not None:
                # Together the processes of this machine may use the whole rate. Which part of it each of them may use
                # is not decided there, so a share is never taken of a share.
                wait = self._shared.claim(self._interval, late)
                if wait:
                    return wait
            # A process that holds half of the shards sends at half of the rate: the fleet together keeps it.
            interval = self._interval * self._shards / max(1, min(self._active, self._shards))
            self._next = max(self._next, now - late) + interval
            return 0.0

    def pause(self, until: float) -> None:
        """The vendor asked for a pause: nobody sends before then, also no process that shares this pace."""
        with self._lock:
            self._not_before = max(self._not_before, until)
            if self._shared is not None:
                self._shared.pause(until)

    def succeeded(self, started: float, items: int) -> None:
        """A request that left then was taken."""
        self.last_success = max(self.last_success, started)
        self.delivered += items

    def answered(self, takes: bool, now: float) -> None:
        """A request was answered, or was not: whether the vendor was up for it."""
        ailing = self.ailing
        self._taking += (takes - self._taking) / MEMORY
        if ailing and not self.ailing:
            self._well_since = now

    @property
    def ailing(self) -> bool:
        """Whether the vendor takes less than half of what it is asked: that it takes a batch never proves nothing then."""
        return self._taking < 0.5

    def left(self, since: float, retry: float, now: float) -> float:
        """Seconds that a batch which is refused since then may be tried for yet, while others are taken: for `retry`
        seconds of good times, and for BROWNOUT times as long in all."""
        most = since + BROWNOUT * retry
        return (most if self.ailing else min(max(since, self._well_since) + retry, most)) - now

    def stop(self, halt: Halt) -> None:
        """Nothing more is sent; the first reason stands."""
        with self._lock:
            self.halt = self.halt or halt


_gates: dict[tuple[str, str], Gate] = {}
_gates_lock = threading.Lock()


def gate(run: str, destination: str, rate: float | None, shards: int) -> Gate:
    """The gate of a destination in this run, made when first asked for."""
    with _gates_lock:
        key = (run, destination)
        found = _gates.get(key)
        if found is None:
            found = _gates[key] = Gate(rate, shards)
        return found


def forget(run: str) -> None:
    """Drops the gates of a finished run."""
    with _gates_lock:
        for key in [key for key in _gates if key[0] == run]:
            _gates.pop(key).close()
