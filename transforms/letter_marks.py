"""Which dead letters were replayed: kept beside them, so that replaying twice sends nothing twice."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec
from apache_beam.io.filesystems import FileSystems

from transforms.letter_stores import LetterError
from transforms.sources.cloud import check_reachable
from transforms.sources.files import is_local

NAME: Final = "replayed.sqlite"
"""The file in a folder on disk."""
OBJECTS: Final = ".replayed"
"""Ending of the objects in a folder in cloud storage."""
VERSION: Final = 1

DELIVERED, FAILED_AGAIN, FILTERED = "delivered", "failed again", "filtered"
"""What became of a letter."""
WAITS, REPLAYED = "waits", "replayed"
"""What is not known yet: it was mapped and waits to be sent; it was replayed, in whatever way that ended."""

_SEEN: Final = 10_000
"""Marks that are looked at in one go."""

_TABLE: Final = """
CREATE TABLE replayed (
    id TEXT NOT NULL,
    failures INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (id, failures)
) WITHOUT ROWID
"""

_MARK: Final = """
INSERT INTO replayed VALUES (?, ?, ?, ?) ON CONFLICT (id, failures) DO UPDATE
SET outcome = excluded.outcome, at = excluded.at WHERE replayed.outcome IN (?, ?)
"""

Mark = tuple[str, int, str, str]
"""Id and failures of a letter, what became of it, and when."""


class Marks:
    """Which letters at a location (a folder, or a file in it) were replayed, by id and count of failures, and what became
    of them.

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
                    self._insert(sorted(_read_objects(self._store), key=lambda mark: mark[3]))
                undo.pop_all()

    def mark(self, letters: Iterable[tuple[str, int]], outcome: str) -> None:
        """Notes that letters, by id and failures, were replayed, and what became of them. It is durable when this
        returns. What was marked before stays as it was, unless that was WAITS or REPLAYED."""
        at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
        marks = [(id, failures, outcome, at) for id, failures in letters]
        if self._store is not None and marks:
            _write_object(self._store, marks)
        self._insert(marks)

    def settle(self, letters: Iterable[tuple[str, int]], outcome: str) -> None:
        """As `mark`, for those of the letters of which it is marked that it is not known what became of them."""
        with self._lock, self._explained():
            find = "SELECT 1 FROM replayed WHERE id = ? AND failures = ? AND outcome IN (?, ?)"
            open_ = [one for one in letters if self._base.execute(find, (*one, WAITS, REPLAYED)).fetchone()]
        self.mark(open_, outcome)

    def unsettled(self, outcome: str) -> Iterator[list[tuple[str, int]]]:
        """Id and failures of the letters that are marked so, some at a time; marks may be changed meanwhile."""
        last = ("", 0)
        while True:
            with self._lock, self._explained():
                found: list[tuple[str, int]] = self._base.execute(
                    "SELECT id, failures FROM replayed WHERE (id, failures) > (?, ?) AND outcome = ? "
                    "ORDER BY id, failures LIMIT ?",
                    (*last, outcome, _SEEN),
                ).fetchall()
            if not found:
                return
            yield found
            last = found[-1]

    def is_marked(self, id: str, failures: int) -> bool:
        """Whether a letter was replayed."""
        with self._lock, self._explained():
            found = self._base.execute("SELECT 1 FROM replayed WHERE id = ? AND failures = ?", (id, failures))
            return found.fetchone() is not None

    def counts(self) -> dict[str, int]:
        """How many letters were replayed, by what became of them."""
        with self._lock, self._explained():
            return dict(self._base.execute("SELECT outcome, count(*) FROM replayed GROUP BY outcome ORDER BY outcome"))

    def close(self) -> None:
        """Lets go of the file."""
        self._base.close()

    def _insert(self, marks: Iterable[Mark]) -> None:
        with self._lock, self._explained(), self._base:
            self._base.executemany(_MARK, ((*mark, WAITS, REPLAYED) for mark in marks))

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
                f"{self._name} is of version {version}, this playrelay writes version {VERSION}; use a newer one"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LetterError(f"{self._name}: {error}; it says which dead letters were replayed") from error


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
                raise LetterError(f"{found.path}: {error}; it says which dead letters were replayed") from error


def _write_object(folder: str, marks: list[Mark]) -> None:
    path = FileSystems.join(folder, f"{uuid.uuid4().hex}{OBJECTS}")
    with FileSystems.create(path, mime_type="application/x-ndjson") as file:
        file.write(msgspec.json.Encoder().encode_lines(marks))
