"""Requests of a job's shards, made beside its bundles, so that a vendor that does not answer holds up no bundle.

A bundle hands a shard's next requests over and comes back for what became of them. What was not taken comes back too: the
shard's state keeps it, and its timer says when to try again. The truth is in the state; what is here is gone with the
process, and then what was under way is sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from transforms.credentials import CredentialError
from transforms.dead_letter import UNDELIVERED, Failed
from transforms.deliver.gate import Gate, Halt
from transforms.deliver.parking import words
from transforms.deliver.policy import Policy, pause_after
from transforms.deliver.send import Send
from transforms.deliver.sender import Sender
from transforms.deliver.sink import packing_of, settings_of
from transforms.deliver.waiting import Name
from transforms.destination import Destination
from transforms.pack import SourcedItem, TooLarge
from transforms.tally import Tally
from transforms.vendors import get
from transforms.vendors.base import Answer, Batch, Settings, excerpt

MAX_UNDER_WAY: Final = 64
"""Shards of a destination that a process sends for at a time; each has a connection."""

POLL: Final = 0.5
"""Seconds after which a shard asks again for what it waits for."""

Key = tuple[int, int]
"""Names an item in its shard: (its reference there, its model)."""

_log = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """Why a batch was not taken."""

    reason: str
    status: int = 0
    answer: str = ""
    retry_after: float = 0.0
    """Seconds that the vendor asked for."""
    key: str = ""
    """The relay file's key to mend, when it is the configuration that is wrong."""


class _TryOnce(Sender):
    """A sender that gives back what was not taken, and all that was to come after it."""

    settings: Settings
    trouble: Trouble | None
    back: list[Key]
    tried: frozenset[Key]
    """The items of the batch that had the trouble."""

    def take(self, batches: Iterable[Batch | TooLarge]) -> None:
        """Sends the batches, one after the other, until there is trouble."""
        self.trouble, self.back, self.tried = None, [], frozenset()
        self.tally, self.failed = Tally(), []
        self.put(0, batches)
        self.drain()

    def _retry(self, send: Send, shard: int, reason: str, answer: Answer, now: float) -> bool:
        self._give_back(send.batch.items, reason, answer)
        while (rest := self._next(shard)) is not None:
            self._give_back(rest.batch.items, reason, answer)
        return False

    def _fail(self, outcome: str, items: Sequence[SourcedItem], reason: str, answer: Answer | None = None) -> None:
        if outcome == UNDELIVERED:
            self._give_back(items, reason, answer)
        else:
            super()._fail(outcome, items, reason, answer)

    def _give_back(self, items: Sequence[SourcedItem], reason: str, answer: Answer | None) -> None:
        keys = [(item[4], item[1]) for item, _ in items]
        self.back += keys
        if self.trouble is None:
            halt = self._gate.halt
            self.tried = frozenset(keys)
            self.trouble = Trouble(
                reason,
                answer.status if answer else 0,
                excerpt(answer.body) if answer else "",
                answer.retry_after if answer else 0.0,
                halt.key if halt else "",
            )


class Flight:
    """The requests of one shard that are under way, and what became of their items."""

    def __init__(self, names: Mapping[Key, Name], after: int, complete: Callable[[Failed], Failed]) -> None:
        self.number = random.getrandbits(62)
        """Tells flights from each other, those of other processes too."""
        self.after = after
        """Number of the flight that the shard's state had seen when this one began."""
        self.names = names
        self.back: frozenset[Key] = frozenset()
        """Items that were not taken."""
        self.tried: frozenset[Key] = frozenset()
        """Those of them that were in the batch that was not taken."""
        self.failed: Sequence[Failed] = ()
        """Items that can never be taken, with their records."""
        self.tally = Tally()
        self.trouble: Trouble | None = None
        self.error: BaseException | None = None
        self._complete: Callable[[Failed], Failed] | None = complete
        self._done = threading.Event()

    def finished(self, seconds: float = 0.0) -> bool:
        """Whether each item has come back or has its outcome; waits for it so long. Raises, once, what a bug raised."""
        done = self._done.wait(seconds) if seconds else self._done.is_set()
        if done and self.error is not None:
            error, self.error = self.error, None
            raise error
        return done

    def settled(self) -> set[Name]:
        """The items that have their outcome."""
        return {name for key, name in self.names.items() if key not in self.back}

    def troubled(self) -> set[Name]:
        """The items of the batch that was not taken."""
        return {self.names[key] for key in self.tried}

    def take(self, sender: _TryOnce) -> None:
        """Takes over what the sender has learnt."""
        assert self._complete is not None
        self.tally, self.failed = sender.tally, [self._complete(failed) for failed in sender.failed]
        self.back, self.tried, self.trouble = frozenset(sender.back), sender.tried, sender.trouble

    def finish(self) -> None:
        """Everything is told."""
        self._complete = None  # it holds the records
        self._done.set()


