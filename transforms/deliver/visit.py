"""One bundle's visit to a shard of a job: what is taken in, sent, settled, given up, and when to come back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from transforms.carried import Carried, Kind, kinds_in, kinds_of, number_of_kinds, size_of
from transforms.dead_letter import OTHER_FORM, UNDELIVERED, Failed
from transforms.deliver.courier import POLL, Courier, Flight, Key, Trouble, courier
from transforms.deliver.policy import pause_after
from transforms.deliver.sink import FAILED
from transforms.deliver.waiting import NO_WINDOW, Entry, Held, Name, named, names_of, split
from transforms.destination import Destination
from transforms.elements import INDEX_BITS, Item, Origin
from transforms.pack import Packing, TooLarge, in_time_order, pack
from transforms.tally import Tally, total
from transforms.vendors.base import Batch

FLIGHT_REQUESTS: Final = 4
FLIGHT_ITEMS: Final = 100
"""A flight is so many requests, or as many more as it takes to hold so many items. Its outcomes are written down together,
so this is what a shard sends again when its worker dies."""

WAIT: Final = 1.0
"""Seconds that a bundle waits for a flight's outcome. What takes longer, a later bundle asks for."""

NEXT_BUNDLE_MS: Final = 20
"""After a flight the next one is made in another bundle, so that the outcomes of the first are written down."""

FULL_BYTES: Final = 4 << 20
"""Bytes of payloads of one window that a shard gathers at the most before it sends."""

BY_USER: Final = 16
"""Where a request holds one user's items, so many times its items are gathered for all users of a shard."""

MAX_WAITING: Final = 64 << 20
"""Compressed bytes that wait in a shard's state: about half a gigabyte of telemetry. State is written in one piece."""

FAILED_TOGETHER: Final = 5_000
"""Dead letters an element."""

END: Final = GlobalWindow().max_timestamp()
_END_MS: Final = END.micros // 1000
POLL_MS: Final = int(1000 * POLL)


@dataclass(frozen=True)
class Patience:
    """How long things may take. Times in ms."""

    hold_ms: int = 24 * 3_600_000
    """How long an item is kept for a vendor that takes nothing; then it is undelivered."""
    lateness_ms: int = 0
    """How long after its end a window's items are gathered, unless their age or number sends them before."""


class Step(NamedTuple):
    """What all visits of a step share."""

    destination: Destination
    models: tuple[str, ...]
    patience: Patience
    courier: Courier
    kinds: tuple[Kind, ...]
    """What items are now, by their model."""
    full_items: int
    """Items of one window that a shard gathers at the most before it sends."""
    sent: set[int]
    """Shards of which something was sent in this bundle: their outcomes must be committed before more is."""

    @classmethod
    def of(cls, destination: Destination, models: tuple[str, ...], patience: Patience, run: str) -> Step:
        """The step in this process."""
        shared = courier(run, destination, models)
        packing = shared.packing
        most = min(packing.items, max(route.limits.items for route in packing.routes))
        by_user = packing.by_user or any(route.by_user for route in packing.routes)
        full_items = max(FLIGHT_ITEMS, most * (BY_USER if by_user else FLIGHT_REQUESTS))
        return cls(destination, models, patience, shared, kinds_of(destination, models), full_items, set())


