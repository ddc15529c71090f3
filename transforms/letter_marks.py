"""Which dead letters were replayed: kept beside them, so that replaying twice sends nothing twice."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import threading
import uuid
from collections.abc import Container, Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec
from apache_beam.io.filesystems import FileSystems

from transforms.letter_shape import Letter
from transforms.letter_stores import LetterError
from transforms.sources.cloud import check_reachable
from transforms.sources.files import is_local

NAME: Final = "replayed.sqlite"
"""The file in a folder on disk."""
OBJECTS: Final = ".replayed"
"""Ending of the objects in a folder in cloud storage."""
VERSION: Final = 2

DELIVERED, FAILED_AGAIN, FILTERED = "delivered", "failed again", "filtered"
"""What became of a letter."""
WAITS, REPLAYED = "waits", "replayed"
"""What is not known yet: it was mapped and waits to be sent; it was replayed, in whatever way that ended."""
GONE: Final = "gone"
"""It waited in a state folder that is lost, and was in no file then. Should it turn up, it is open."""

_SEEN: Final = 10_000
"""Marks that are looked at in one go."""

_TABLE: Final = """
CREATE TABLE replayed (
    id TEXT NOT NULL,
    failures INTEGER NOT NULL,
    first TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at TEXT NOT NULL,
    ledger INTEGER NOT NULL,       -- 0: it waits nowhere
    folder TEXT NOT NULL,
    PRIMARY KEY (id, failures, first)
) WITHOUT ROWID
"""

_MARK: Final = """
INSERT INTO replayed VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, failures, first) DO UPDATE
SET outcome = excluded.outcome, at = excluded.at, ledger = excluded.ledger, folder = excluded.folder
WHERE replayed.outcome IN (?, ?, ?)
"""


class Key(NamedTuple):
    """One letter among those of its record: a record that is relayed anew, and fails anew, begins with one failure again."""

    id: str
    failures: int
    first: str
    """When it failed first."""


class State(NamedTuple):
    """A state folder in which letters may wait to be sent."""

    ledger: int
    """Its ledger's own number: another folder may come to stand at the same path."""
    folder: str


NOWHERE: Final = State(0, "")

Mark = tuple[str, int, str, str, str, int, str]
"""Key of a letter, what became of it, when that was marked, and the state in which it may wait."""


def key_of(letter: Letter) -> Key:
    """What a letter is marked by."""
    return Key(letter.id, letter.failures, letter.first.at)


