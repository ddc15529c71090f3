"""Events that come twice: what came within the last minutes is known again, and left out.

It need not have been relayed: of an event that its mapping rejected, the first is a dead letter, and the others would be the
same one again.

What a slice of the input brought is kept in two steps: `Seen.add_new` only remembers it, `Seen.write` puts it into the
table within the transaction that makes the slice final. A slice that comes to nothing is not seen.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import schemas
from transforms import located
from transforms.decode import Decoded, Decoder
from transforms.elements import Chunk, Item
from transforms.located import Node
from transforms.mapping import Mapper, MapTally, ModelSpec, compile_mapping

DUPLICATE: Final = "duplicate of an event seen before"
"""The reason under which a record is counted as filtered."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
    n INTEGER PRIMARY KEY,         -- in the order of time, so that what is old lies together
    key BLOB NOT NULL UNIQUE,      -- 16 bytes, a digest
    at REAL NOT NULL               -- Unix seconds
)
"""
_ASKED: Final = 500
"""Keys looked up in one query."""


@dataclass(frozen=True)
class Dedupe:
    """`source.dedupe` of a relay file: which events count as the same, and for how long."""

    by: str
    """`id`: events of the same event_id; `message`: the same record of a Pub/Sub message of the same id."""
    within_s: float


class Seen:
    """The events seen within a time, in a table of a SQLite database. Methods may be called from any thread; of the
    slices of one object, one is mapped at a time.

    connection: in autocommit mode (isolation_level=None), for any thread (check_same_thread=False). lock: held while it
    is used, where others use it too. clock: Unix seconds.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        within_s: float,
        lock: AbstractContextManager[object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._within_s, self._clock = connection, within_s, clock
        self._lock = lock or threading.RLock()
        self._added: set[bytes] = set()
        """Digests of the slice that is being mapped."""
        self._own = False
        with self._lock:
            self._db.execute(_SCHEMA)

    @classmethod
    def alone(cls, within_s: float, clock: Callable[[], float] = time.time) -> Seen:
        """In a database of its own that nothing outlives, for runs that keep no state: there, what is seen stays so.

        It is in memory as long as it is small, then in a temporary file.
        """
        seen = cls(sqlite3.connect("", isolation_level=None, check_same_thread=False), within_s, clock=clock)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            seen._db.execute(f"PRAGMA {pragma}")
        seen._own = True
        return seen

    def close(self) -> None:
        """Closes the database of `alone`; another one is its owner's to close."""
        if self._own:
            self._db.close()

    def add_new(self, keys: Sequence[bytes]) -> list[bool]:
        """For each key, whether it is new: neither seen within the time nor given before. Those are remembered."""
        digests = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
        with self._lock:
            added = self._added
            known = self._known([digest for digest in digests if digest not in added])
            found = []
            for digest in digests:
                new = digest not in added and digest not in known
                found.append(new)
                if new:
                    added.add(digest)
            if self._own and added:
                self._db.execute("BEGIN")
                self.write()
                self._db.execute("COMMIT")
        return found

    def _known(self, digests: Sequence[bytes]) -> set[bytes]:
        since = self._clock() - self._within_s
        known: set[bytes] = set()
        for at in range(0, len(digests), _ASKED):
            asked = digests[at : at + _ASKED]
            marks = ",".join("?" * len(asked))
            query = f"SELECT key FROM seen WHERE key IN ({marks}) AND at >= ?"  # noqa: S608  # question marks only
            known.update(row[0] for row in self._db.execute(query, (*asked, since)).fetchall())
        return known

    def write(self) -> None:
        """Puts what `add_new` remembers into the table, and drops what is old. The caller is in a transaction."""
        with self._lock:
            now = self._clock()
            self.expire(now)
            self._db.executemany(
                "INSERT OR REPLACE INTO seen (key, at) VALUES (?, ?)", ((one, now) for one in sorted(self._added))
            )
            self._added.clear()

    def discard(self) -> None:
        """Forgets what was added since the last `write`: its slice came to nothing."""
        with self._lock:
            self._added.clear()

    def expire(self, now: float) -> None:
        """Drops what was seen longer ago than the time. The caller is in a transaction, or it is one of its own."""
        with self._lock:
            last = self._db.execute("SELECT at FROM seen ORDER BY n DESC LIMIT 1").fetchone()
            if last is not None and last[0] > now:  # the clock was set back: what was seen was seen by now
                self._db.execute("UPDATE seen SET at = ? WHERE at > ?", (now, now))
            since = now - self._within_s
            first = self._db.execute("SELECT n FROM seen WHERE at >= ? ORDER BY n LIMIT 1", (since,)).fetchone()
            if first is None:
                self._db.execute("DELETE FROM seen")
            else:
                self._db.execute("DELETE FROM seen WHERE n < ?", first)


_runs: dict[str, Seen] = {}


def use(run: str, seen: Seen) -> None:
    """MapRecordsFn of this run, in this process, leaves out what was seen."""
    _runs[run] = seen


def of(run: str) -> Seen | None:
    """What a run has seen; None when nobody asked for it."""
    return _runs.get(run)


def forget(run: str) -> None:
    """A run is over."""
    seen = _runs.pop(run, None)
    if seen is not None:
        seen.close()


_ID: Final = schemas.parse(
    {"type": "record", "name": "Id", "fields": [{"name": "id", "type": "string"}]}, "the id of an event"
)
_MAP: Final = "id: {when: {event_id: {exists: true}}, fields: {id: $event_id}}"
_NO_ID: Final = b'{"id":""}'


def compile_ids(schema: schemas.Schema, hop_one: Node | None, override: Node | None) -> Mapper:
    """The mapping of records to nothing but their event_id. Its `sends` is false when hop one never gives one.

    Raises located.Problems with what is wrong in hop one.
    """
    return compile_mapping(
        source_schema=schema,
        hop_one=hop_one,
        hop_one_override=override,
        canonical=schemas.load("telemetry/event"),
        models=[ModelSpec("id", _ID)],
        hop_two=located.parse(_MAP, "dedupe"),
        hop_two_override=None,
        shards=1,
    )


class Duplicates:
    """Finds the duplicates among a chunk's records.

    destinations: those that the records are for. What was seen for others only is new to them.
    """

    def __init__(self, seen: Seen, by: str, decoder: Decoder, ids: Mapper | None, destinations: Iterable[str]) -> None:
        self._seen, self._decoder, self._ids = seen, decoder, ids
        self._scope = "\0".join((by, *sorted(destinations), "")).encode()

    def leave_out(self, chunk: Chunk, decoded: Decoded) -> tuple[Decoded, int]:
        """The chunk's records without duplicates, and how many those are. A record without an id is none."""
        keys = self._by_message(chunk, decoded) if self._ids is None else self._by_id(self._ids, chunk, decoded)
        new = self._seen.add_new([self._scope + key for _, key in keys])
        out = {place for (place, _), is_new in zip(keys, new, strict=True) if not is_new}
        if not out:
            return decoded, 0
        stay = [place for place in range(len(decoded.records)) if place not in out]
        indexes = stay if decoded.indexes is None else [decoded.indexes[place] for place in stay]
        return decoded._replace(records=[decoded.records[place] for place in stay], indexes=indexes), len(out)

    def _by_id(self, ids: Mapper, chunk: Chunk, decoded: Decoded) -> list[tuple[int, bytes]]:
        """(place among the records, key) of those that have one."""
        items: list[Item] = []
        attributes = self._decoder.attributes(chunk, decoded) if ids.needs_attributes else None
        ids.map_chunk(decoded.records, None, 0, [items], MapTally(), attributes)
        return [(item[4], item[0]) for item in items if item[0] != _NO_ID]

    def _by_message(self, chunk: Chunk, decoded: Decoded) -> list[tuple[int, bytes]]:
        in_messages = self._decoder.in_messages(chunk, decoded) or ()
        return [
            (place, f"{message.id}\0{number}".encode())
            for place, (message, number) in enumerate(in_messages)
            if message.id
        ]