class Visit:
    """One bundle's visit to a shard."""

    def __init__(self, step: Step, shard: int, held: Held, due: Any, close: Any, now: int) -> None:
        self.step = step
        self.to = step.destination
        self.courier: Courier = step.courier
        self.shard = shard
        self.held = held
        self.now = now
        self._due = due
        self._close = close

    def take_in(self, window: int, data: bytes) -> Iterator[Any]:
        """Items that came in."""
        held, note = self.held, self.held.note
        yield from self._translate_all()
        late = window != NO_WINDOW and self._end(window) <= note.closed
        translated, lost = self._translated([Entry(window, 0, self.now, data)])
        yield from self._lost(lost, OTHER_FORM)
        if not translated:
            return
        for entry in held.unsettled(translated[0]):
            if note.held + len(entry.data) > MAX_WAITING:
                why = f"not sent, as {MAX_WAITING >> 20} MiB wait already"
                yield from self._give_up([entry], self._last(why))
                return
            held.add(window, self.now, entry.data)
        if late:
            yield self.to.name, Tally(late=size_of(data).items)

    def go_on(self) -> Iterator[Any]:
        """Does what can be done now, without waiting for long, and sets the timers for the rest."""
        note = self.held.note
        yield from self._translate_all()
        patience = WAIT if note.ending else 0.0  # a job that drains has no later to leave things for
        flight = self.courier.flight(self.shard)
        if flight is not None and not flight.finished(patience):
            self._sleep(self.now + POLL_MS)
            return
        if flight is not None and flight.after == note.seen:
            yield from self._settle(flight)
            self.step.sent.add(self.shard)
        yield from self._expire()
        if self.shard not in self.step.sent:
            pause = self._pause()
            if pause and patience and not note.idle:
                time.sleep(min(pause, patience))
                pause = self._pause()
            if not pause and (note.going or self._ready()):
                self.step.sent.add(self.shard)
                flight = self._launch()
                if flight is not None and flight.finished(WAIT):
                    yield from self._settle(flight)
        self._sleep(self._next())

    # Sending -------------------------------------------------------------------------------------

    def _launch(self) -> Flight | None:
        """Sends the first batches of what is going, or else of what is ready."""
        note = self.held.note
        entries = self.held.going() if note.going else self.held.take(self._ready())
        unpacked = {entry.number: (entry, entry.unpack()) for entry in entries}
        batches = first_requests(_batches(unpacked.values(), self.courier.packing))

        def place(ref: int) -> tuple[Carried, int]:
            return unpacked[ref >> INDEX_BITS][1], ref & _PLACE

        names: dict[Key, Name] = {}
        for batch in batches:
            for item in [batch.item] if isinstance(batch, TooLarge) else [item for item, _ in batch.items]:
                carried, at = place(item[4])
                names[item[4], item[1]] = carried.name(at), item[1]

        def complete(failed: Failed) -> Failed:
            carried, at = place(failed.ref)
            return carried.complete(failed, at)

        flight = Flight(names, note.seen, complete)
        self.held.keep_going(entries)
        return self.courier.launch(self.shard, batches, flight)

    def _settle(self, flight: Flight) -> Iterator[Any]:
        """Takes in what became of a flight's items."""
        held, note, trouble = self.held, self.held.note, flight.trouble
        note.seen = flight.number
        settled = flight.settled()
        over, left = split(held.going(), settled)
        if sum(size_of(entry.data).items for entry in over) < len(settled):
            # The bundle that began the flight was not committed, so that its items come in once more. Some may not yet have.
            again, waiting = split(held.entries(), settled)
            held.keep_waiting(waiting)
            early = settled - names_of([*over, *again])
            if early:
                note.early, note.early_since = note.early | early, self.now
        tally = total([flight.tally, Tally(retries=min(1, note.tries))])
        if trouble is None or tally.delivered or tally.rejected:
            note.tries, note.since, note.retry = 0, 0, 0
        yield self.to.name, tally
        if trouble is not None:
            note.tries += 1
            note.since = note.since or self.now
            note.reason, note.status, note.answer = trouble.reason, trouble.status, trouble.answer
            if self.courier.trouble is None:
                # The vendor takes others: this shard waits for itself, and what is never taken is at fault itself.
                note.retry = self.now + int(1000 * max(pause_after(note.tries), trouble.retry_after))
                clock = time.monotonic()
                since = max(clock - (self.now - note.since) / 1000, self.courier.refused_since(self.shard, clock))
                if self.courier.gate.left(since, self.to.retry_s, clock) < 0:
                    lost, left = split(left, flight.troubled())
                    yield from self._give_up(lost, self._last(f"not taken within {self.to.retry_s:g} s"))
                    note.tries, note.since, note.retry = 0, 0, 0
        held.keep_going(left)
        yield from _failures(self.to.name, flight.failed)

    # Another relay file ---------------------------------------------------------------------------

    def _translate_all(self) -> Iterator[Any]:
        """What waits was mapped by the relay file before, when a job was updated: its models may have other places now."""
        held, note = self.held, self.held.note
        now = number_of_kinds(self.step.kinds)
        if note.kinds not in (0, now) and not note.idle:
            waiting, lost = self._translated(held.entries())
            going, more = self._translated(held.going())
            held.keep_waiting(waiting)
            held.keep_going(going)
            note.early = set()
            yield from self._lost([*lost, *more], OTHER_FORM)
        note.kinds = now

    def _translated(self, entries: Iterable[Entry]) -> tuple[list[Entry], list[Failed]]:
        """(entries under the models of now, items of which there is no such model)."""
        now = number_of_kinds(self.step.kinds)
        places = {kind: place for place, kind in enumerate(self.step.kinds)}
        translated: list[Entry] = []
        lost: list[Failed] = []
        for entry in entries:
            if kinds_in(entry.data) in (0, now):
                translated.append(entry)
                continue
            carried = entry.unpack()
            kept: list[Item] = []
            for item in carried.items:
                payload, model, user, at, place = item
                to = places.get(carried.kinds[model])
                if to is None:
                    lost.append(self._undelivered(carried, item, carried.kinds[model], Trouble(OTHER_FORM)))
                else:
                    kept.append((payload, to, user, at, place))
            if kept:
                translated.append(entry._replace(data=carried.only(kept, self.step.kinds)))
        return translated, lost

    def _lost(self, lost: Sequence[Failed], reason: str) -> Iterator[Any]:
        if lost:
            yield self.to.name, Tally(undelivered=len(lost), reasons={reason: len(lost)})
            yield from _failures(self.to.name, lost)

    # Giving up -----------------------------------------------------------------------------------

    def _expire(self) -> Iterator[Any]:
        """Gives up what has waited for too long."""
        held, note, hold_ms = self.held, self.held.note, self.step.patience.hold_ms
        if note.ending and self.now - note.ending > 1000 * self.to.retry_s:
            before, why = self.now + 1, "not taken before the job ended"
        elif note.tries or self.courier.trouble is not None:
            before, why = self.now - hold_ms, f"not taken within {hold_ms / 1000:g} s"
        else:
            return
        if note.going and note.going_since < before:
            old, left = _by_age(held.going(), before)
            yield from self._give_up(old, self._last(why))
            held.keep_going(left)
        if any(waiting.oldest < before for waiting in note.windows.values()):
            old, left = _by_age(held.entries(), before)
            yield from self._give_up(old, self._last(why))
            held.keep_waiting(left)

    def _last(self, why: str) -> Trouble:
        """The last trouble, as the reason of a dead letter."""
        note = self.held.note
        last = self.courier.trouble or Trouble(note.reason, note.status, note.answer)
        return last._replace(reason=f"{last.reason}; {why}" if last.reason else why)

    def _give_up(self, entries: Iterable[Entry], trouble: Trouble) -> Iterator[Any]:
        """Undelivered: all items of these entries."""
        for entry in entries:
            carried = entry.unpack()
            kinds = self.step.kinds
            lost = [self._undelivered(carried, item, kinds[item[1]], trouble) for item in carried.items]
            yield from self._lost(lost, trouble.reason)

    def _undelivered(self, carried: Carried, item: Item, kind: Kind, trouble: Trouble) -> Failed:
        model, schema = kind
        payload, _, user, at, place = item
        failed = Failed(
            UNDELIVERED,
            trouble.reason,
            carried.source,
            place,
            model,
            user,
            at,
            payload,
            trouble.status,
            trouble.answer,
            schema=schema,
        )
        return carried.complete(failed, place)

    # Time ----------------------------------------------------------------------------------------

    def _end(self, window: int) -> int:
        """When a window is closed, in event time."""
        # A window of the relay file before, which has none now, is over when it begins.
        return window + (self.to.batch.window_ms or 0) + self.step.patience.lateness_ms

    def _ready(self) -> set[int]:
        """The windows of which something is to be sent now."""
        note, age = self.held.note, self.to.batch.age_ms
        return {
            window
            for window, waiting in note.windows.items()
            if note.ending
            or (window == NO_WINDOW) != (self.to.batch.window_ms is None)  # of the relay file before
            or (age is not None and waiting.oldest + age <= self.now)
            or (window != NO_WINDOW and self._end(window) <= note.closed)
            or waiting.items >= self.step.full_items
            or waiting.bytes >= FULL_BYTES
        }

    def _pause(self) -> float:
        """Seconds until this shard may send."""
        return max(0.0, (self.held.note.retry - self.now) / 1000, self.courier.wait())

    def _next(self) -> int:
        """When there is something to do, in ms; 0: when something comes."""
        note, age = self.held.note, self.to.batch.age_ms
        if note.idle:
            return 0
        flight = self.courier.flight(self.shard)
        if flight is not None and flight.after == note.seen:
            return self.now + POLL_MS
        if note.going or self._ready():
            soon = NEXT_BUNDLE_MS if self.shard in self.step.sent else 0
            return self.now + max(soon, int(1000 * self._pause()))
        if age is None:
            return 0
        return age + min(waiting.oldest for waiting in note.windows.values())

    def _sleep(self, due: int) -> None:
        """Sets both timers and writes the note. A timer that is set to an earlier time stays: it does no harm."""
        note = self.held.note
        if due and not (0 < note.due <= due):
            note.due = due
            self._due.set(Timestamp(micros=due * 1000))
        close = 0
        if not note.idle:
            ends = [self._end(window) for window in note.windows if window != NO_WINDOW]
            open_ends = [] if note.ending else [end for end in ends if end > note.closed]
            close = min(open_ends, default=_END_MS)
        if close != note.close:
            note.close = close
            if close:
                self._close.set(END if close == _END_MS else Timestamp(micros=close * 1000))
            else:
                self._close.clear()
        self.held.save()


