"""The ledger as any process may read it: its tables, and what they say. Writing is transforms/ledger.py's."""

from __future__ import annotations

import os
import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from transforms.outcomes import RecordOutcomes
from transforms.tally import Tally

VERSION: Final = 1
"""Of the tables; kept in the file, so that another version's folder is refused instead of misread."""

LETTERS: Final = "dead-letters"
"""Folder of a stream's dead letters in its state folder, unless another place is named."""

SCHEMA: Final = """
CREATE TABLE slices (
    id INTEGER PRIMARY KEY,
    records INTEGER NOT NULL,
    messages BLOB NOT NULL,        -- ids of the Pub/Sub messages it was made of, 8 bytes each
    mapped_at REAL NOT NULL,
    acknowledged_at REAL           -- NULL: not yet
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY,        -- in the order of sending
    slice INTEGER NOT NULL,
    destination TEXT NOT NULL,
    path TEXT NOT NULL,            -- relative to the state folder
    bytes INTEGER NOT NULL,
    items INTEGER NOT NULL,
    records INTEGER NOT NULL       -- that the items are of
);
CREATE INDEX segments_of_destination ON segments (destination, id);
CREATE INDEX segments_of_slice ON segments (slice);
CREATE TABLE marks (               -- records of unfinished slices of which an item failed; see RecordOutcomes
    slice INTEGER NOT NULL,
    destination TEXT NOT NULL,
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    marks BLOB NOT NULL,
    PRIMARY KEY (slice, destination, source, position)
) WITHOUT ROWID;
CREATE TABLE destinations (
    name TEXT PRIMARY KEY,
    vendor TEXT NOT NULL,
    target TEXT NOT NULL,          -- URL and ids, to notice that they changed
    read INTEGER NOT NULL,         -- records, of the run that goes on
    tally BLOB NOT NULL,           -- of that run, too
    rejected INTEGER NOT NULL,     -- records
    undelivered INTEGER NOT NULL,
    parked_since REAL,             -- NULL: not parked
    reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE files (
    name TEXT NOT NULL,
    destination TEXT NOT NULL,
    selection TEXT NOT NULL,       -- --since and --until
    print TEXT NOT NULL,           -- of the content
    position INTEGER,              -- where reading goes on; NULL: all is read
    line INTEGER NOT NULL,
    PRIMARY KEY (name, destination, selection)
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

decode_tally = msgspec.msgpack.Decoder(Tally).decode


class StateError(Exception):
    """A state folder that cannot be used; the text says why and what to do."""


class Segment(NamedTuple):
    """Items of one destination that wait on disk."""

    number: int
    slice: int
    path: str
    """Absolute."""
    bytes: int
    items: int
    records: int
    """That the items are of."""


class Place(NamedTuple):
    """How far a file is read."""

    print: str
    position: int | None
    """None: all of it."""
    line: int = 0
    """1-based line at the position, 0 when not known."""


class Kept(NamedTuple):
    """A destination as the ledger has it."""

    name: str
    vendor: str
    target: str
    read: int
    """Records."""
    tally: Tally
    rejected: int
    """Records."""
    undelivered: int
    parked_since: float | None
    """Unix seconds."""
    reason: str


class LedgerReader:
    """What a ledger says. Methods may be called from any thread."""

    def __init__(self, folder: str, db: sqlite3.Connection) -> None:
        self.folder = folder
        self.db = db
        self.lock = threading.RLock()
        """Held while the database is used."""

    def close(self) -> None:
        """Lets go of the folder."""
        with self.lock:
            self.db.close()

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """What is asked inside is of one moment, whatever a process writes meanwhile."""
        with self.lock:
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                self.db.execute("COMMIT")

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.lock:
            return self.db.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> int:
        rows = self._rows(query, *values)
        return int(rows[0][0] or 0) if rows else 0

    def fact(self, name: str) -> int:
        """A number that is kept; 0 when it is not."""
        return self._one("SELECT value FROM facts WHERE name = ?", name)

    @property
    def id(self) -> int:
        """By which this ledger is known, wherever its folder is; 63 bits."""
        return self.fact("id")

    def waiting(self, destination: str) -> list[Segment]:
        """A destination's segments, in the order of sending."""
        return [
            Segment(number, slice_, os.path.join(self.folder, path), size, items, records)
            for number, slice_, path, size, items, records in self._rows(
                "SELECT id, slice, path, bytes, items, records FROM segments WHERE destination = ? ORDER BY id",
                destination,
            )
        ]

    def message_file(self, number: int) -> str:
        """Path of a slice's message file."""
        return os.path.join(self.folder, "slices", f"{number:012d}.messages")

    def message_bytes(self, number: int) -> int:
        """Bytes of a slice's message file, which is kept until all of the slice is done with; 0 when it has none."""
        try:
            return os.stat(self.message_file(number)).st_size
        except FileNotFoundError:
            return 0

    def destinations(self) -> list[Kept]:
        """Every destination that the folder knows."""
        return [
            Kept(name, vendor, target, read, decode_tally(tally), rejected, undelivered, since, reason)
            for name, vendor, target, read, tally, rejected, undelivered, since, reason in self._rows(
                "SELECT name, vendor, target, read, tally, rejected, undelivered, parked_since, reason FROM destinations"
            )
        ]

    def marks(self, slices: Iterable[int], destination: str) -> RecordOutcomes:
        """The records of unfinished slices of which an item failed."""
        found = RecordOutcomes()
        for number in slices:
            for source, position, marks in self._rows(
                "SELECT source, position, marks FROM marks WHERE slice = ? AND destination = ?", number, destination
            ):
                found.merge(source, position, marks)
        return found

    def messages(self) -> list[tuple[int, bool, array[int]]]:
        """(slice, whether it is acknowledged, ids of its messages) of the slices whose messages are remembered."""
        return [
            (number, bool(done), array("Q", ids))
            for number, done, ids in self._rows(
                "SELECT id, acknowledged_at IS NOT NULL, messages FROM slices WHERE messages != x'' ORDER BY id"
            )
        ]

    def places(self, names: Iterable[str], selection: str) -> dict[tuple[str, str], Place]:
        """(file, destination) -> how far it is read, of those that were begun."""
        wanted = set(names)
        return {
            (name, to): Place(print_, position, line)
            for name, to, print_, position, line in self._rows(
                "SELECT name, destination, print, position, line FROM files WHERE selection = ?", selection
            )
            if name in wanted
        }


def connect(folder: str, *, read_only: bool = False) -> sqlite3.Connection:
    """The database of a state folder, made when it is not there (but not `read_only`). StateError when there is none to
    read, or it is of another version."""
    path = Path(folder, "ledger.sqlite")
    if read_only and not path.exists():
        raise StateError(f"{folder}: no state of playrelay is kept there; expected ledger.sqlite")
    mode = "ro" if read_only else "rwc"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=10
    )
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise StateError(
                f"{path}: written by another version of playrelay (tables {version}, here {VERSION}); finish with that "
                "version, or name another folder with --state"
            )
        # A transaction is over when it is on the disk: Pub/Sub's messages are acknowledged because of it.
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        db.close()
        raise StateError(
            f"{path}: {error}; name another folder with --state, or remove it if nothing waits in it"
        ) from error
    except BaseException:
        db.close()
        raise
    return db


def read_ledger(folder: str) -> LedgerReader:
    """The ledger of a state folder, whether or not a process works with it. StateError when there is none."""
    return LedgerReader(os.path.abspath(folder), connect(folder, read_only=True))
