"""What a shard's state holds between two bundles of a job: items that wait, and a note of how things stand.

Bundles come and go, on one worker or another; everything that must outlive them is in here.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from transforms.carried import Carried, size_of, unpack_carried
from transforms.elements import INDEX_BITS, Item

Name = tuple[tuple[str, int], int]
"""Names an item wherever it turns up: (its record's name, its model)."""

NO_WINDOW: Final = -(1 << 62)

TAKE_BYTES: Final = 512 << 10
"""Compressed bytes that are taken out of what waits at a time: as much as is written again for each flight."""

EARLY_MS: Final = 3_600_000
"""So long is remembered what has its outcome before it has come in. Pub/Sub gives a message again after ten minutes at most."""

_HEAD: Final = struct.Struct("<qqq")
"""Window's start in ms, number of the entry in its shard, when it came (ms since 1970 UTC)."""


class Entry(NamedTuple):
    """An element that came in, in the state of its shard."""

    window: int
    """Start in ms; NO_WINDOW without windows."""
    number: int
    """Entries are numbered as they come."""
    arrived: int
    """ms since 1970 UTC."""
    data: bytes
    """Items and records, as transforms/carried.py packs them."""

    def unpack(self) -> Carried:
        """The items with their records. Their reference is the place of the record in here; see `named`."""
        return unpack_carried(self.data)


def write_entry(entry: Entry) -> bytes:
    """An entry as it stands in the state."""
    return _HEAD.pack(entry.window, entry.number, entry.arrived) + entry.data


def read_entry(data: bytes) -> Entry:
    """The inverse of `write_entry`."""
    window, number, arrived = _HEAD.unpack_from(data)
    return Entry(window, number, arrived, data[_HEAD.size :])


def named(entry: Entry, items: Iterable[Item]) -> list[Item]:
    """The items of an entry, their reference telling them from all others of the shard."""
    first = entry.number << INDEX_BITS
    return [(payload, model, user, time, first | place) for payload, model, user, time, place in items]


class Waiting(msgspec.Struct, array_like=True):
    """What waits of one window."""

    items: int = 0
    bytes: int = 0
    """Of payloads."""
    oldest: int = 0
    """When the first came, ms since 1970 UTC."""


class Note(msgspec.Struct, array_like=True):
    """How things stand with a shard. Times in ms since 1970 UTC; 0: none."""

    next: int = 0
    """Number of the next entry."""
    windows: dict[int, Waiting] = msgspec.field(default_factory=dict)
    """What waits, by the window's start."""
    held: int = 0
    """Compressed bytes that wait."""
    going: int = 0
    """Items that have left what waits and have no outcome yet."""
    going_since: int = 0
    """When the first of them came."""
    seen: int = 0
    """Number of the flight whose outcomes were last taken in."""
    tries: int = 0
    """Flights of this shard since one had no trouble."""
    since: int = 0
    """When the first of them began."""
    retry: int = 0
    """Not before this time is anything sent."""
    closed: int = 0
    """End of the last window that was closed, lateness included."""
    ending: int = 0
    """When the job began to drain."""
    due: int = 0
    close: int = 0
    """What the timers are set to."""
    reason: str = ""
    status: int = 0
    answer: str = ""
    """Of the last trouble."""
    early: set[Name] = msgspec.field(default_factory=set)
    """Items that have their outcome and have still to come in: their bundle was not committed, and is done again in parts."""
    early_since: int = 0
    """When the last of them were added."""
    kinds: int = 0
    """`number_of_kinds` of all that is held; 0: those of the step."""

    @property
    def idle(self) -> bool:
        """Whether nothing is held."""
        return not self.windows and not self.going


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Note).decode