class Courier:
    """What all shards of a destination share in a process: pace, connections, and whether the vendor is down.

    While nothing is taken, one shard at a time tries, with growing pauses.
    """

    def __init__(self, destination: Destination, models: tuple[str, ...]) -> None:
        self.destination = destination
        self.models = models
        self.gate = Gate(destination.rate, destination.shards)
        self._settings: Settings | None = None
        """None until the references could be resolved."""
        self.packing = packing_of(destination, Settings(destination.name, "", {}, destination.options), models)
        """Until the references are resolved it serves for what needs no credentials."""
        self._senders: list[_TryOnce] = []
        self._flights: dict[int, Flight] = {}
        self._under_way = 0
        self._failures = 0
        """Flights since anything was last taken."""
        self._down_at = 0.0
        """When that first was refused."""
        self._up_since = 0.0
        """Since when the vendor takes items, but for short times in which it took none, in seconds of time.monotonic()."""
        self._trouble: Trouble | None = None
        self._failing: dict[int, float] = {}
        """Shard -> when it began to be refused, in seconds of time.monotonic()."""
        self._until = 0.0
        self._lock = threading.Lock()
        self.wait()

    def _resolve(self) -> None:
        settings = settings_of(self.destination)
        self._settings = settings
        self.packing = packing_of(self.destination, settings, self.models)
        self.gate.share(self.destination.vendor, settings.url, settings.credentials)

    @property
    def trouble(self) -> Trouble | None:
        """Why the vendor takes nothing; None while it does."""
        return self._trouble if self._failures else None

    def wait(self) -> float:
        """Seconds until a shard may send: 0 when it may now."""
        with self._lock:
            return self._wait(time.monotonic())

    def _wait(self, now: float) -> float:
        if now < self._until:
            return self._until - now
        if self._settings is None:
            # A secret that cannot be had is this destination's bad day, and no other's.
            try:
                self._resolve()
            except CredentialError as error:
                self._put_off(Trouble(str(error)))
                return self._until - time.monotonic()
        if self._under_way >= (1 if self._failures else MAX_UNDER_WAY):
            return POLL
        return 0.0

    def refused_since(self, shard: int, now: float) -> float:
        """Since when a shard is refused in this process while the vendor takes others', in seconds of time.monotonic(). What
        it met in another process or in an outage is not held against its batch."""
        return max(self._up_since, self._failing.get(shard, now))

    def flight(self, shard: int) -> Flight | None:
        """The latest flight of a shard in this process, finished or not."""
        return self._flights.get(shard)

    def launch(self, shard: int, batches: Sequence[Batch | TooLarge], flight: Flight) -> Flight | None:
        """Sends a shard's batches, one after the other. None: not now."""
        with self._lock:
            if self._wait(time.monotonic()):
                return None
            if self.gate.halt is not None and self.gate.halt.key.startswith("credentials"):
                self._new_credentials()
            self.gate.halt = None
            sender = self._senders.pop() if self._senders else self._new_sender()
            # A thread that does not keep the process from ending: the state has what it sends.
            legs = shard, flight, sender, batches
            threading.Thread(target=self._fly, args=legs, name="flight", daemon=True).start()
            # Not before: a machine may have no thread to give, and what never left would be waited for.
            self._under_way += 1
            self._flights[shard] = flight
        return flight

    def _new_sender(self) -> _TryOnce:
        to = self.destination
        assert self._settings is not None  # or it would have to wait
        policy = Policy(0.0, to.connect_timeout_s, to.timeout_s, to.gzip, connections=1)
        sender = _TryOnce(get(to.vendor), self._settings, self.models, policy, self.gate)
        sender.settings = self._settings
        return sender

    def _new_credentials(self) -> None:
        """Looks references up again: whoever was refused may have been given another key since."""
        try:
            self._resolve()
        except CredentialError as error:
            _log.warning("%s: %s", self.destination.name, error)
            return
        while self._senders:
            self._senders.pop().close()

    def _fly(self, shard: int, flight: Flight, sender: _TryOnce, batches: Sequence[Batch | TooLarge]) -> None:
        started = time.monotonic()
        try:
            sender.take(batches)
            flight.take(sender)
        except BaseException as error:  # handed to the bundle that asks
            flight.error, flight.back = error, frozenset(flight.names)
            sender.close()
            with self._lock:
                self._under_way -= 1
        else:
            with self._lock:
                self._under_way -= 1
                self._learn(shard, flight, started)
                current = sender.settings is self._settings
                if current:
                    self._senders.append(sender)
            if not current:
                sender.close()
        finally:
            flight.finish()

    def _learn(self, shard: int, flight: Flight, started: float) -> None:
        """Whether the vendor is down: when nothing of a shard was taken, and nothing of any other since it began to be
        refused. Otherwise it is this shard's batch that is not taken."""
        name, trouble = self.destination.name, flight.trouble
        if trouble is None or flight.tally.delivered or flight.tally.rejected:
            if self._failures:
                _log.warning("%s takes items again", name)
                now = time.monotonic()
                if now - self._down_at >= self.destination.retry_s / 2:
                    self._up_since = now
            self._failing.pop(shard, None)
            self._failures, self._until = 0, 0.0
        elif self.gate.last_success < self._failing.setdefault(shard, started):
            self._put_off(trouble)
        if trouble is not None and trouble.retry_after:
            self._until = max(self._until, time.monotonic() + trouble.retry_after)
            self.gate.pause(self._until)

    def _put_off(self, trouble: Trouble) -> None:
        """Nothing is tried for a while, longer each time."""
        self._failures += 1
        self._trouble = trouble
        self._until = time.monotonic() + pause_after(self._failures)
        if self._failures == 1:
            self._down_at = time.monotonic()
            why = words(self.destination.name, Halt(trouble.reason, trouble.key))
            _log.warning("%s does not take items, which wait: %s", self.destination.name, why)

    def close(self) -> None:
        """Ends all connections that are not in use."""
        with self._lock:
            while self._senders:
                self._senders.pop().close()
            self.gate.close()


_couriers: dict[tuple[str, str], Courier] = {}
_couriers_lock = threading.Lock()


def courier(run: str, destination: Destination, models: tuple[str, ...]) -> Courier:
    """The courier of a destination in this process, made when first asked for."""
    with _couriers_lock:
        key = (run, destination.name)
        found = _couriers.get(key)
        if found is None:
            found = _couriers[key] = Courier(destination, models)
        return found


def forget(run: str) -> None:
    """Drops the couriers of a job that has ended."""
    with _couriers_lock:
        for key in [key for key in _couriers if key[0] == run]:
            _couriers.pop(key).close()