_PLACE: Final = (1 << INDEX_BITS) - 1


def _batches(unpacked: Iterable[tuple[Entry, Carried]], packing: Packing) -> Iterator[Batch | TooLarge]:
    """The batches of entries that come by window, none across two windows."""
    for _, group in groupby(unpacked, key=lambda pair: pair[0].window):
        yield from pack(
            in_time_order([(Origin(carried.source), named(entry, carried.items)) for entry, carried in group]), packing
        )


def first_requests(batches: Iterable[Batch | TooLarge]) -> list[Batch | TooLarge]:
    """The first of the batches: those of one flight."""
    chosen: list[Batch | TooLarge] = []
    items = 0
    for batch in batches:
        chosen.append(batch)
        items += 1 if isinstance(batch, TooLarge) else len(batch.items)
        if len(chosen) >= FLIGHT_REQUESTS and items >= FLIGHT_ITEMS:
            break
    return chosen


def _by_age(entries: Iterable[Entry], before: int) -> tuple[list[Entry], list[Entry]]:
    """(entries that came before that time, the others)."""
    both: tuple[list[Entry], list[Entry]] = [], []
    for entry in entries:
        both[entry.arrived >= before].append(entry)
    return both


def _failures(destination: str, failed: Sequence[Failed]) -> Iterator[Any]:
    for at in range(0, len(failed), FAILED_TOGETHER):
        yield beam.pvalue.TaggedOutput(FAILED, (destination, list(failed[at : at + FAILED_TOGETHER])))