class Held:
    """A shard's state: the note, entries that wait, and entries that are being sent. Written by `save`."""

    def __init__(self, note: Any, waiting: Any, going: Any) -> None:
        self._note_state = note
        self._waiting = waiting
        self._going = going
        stored = note.read()
        self.note: Note = _decode(stored) if stored else Note()
        self._stored = stored

    def add(self, window: int, now: int, data: bytes) -> None:
        """An element that came in."""
        note = self.note
        self._waiting.add(write_entry(Entry(window, note.next, now, data)))
        note.next += 1
        self._count(window, now, data)

    def unsettled(self, entry: Entry) -> list[Entry]:
        """An entry that comes in, without the items that have their outcome already; nothing when all have it."""
        note = self.note
        if note.early and entry.arrived > note.early_since + EARLY_MS:
            note.early = set()
        if not note.early:
            return [entry]
        settled, left = split([entry], note.early)
        note.early -= names_of(settled)
        return left

    def _count(self, window: int, arrived: int, data: bytes) -> None:
        note, size = self.note, size_of(data)
        found = note.windows.setdefault(window, Waiting(oldest=arrived))
        found.items += size.items
        found.bytes += size.bytes
        found.oldest = min(found.oldest, arrived)
        note.held += len(data)

    def entries(self) -> list[Entry]:
        """The entries that wait: by window, then as they came."""
        return sorted(map(read_entry, self._waiting.read()), key=lambda entry: entry[:2])

    def going(self) -> list[Entry]:
        """The entries that are being sent, in order."""
        return sorted(map(read_entry, self._going.read()), key=lambda entry: entry[:2])

    def take(self, windows: set[int]) -> list[Entry]:
        """The first entries of these windows, about TAKE_BYTES of them. They wait no longer; `keep_going` keeps them."""
        taken: list[Entry] = []
        left: list[Entry] = []
        size = 0
        for entry in self.entries():
            if entry.window in windows and (not taken or size + len(entry.data) <= TAKE_BYTES):
                taken.append(entry)
                size += len(entry.data)
            else:
                left.append(entry)
                if entry.window in windows:
                    size = TAKE_BYTES  # order: nothing behind it goes before it
        self.keep_waiting(left)
        return taken

    def keep_waiting(self, entries: Iterable[Entry]) -> None:
        """Puts these in the place of all that wait."""
        self._waiting.clear()
        self.note.windows, self.note.held = {}, 0
        for entry in entries:
            self._waiting.add(write_entry(entry))
            self._count(entry.window, entry.arrived, entry.data)

    def keep_going(self, entries: Iterable[Entry]) -> None:
        """Puts these in the place of all that are being sent."""
        self._going.clear()
        self.note.going, self.note.going_since = 0, 0
        for entry in entries:
            self._going.add(write_entry(entry))
            self.note.going += size_of(entry.data).items
            self.note.going_since = min(self.note.going_since or entry.arrived, entry.arrived)

    def save(self) -> None:
        """Writes the note, when it has changed."""
        stored = _encode(self.note)
        if stored != self._stored:
            self._note_state.write(stored)


def split(entries: Iterable[Entry], names: Collection[Name]) -> tuple[list[Entry], list[Entry]]:
    """(entries with the items of these names alone, entries with all others)."""
    inside: list[Entry] = []
    outside: list[Entry] = []
    for entry in entries:
        carried = entry.unpack()
        chosen = [item for item in carried.items if (carried.name(item[4]), item[1]) in names]
        if len(chosen) == len(carried.items):
            inside.append(entry)
        elif not chosen:
            outside.append(entry)
        else:
            rest = [item for item in carried.items if (carried.name(item[4]), item[1]) not in names]
            inside.append(entry._replace(data=carried.only(chosen)))
            outside.append(entry._replace(data=carried.only(rest)))
    return inside, outside


def names_of(entries: Iterable[Entry]) -> set[Name]:
    """The names of all items of these entries."""
    unpacked = [entry.unpack() for entry in entries]
    return {(carried.name(item[4]), item[1]) for carried in unpacked for item in carried.items}
