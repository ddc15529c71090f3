"""A shard of a job in which anything happens: bundles that are done again, other processes, refusals, timers, windows.

Everything is the job's own but three things: the state, which is in memory and goes back when a bundle is not committed; the
time; and the vendor, who answers when and what chance has it. So a day of a shard takes a millisecond or two.
"""

from __future__ import annotations

import copy
import functools
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.utils.timestamp import Timestamp
from deliveries import START_MS, destination, item
from unbounded_streams import SUBSCRIPTION, record

from transforms.carried import pack_carried
from transforms.dead_letter import REJECTED, UNDELIVERED, Failed
from transforms.deliver import courier, policy, visit, waiting
from transforms.deliver.courier import Courier, Flight
from transforms.deliver.gate import Gate
from transforms.deliver.visit import Patience, Step, Visit
from transforms.deliver.waiting import NO_WINDOW, Held
from transforms.elements import Item
from transforms.pack import TooLarge
from transforms.tally import Tally
from transforms.vendors.base import Batch

FOREVER = 10**12
Action = Callable[[Visit], Iterator[Any]]


class Cell:
    """A state or a timer of the shard."""

    def __init__(self, cells: dict[str, Any], name: str) -> None:
        self.cells, self.name = cells, name

    def read(self) -> Any:
        return copy.copy(self.cells[self.name])

    def write(self, value: bytes) -> None:
        self.cells[self.name] = value

    def add(self, value: bytes) -> None:
        self.cells[self.name].append(value)

    def set(self, time: Timestamp) -> None:
        self.cells[self.name] = time.micros // 1000

    def clear(self) -> None:
        self.cells[self.name] = [] if isinstance(self.cells[self.name], list) else None


class _Sender(courier._TryOnce):
    """Sends to the day's vendor."""

    def __init__(self, day: RandomDay, gate: Gate) -> None:
        self.day, self._gate, self._journal, self.models = day, gate, None, ("event",)
        self.settings = None  # type: ignore[assignment]  # never one to keep

    def take(self, batches: Iterable[Batch | TooLarge]) -> None:
        self.trouble, self.back, self.tried = None, [], frozenset()
        self.tally, self.failed = Tally(), []
        for batch in batches:
            assert isinstance(batch, Batch)
            if self.trouble is not None:
                self._give_back(batch.items, "HTTP 503", None)
                continue
            fate = self.day.fate()
            if fate != "refused":
                taken = [sourced for sourced in batch.items if not self.day.is_bad(sourced[0])]
                self.day.vendor += [number(one) for one, _ in taken]
            if fate == "taken":
                self._delivered(taken)
                self._gate.succeeded(courier.time.monotonic(), len(taken))
                bad = [sourced for sourced in batch.items if self.day.is_bad(sourced[0])]
                if bad:
                    self._fail(REJECTED, bad, "no")
            else:
                if fate == "lost":
                    self.day.at_risk |= {number(one) for one, _ in taken}
                self._give_back(batch.items, "HTTP 503", None)

    def close(self) -> None:
        pass