class Marks:
    """Which letters at a location (a folder, or a file in it) were replayed, and what became of them.

    In a folder on disk this is a small SQLite file, which any number of processes and threads may have open; in cloud
    storage, an object for each `mark`, read when this is made. With `write=False` nothing is made or changed. Raises
    LetterError when what is there cannot be read or written.
    """

    def __init__(self, location: str, write: bool = True) -> None:
        if is_local(location) and os.path.isfile(location):
            location = os.path.dirname(location) or "."
        self.location = location
        self._lock = threading.Lock()
        self._store = None if is_local(location) else location
        path = os.path.join(location, NAME)
        self._name = path if self._store is None else location
        in_memory = self._store is not None or not (write or os.path.exists(path))
        with self._explained():
            self._base = _connect("file::memory:") if in_memory else _connect(_uri(path, write))
            with contextlib.ExitStack() as undo:
                undo.callback(self._base.close)
                if write and not in_memory:
                    self._base.execute("PRAGMA journal_mode = WAL")
                    self._base.execute("PRAGMA synchronous = FULL")
                self._prepare()
                if self._store is not None:
                    # In the order in which they were made, as in a file.
                    self._insert(sorted(_read_objects(self._store), key=lambda mark: mark[4]))
                undo.pop_all()

    def mark(self, letters: Iterable[Key], outcome: str, state: State = NOWHERE) -> None:
        """Notes that letters were replayed, what became of them, and where they may wait. It is durable when this
        returns. What was marked before stays as it was, unless that was WAITS or REPLAYED."""
        at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
        marks = [(*key, outcome, at, *state) for key in letters]
        if self._store is not None and marks:
            _write_object(self._store, marks)
        self._insert(marks)

    def settle(self, letters: Iterable[Key], outcome: str) -> None:
        """As `mark`, for those of the letters of which it is marked that it is not known what became of them."""
        with self._lock, self._explained():
            find = "SELECT 1 FROM replayed WHERE id = ? AND failures = ? AND first = ? AND outcome IN (?, ?)"
            open_ = [one for one in letters if self._base.execute(find, (*one, WAITS, REPLAYED)).fetchone()]
        self.mark(open_, outcome)

    def unsettled(self, outcome: str, ledger: int) -> Iterator[list[Key]]:
        """The letters that are marked so and may wait in a ledger, some at a time; marks may be changed meanwhile."""
        last = Key("", 0, "")
        while True:
            with self._lock, self._explained():
                found = self._base.execute(
                    "SELECT id, failures, first FROM replayed WHERE (id, failures, first) > (?, ?, ?) "
                    "AND outcome = ? AND ledger = ? ORDER BY id, failures, first LIMIT ?",
                    (*last, outcome, ledger, _SEEN),
                ).fetchall()
            if not found:
                return
            yield [Key(*row) for row in found]
            last = Key(*found[-1])

    def is_marked(self, letter: Key, lost: Container[int] = ()) -> bool:
        """Whether a letter was replayed. Also one whose record failed anew is, as long as that record waits to be sent for
        another letter. lost: ledgers that are no more, so that what waited there is not marked."""
        with self._lock, self._explained():
            rows = self._base.execute(
                "SELECT failures, first, ledger FROM replayed WHERE id = ? AND outcome != ?", (letter.id, GONE)
            ).fetchall()
        return any(
            (ledger and first != letter.first) or (failures == letter.failures and first >= letter.first)
            for failures, first, ledger in rows
            if ledger not in lost
        )

    def waiting(self) -> dict[State, int]:
        """How many letters may wait to be sent, by state folder."""
        query = (
            "SELECT ledger, folder, count(*) FROM replayed WHERE ledger != 0 GROUP BY ledger, folder ORDER BY folder"
        )
        with self._lock, self._explained():
            return {State(ledger, folder): count for ledger, folder, count in self._base.execute(query)}

    def counts(self) -> dict[str, int]:
        """How many letters were replayed, by what became of them."""
        with self._lock, self._explained():
            return dict(self._base.execute("SELECT outcome, count(*) FROM replayed GROUP BY outcome ORDER BY outcome"))

    def close(self) -> None:
        """Lets go of the file."""
        self._base.close()

    def _insert(self, marks: Iterable[Mark]) -> None:
        with self._lock, self._explained(), self._base:
            self._base.executemany(_MARK, ((*mark, WAITS, REPLAYED, GONE) for mark in marks))

    def _prepare(self) -> None:
        (version,) = self._base.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._base:
                self._base.execute("BEGIN IMMEDIATE")
                (version,) = self._base.execute("PRAGMA user_version").fetchone()
                if version == 0:  # no other process was quicker
                    self._base.execute(_TABLE)
                    self._base.execute(f"PRAGMA user_version = {VERSION}")
                    version = VERSION
        if version != VERSION:
            raise LetterError(
                f"{self._name}: written by another version of playrelay (version {version}, here {VERSION}); go on with that one"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # This very class, and none below it, is of a file that is no database or is damaged.
            raise _unusable(self._name, error, type(error) is sqlite3.DatabaseError) from error


def _unusable(path: str, error: Exception, damaged: bool) -> LetterError:
    restore = ": put back a copy of it. Without it all of them are open, and sent a second time" if damaged else ""
    return LetterError(f"{path}: {error}; it says which dead letters were replayed{restore}")


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)


def _uri(path: str, write: bool) -> str:
    name = f"file:{quote(os.path.abspath(path))}"
    if write:
        return f"{name}?mode=rwc"
    # SQLite makes files beside a file in WAL mode even to read it. Where it may not, the file can only be read as one
    # that nobody changes.
    return f"{name}?mode=ro" if os.access(os.path.dirname(os.path.abspath(path)), os.W_OK) else f"{name}?immutable=1"


def _read_objects(folder: str) -> Iterator[Mark]:
    decode = msgspec.json.Decoder(Mark).decode_lines
    check_reachable(folder)
    for found in FileSystems.match([FileSystems.join(folder, f"*{OBJECTS}")])[0].metadata_list:
        with FileSystems.open(found.path) as file:
            try:
                yield from decode(file.read())
            except msgspec.DecodeError as error:
                raise _unusable(found.path, error, True) from error


def _write_object(folder: str, marks: list[Mark]) -> None:
    path = FileSystems.join(folder, f"{uuid.uuid4().hex}{OBJECTS}")
    with FileSystems.create(path, mime_type="application/x-ndjson") as file:
        file.write(msgspec.json.Encoder().encode_lines(marks))
