"""What arrived: exact counts, the latest items, violations, request rate and concurrency."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox.exchange import Item, Reply, Request
from sandbox.vendors.base import encode

#: How many different violations are told apart; further ones are counted together.
MAX_VIOLATIONS = 1000
#: How many overlapping users of a vendor are named.
MAX_NAMED_USERS = 20
_OTHER = "(other violations)"


class Stored(NamedTuple):
    """An accepted item. `order` counts all accepted items, `request` all requests of the vendor, both from 1."""

    order: int
    at: float
    vendor: str
    model: str
    user: str
    time_ms: int | None
    request: int
    body: bytes


class Counts:
    """Requests, accepted and rejected items, of one model."""

    __slots__ = ("accepted", "rejected", "requests")

    def __init__(self) -> None:
        self.requests = self.accepted = self.rejected = 0

    def view(self) -> dict[str, int]:
        return {"requests": self.requests, "accepted": self.accepted, "rejected": self.rejected}


class Traffic:
    """One vendor's requests: counts, the highest rate, and which users were in flight at the same time."""

    def __init__(self) -> None:
        self.requests = self.faulted = self.incomplete = self.bytes = self.violations = 0
        self.answers: dict[str, int] = {}
        self.models: dict[str, Counts] = {}
        self.max_in_flight = self.max_rate = self.overlaps = 0
        self.overlapping: dict[str, None] = {}
        self._recent: deque[float] = deque()
        self._tick = 0
        # By the tick a request began with, so in order of beginning: its users, and whether its client is gone.
        self._open: dict[int, tuple[set[str], Callable[[], bool]]] = {}
        self._held: dict[str, int] = {}  # users of open requests
        self._released: dict[str, int] = {}  # the tick at which a user's last request ended

    def enter(self, clock: float, gone: Callable[[], bool]) -> int:
        """A request begins, `clock` being monotonic seconds and `gone` whether its client has hung up; returns the
        ticket that the other methods take."""
        self._sweep()
        recent = self._recent
        recent.append(clock)
        while recent[0] <= clock - 1.0:
            recent.popleft()
        self.max_rate = max(self.max_rate, len(recent))
        self.requests += 1
        self._tick += 1
        self._open[self._tick] = (set(), gone)
        self.max_in_flight = max(self.max_in_flight, len(self._open))
        return self._tick

    def hold(self, ticket: int, users: set[str]) -> None:
        """The request turns out to hold these users. A user of another request that has not ended, or that ended
        after this one began, was in flight twice."""
        self._sweep()
        if ticket not in self._open:
            return
        found = False
        for user in users:
            if self._held.get(user) or self._released.get(user, 0) > ticket:
                found = True
                if len(self.overlapping) < MAX_NAMED_USERS:
                    self.overlapping[user] = None
            self._held[user] = self._held.get(user, 0) + 1
        self.overlaps += found
        self._open[ticket] = (users, self._open[ticket][1])

    def leave(self, ticket: int) -> None:
        """The request ended; does nothing when it has ended before."""
        if ticket not in self._open:
            return
        self._tick += 1
        for user in self._close(ticket):
            self._released[user] = self._tick
        if not self._open:
            self._released.clear()
        elif len(self._released) > 10_000:
            oldest = next(iter(self._open))
            self._released = {user: tick for user, tick in self._released.items() if tick > oldest}

    def _sweep(self) -> None:
        """Requests whose client hung up have ended, some time before we came to know."""
        for ticket in [ticket for ticket, (_, gone) in self._open.items() if gone()]:
            self._close(ticket)

    def _close(self, ticket: int) -> set[str]:
        users, _ = self._open.pop(ticket)
        for user in users:
            left = self._held[user] - 1
            if left:
                self._held[user] = left
            else:
                del self._held[user]
        return users

    def model(self, name: str) -> Counts:
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = Counts()
        return found

    def answered(self, how: str) -> None:
        """Count an answer: a status, or `reset`, `dropped`, `truncated`."""
        self.answers[how] = self.answers.get(how, 0) + 1

    def view(self) -> dict[str, Any]:
        models = {name: counts.view() for name, counts in sorted(self.models.items())}
        return {
            "requests": self.requests,
            "accepted": sum(counts.accepted for counts in self.models.values()),
            "rejected": sum(counts.rejected for counts in self.models.values()),
            "violations": self.violations,
            "faulted": self.faulted,
            "incomplete": self.incomplete,
            "bytes": self.bytes,
            "answers": dict(sorted(self.answers.items())),
            "models": models,
            "in_flight": len(self._open),
            "max_in_flight": self.max_in_flight,
            "max_requests_per_second": self.max_rate,
            "overlaps": self.overlaps,
            "overlapping_users": list(self.overlapping),
        }


class Journal:
    """Everything that arrived at all vendors. Counts are exact; of the items the latest `keep` are held."""

    def __init__(self, vendors: list[str], keep: int) -> None:
        self.started = time.time()
        self.traffic = {vendor: Traffic() for vendor in vendors}
        self.items: deque[Stored] = deque(maxlen=keep)
        self.violations: dict[tuple[str, str, str], int] = {}
        self._order = 0

    def violation(self, vendor: str, path: str, reason: str) -> None:
        """Count something that no correct client sends."""
        self.traffic[vendor].violations += 1
        key = (vendor, path[:200], reason[:200])
        if key not in self.violations and len(self.violations) >= MAX_VIOLATIONS:
            key = (vendor, "", _OTHER)
        self.violations[key] = self.violations.get(key, 0) + 1

    def commit(self, vendor: str, request: Request, reply: Reply) -> None:
        """The vendor's answer stands: count its items, and keep the accepted ones."""
        traffic = self.traffic[vendor]
        for model, count in reply.rejected.items():
            traffic.model(model).rejected += count
        for item in reply.items:
            self._order += 1
            traffic.model(item.model).accepted += 1
            self.items.append(_stored(self._order, vendor, request.number, request.now, item))

    def violation_list(self, vendor: str | None = None) -> list[dict[str, Any]]:
        """The violations, most frequent first."""
        found = [item for item in self.violations.items() if vendor is None or item[0][0] == vendor]
        found.sort(key=lambda item: (-item[1], item[0]))
        return [
            {"vendor": name, "path": path, "reason": reason, "count": count} for (name, path, reason), count in found
        ]

    def view(self, vendor: str | None = None) -> dict[str, Any]:
        """The counts, of one vendor or of all."""
        names = [vendor] if vendor is not None else list(self.traffic)
        return {
            "started": self.started,
            "vendors": {name: self.traffic[name].view() for name in names},
            "violations": self.violation_list(vendor),
        }


def _stored(order: int, vendor: str, request: int, at: float, item: Item) -> Stored:
    return Stored(order, at, vendor, item.model, item.user, item.time_ms, request, encode(item.body))