class _Courier(Courier):
    """Its flights land when the day has it."""

    def __init__(self, day: RandomDay, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.day = day

    def launch(self, shard: int, batches: Sequence[Batch | TooLarge], flight: Flight) -> Flight | None:
        if self.wait():
            return None
        under_way = self._flights.get(shard)
        assert under_way is None or under_way.finished(), "two requests of a shard at a time"
        self._flights[shard] = flight
        self._under_way += 1
        fly = functools.partial(self._fly, shard, flight, _Sender(self.day, self.gate), batches)
        self.day.launched(flight, batches, fly)
        return flight


def number(one: Item) -> int:
    """An item's number: its time says it, whatever its reference has become."""
    return one[3] - START_MS


class RandomDay:
    """What happens to some items of one shard, by chance."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, moves: bool) -> None:
        self.rnd = rnd = random.Random(seed)
        self.moves = moves
        """Whether the shard moves to other processes, and processes die."""
        monkeypatch.setattr(visit, "WAIT", 0.0)
        monkeypatch.setattr(visit, "FLIGHT_REQUESTS", 2)
        monkeypatch.setattr(visit, "FLIGHT_ITEMS", 3)
        monkeypatch.setattr(policy, "FIRST_PAUSE", 0.0)
        monkeypatch.setattr(waiting, "TAKE_BYTES", rnd.choice([300, 2_000, 512 << 10]))
        monkeypatch.setattr(visit, "MAX_WAITING", rnd.choice([2_000, 64 << 20, 64 << 20]))
        monkeypatch.setattr(courier, "Courier", functools.partial(_Courier, self))
        self.window_ms = rnd.choice([None, None, 10])
        self.to = destination(
            "teak",
            "http://127.0.0.1:9",
            shards=1,
            batch={"age_ms": 1000, "items": rnd.choice([1, 3, 10]), "window_ms": self.window_ms},
            retry_s=rnd.choice([0.0, FOREVER]),
        )
        self.patience = Patience(hold_ms=rnd.choice([3_000, FOREVER, FOREVER]))
        self.run = uuid.uuid4().hex
        self.process = 0
        self.now = FOREVER
        self.cells: dict[str, Any] = {"note": None, "waiting": [], "going": [], "due": None, "close": None}
        self.air: list[Callable[[], None]] = []
        self.vendor: list[int] = []
        """Numbers of the items that the vendor took."""
        self.at_risk: set[int] = set()
        """Those that may come twice: an answer was lost, or the shard moved while they were in flight."""
        self.tally = Tally()
        self.failed: list[Failed] = []
        self.numbers_of: dict[int, set[int]] = {}

    # The vendor ----------------------------------------------------------------------------------

    def fate(self) -> str:
        """What becomes of a request."""
        if self.ending or self.rnd.random() < 0.7:
            return "taken"
        return "lost" if self.rnd.random() < 0.1 else "refused"

    @staticmethod
    def is_bad(one: Item) -> bool:
        """Whether the vendor rejects it whenever it comes."""
        return number(one) % 9 == 4

    def launched(self, flight: Flight, batches: Sequence[Batch | TooLarge], fly: Callable[[], None]) -> None:
        """A shard's requests leave."""
        numbers = set()
        for batch in batches:
            assert isinstance(batch, Batch)
            numbers |= {number(one) for one, _ in batch.items}
            if self.window_ms is not None:
                assert len({number(one) // self.window_ms for one, _ in batch.items}) == 1
        self.numbers_of[flight.number] = numbers
        if self.rnd.random() < 0.5:
            fly()
        else:
            self.air.append(fly)

    def land(self, chance: float = 0.5) -> None:
        """Some flights come to their end."""
        for fly in list(self.air):
            if self.rnd.random() < chance:
                self.air.remove(fly)
                fly()

    # The runner ----------------------------------------------------------------------------------

    @property
    def note(self) -> waiting.Note:
        """How things stand, as it is committed."""
        return Held(*(Cell(self.cells, name) for name in ("note", "waiting", "going"))).note

    def move(self) -> None:
        """The shard moves to another process, or back to it; or its process dies, and its flights with it or not."""
        if not self.moves:
            return
        flight = self.step().courier.flight(0)
        if flight is not None and flight.number != self.note.seen:
            self.at_risk |= self.numbers_of[flight.number]
        if self.rnd.random() < 0.5:
            courier.forget(f"{self.run} {self.process}")
            self.air = [fly for fly in self.air if self.rnd.random() < 0.5]
        self.process = self.rnd.randrange(2)

    def step(self) -> Step:
        """The step in the process where the shard is."""
        step = Step.of(self.to, ("event",), self.patience, f"{self.run} {self.process}")
        step.courier._until = 0.0  # time goes on as the day has it
        return step

    def bundle(self, actions: Sequence[Action]) -> None:
        """A bundle, done until it is committed: as it is, or in two parts."""
        for attempt in range(6):
            before, self.cells = self.cells, copy.deepcopy(self.cells)
            step, given = self.step(), []
            for action in actions:
                states = [Cell(self.cells, name) for name in ("note", "waiting", "going", "due", "close")]
                one = Visit(step, 0, Held(*states[:3]), *states[3:], self.now)
                given += [*action(one), *one.go_on()]
            if attempt == 5 or self.rnd.random() < 0.7:
                for output in given:
                    if isinstance(output, beam.pvalue.TaggedOutput):
                        self.failed += output.value[1]
                    else:
                        self.tally.add(output[1])
                return
            self.cells = before
            if self.rnd.random() < 0.2:
                self.move()
            self.land()
            if len(actions) > 1 and self.rnd.random() < 0.5:
                at = self.rnd.randrange(1, len(actions))
                self.bundle(actions[:at])
                while self.rnd.random() < 0.5:
                    self.time_goes_on()
                self.bundle(actions[at:])
                return

    def time_goes_on(self) -> None:
        """Flights land and timers fire, now and then without a reason."""
        self.land()
        self.now += self.rnd.choice([10, 200, 1500])
        due = self.cells["due"]
        if (due is not None and due <= self.now) or self.rnd.random() < 0.1:
            self.bundle([self.due])

    @staticmethod
    def element(window: int, items: Sequence[Item]) -> Action:
        """Items come in."""
        data = pack_carried(SUBSCRIPTION, items, {one[4]: record(one) for one in items})
        return lambda one: one.take_in(window, data)

    def due(self, one: Visit) -> Iterator[Any]:
        """The timer in processing time."""
        self.cells["due"], one.held.note.due = None, 0
        return iter(())

    def closes(self, end: int) -> Action:
        """The timer in event time; 0: at the end of time."""

        def fires(one: Visit) -> Iterator[Any]:
            note = one.held.note
            self.cells["close"], note.close = None, 0
            if end:
                note.closed = max(note.closed, end)
            else:
                note.ending = note.ending or self.now
            return iter(())

        return fires

    # The day -------------------------------------------------------------------------------------

    ending = False

    def play(self) -> None:
        """Some items come, and then the job drains; the vendor takes what is left."""
        rnd, total, made = self.rnd, self.rnd.randint(5, 120), 0
        while made < total:
            actions = []
            for _ in range(rnd.randint(1, 3)):
                groups: dict[int, list[Item]] = {}
                for n in range(made, min(total, made + rnd.randint(1, 8))):
                    start = NO_WINDOW if self.window_ms is None else (START_MS + n) // self.window_ms * self.window_ms
                    groups.setdefault(start, []).append(item("teak", n, f"u{n % 3}"))
                    made += 1
                actions += [self.element(start, items) for start, items in groups.items()]
            self.bundle(actions)
            if rnd.random() < 0.08:
                self.move()
            self.time_goes_on()
            if self.window_ms is not None and self.cells["close"] is not None and rnd.random() < 0.3:
                self.bundle([self.closes(self.cells["close"])])
        self.ending = True
        for _ in range(2_000):
            self.land(1.0)
            if self.note.idle:
                break
            self.bundle([self.closes(0)] if self.cells["close"] is not None else [self.due])
            self.now += 500
        else:
            raise AssertionError(f"it hangs: {self.note}")
        courier.forget(f"{self.run} 0")
        courier.forget(f"{self.run} 1")
        self.check(total)

    def check(self, total: int) -> None:
        """Nothing is lost; nothing has two outcomes, or goes twice, but what was at risk; and order is kept."""
        assert self.moves or not self.note.early, "what came is still waited for"
        letters = Counter(number_of(failed) for failed in self.failed)
        times, sure = Counter(self.vendor), set(range(total)) - self.at_risk
        assert {*letters, *times} == set(range(total)), "lost"
        assert [n for n in sure if letters[n] + times[n] != 1] == [], "two outcomes"
        if not self.at_risk:
            assert self.tally.delivered == len(self.vendor)
            outcomes = Counter(failed.outcome for failed in self.failed)
            assert (self.tally.rejected, self.tally.undelivered) == (outcomes[REJECTED], outcomes[UNDELIVERED])
        if self.patience.hold_ms < FOREVER:
            return  # what a bundle gives up, and gave up for nothing as it is done again, goes behind what it sent
        span = self.window_ms or total
        for user in range(3):
            for start in range(0, total, span):
                order = [n for n in self.vendor if n in sure and n % 3 == user and start <= n < start + span]
                assert order == sorted(order), "out of order"


def number_of(failed: Failed) -> int:
    """The number of an item that failed, by its record."""
    assert failed.time_ms is not None
    assert failed.original == b"record %d" % (failed.time_ms - START_MS)
    return failed.time_ms - START_MS
