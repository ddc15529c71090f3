"""The ledger: what is read, what waits for which destination and what became of it, in a state folder on this machine.

    STATE/lock                 held by the one process that works with the folder
    STATE/ledger.sqlite        slices, segments, how far files are read, figures
    STATE/slices/              message files of slices that are not finished
    STATE/segments/            mapped items that wait, and their journals (transforms/deliver/journal.py)
    STATE/dead-letters/        a stream's dead letters, unless another place is named

Three things happen, each in one transaction: a slice is mapped, segments are delivered, a slice is acknowledged. What
a transaction speaks of is on the disk before it, so a kill at any moment leaves either the state before or after.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from transforms.dead_letter import Failed
from transforms.ledger_reader import LedgerReader, Place, Segment, StateError, connect, decode_tally
from transforms.outcomes import RecordOutcomes
from transforms.report import most
from transforms.tally import Tally

REASONS: Final = 1_000
"""Reasons a destination that are counted apart; vendors may put a user's text into theirs."""

_AGAIN: Final = "again "
"""How the facts begin that name what the unfinished run reads again: destination and file, with its print as value."""

_encode = msgspec.msgpack.Encoder().encode


class Mapped(NamedTuple):
    """What mapping a slice gave to one destination."""

    tally: Tally
    records: RecordOutcomes
    """Records that the mapping itself rejected."""
    segments: Sequence[Segment]


class Ledger(LedgerReader):
    """The ledger of a state folder, which this process alone uses. Methods may be called from any thread.

    Raises StateError when another process uses the folder, it is of another version or cannot be written to; OSError and
    sqlite3.Error when the disk is full or fails.
    """

    def __init__(self, folder: str) -> None:
        folder = os.path.abspath(folder)
        try:
            for name in ("segments", "slices"):
                os.makedirs(os.path.join(folder, name), mode=0o700, exist_ok=True)
            self._held = _hold(folder)
        except OSError as error:
            raise StateError(
                f"{error.filename or folder}: {error.strerror}; name a folder that can be written to with --state"
            ) from error
        try:
            super().__init__(folder, connect(folder))
        except BaseException:
            self._held.close()
            raise
        # Also of those that are finished and gone: no number is given out twice.
        self._next_slice = 1 + max(self._one("SELECT max(id) FROM slices"), self.fact("last slice"))
        self._next_segment = 1 + max(self._one("SELECT max(id) FROM segments"), self.fact("last segment"))
        if not self.id:
            with self.transaction() as db:
                _set(db, "id", uuid.uuid4().int >> 65)
        self._sweep()

    def close(self) -> None:
        """Lets go of the folder."""
        super().close()
        self._held.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk when it is over."""
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back already
                    self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    # A run -------------------------------------------------------------------------------------

    def begin(self, targets: Mapping[str, tuple[str, str]]) -> list[str]:
        """Goes on with a run that did not come to its end, else starts figures anew.

        targets: destination -> (vendor, target). Returns notes on what changed, and on what waits for others than these.
        StateError for a destination for which items of another vendor wait.
        """
        notes = []
        kept = {one.name: one for one in self.destinations()}
        for name in sorted(kept.keys() - targets.keys()):
            items = sum(one.items for one in self.waiting(name))
            if items:
                notes.append(
                    f"{name}: {items:,} items wait in {self.folder}, and this run has no such destination; they are sent once "
                    "the relay file has one of this name again, and --only does not leave it out"
                )
        for name, (vendor, target) in targets.items():
            before = kept.get(name)
            if before is None:
                continue
            if before.vendor != vendor and self._one("SELECT count(*) FROM segments WHERE destination = ?", name):
                raise StateError(
                    f"{self.folder}: items for {before.vendor} wait under the name {name}, which is {vendor} in the relay "
                    "file now; give the new destination another name"
                )
            if (before.vendor, before.target) != (vendor, target):
                notes.append(
                    f"{name}: now at {target}, before at {before.target}; what was delivered there is not sent again "
                    "(--again sends all)"
                )
        anew = not self.fact("unfinished")
        with self.transaction() as db:
            if anew:
                db.execute(
                    "UPDATE destinations SET read = 0, tally = ?, rejected = 0, undelivered = 0", (_encode(Tally()),)
                )
            for name, (vendor, target) in targets.items():
                db.execute(
                    "INSERT INTO destinations VALUES (?, ?, ?, 0, ?, 0, 0, NULL, '') "
                    "ON CONFLICT (name) DO UPDATE SET vendor = excluded.vendor, target = excluded.target",
                    (name, vendor, target, _encode(Tally())),
                )
            _set(db, "unfinished", 1)
        return notes

    def end(self, complete: bool) -> None:
        """A run is over. When it was cut short, or items wait, the next one goes on with its figures."""
        with self.transaction() as db:
            waiting = db.execute("SELECT count(*) FROM segments").fetchone()[0]
            unfinished = waiting > 0 or not complete
            _set(db, "unfinished", int(unfinished))
            if not unfinished:
                db.execute("DELETE FROM facts WHERE name GLOB ?", (f"{_AGAIN}*",))

    def parked(self, destination: str, reason: str | None) -> None:
        """Notes that a destination is parked, or (None) that it takes items again."""
        with self.transaction() as db:
            db.execute(
                "UPDATE destinations SET parked_since = CASE WHEN ? IS NULL THEN NULL ELSE coalesce(parked_since, ?) END, "
                "reason = ? WHERE name = ?",
                (reason, time.time(), reason or "", destination),
            )

    # Slices ------------------------------------------------------------------------------------

    def new_slice(self) -> int:
        """Number of the next slice."""
        with self.lock:
            self._next_slice += 1
            return self._next_slice - 1

    def new_segment(self) -> tuple[int, str]:
        """Number and path of the next segment."""
        with self.lock:
            number = self._next_segment
            self._next_segment += 1
        return number, os.path.join(self.folder, "segments", f"{number:012d}.segment")

    def mapped(
        self,
        number: int,
        records: int,
        parts: Mapping[str, Mapped],
        *,
        places: Mapping[tuple[str, str], Place] | None = None,
        selection: str = "",
        messages: Sequence[int] = (),
        beside: Callable[[], None] | None = None,
    ) -> None:
        """A slice is mapped, and all that came of it is on the disk.

        records: that were read, as reading counts them. places: (file, destination) -> how far it is read now.
        messages: ids of the Pub/Sub messages in it. beside: what else belongs into the transaction.
        """
        with self.transaction() as db:
            ids = array("Q", messages).tobytes()
            acknowledged = None if ids else time.time()
            db.execute("INSERT INTO slices VALUES (?, ?, ?, ?, ?)", (number, records, ids, time.time(), acknowledged))
            for destination, part in parts.items():
                for one in part.segments:
                    path = os.path.relpath(one.path, self.folder)
                    db.execute(
                        "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (one.number, number, destination, path, one.bytes, one.items, one.records),
                    )
                db.execute("UPDATE destinations SET read = read + ? WHERE name = ?", (records, destination))
                self._add(db, destination, part.tally, {number: part.records})
            for (name, destination), place in (places or {}).items():
                db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                    (name, destination, selection, place.print, place.position, place.line),
                )
            if beside is not None:
                beside()
            gone = self._finish(db, [number])
        _remove(*map(self.message_file, gone))  # of which nothing is to be sent

    def delivered(
        self, destination: str, segments: Sequence[Segment], tally: Tally, failed: Mapping[int, Sequence[Failed]]
    ) -> None:
        """Every item of these segments has its outcome. failed: slice -> what was not delivered; its dead letters are
        written."""
        records = {}
        for number, failures in failed.items():
            records[number] = RecordOutcomes()
            records[number].add(failures)
        with self.transaction() as db:
            db.executemany("DELETE FROM segments WHERE id = ?", [(one.number,) for one in segments])
            self._add(db, destination, tally, records)
            gone = self._finish(db, {one.slice for one in segments})
        for one in segments:
            _remove(one.path, f"{one.path}.done")
        _remove(*map(self.message_file, gone))

    def sent(self, destination: str, traffic: Tally) -> None:
        """What was sent of segments that go on waiting: their items' outcomes are in the journals."""
        with self.transaction() as db:
            self._add(db, destination, traffic, {})

    def _add(
        self, db: sqlite3.Connection, destination: str, tally: Tally, records: Mapping[int, RecordOutcomes]
    ) -> None:
        """Adds figures. A record that failed before, with another item, counts once, by its worst outcome."""
        before, rejected, undelivered = db.execute(
            "SELECT tally, rejected, undelivered FROM destinations WHERE name = ?", (destination,)
        ).fetchone()
        for number, outcomes in records.items():
            for (source, position), marks in outcomes.chunks():
                key = (number, destination, source, position)
                found = db.execute(
                    "SELECT marks FROM marks WHERE slice = ? AND destination = ? AND source = ? AND position = ?", key
                ).fetchone()
                old, new = RecordOutcomes(), RecordOutcomes()
                if found:
                    old.merge(source, position, found[0])
                    new.merge(source, position, found[0])
                new.merge(source, position, marks)
                rejected += new.rejected() - old.rejected()
                undelivered += new.undelivered() - old.undelivered()
                merged = bytes(next(new.chunks())[1])
                db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", (*key, merged))
        whole = decode_tally(before)
        whole.add(tally)
        whole.reasons, whole.filtered = most(whole.reasons, REASONS), most(whole.filtered, REASONS)
        db.execute(
            "UPDATE destinations SET tally = ?, rejected = ?, undelivered = ? WHERE name = ?",
            (_encode(whole), rejected, undelivered, destination),
        )

    def _finish(self, db: sqlite3.Connection, slices: Iterable[int]) -> list[int]:
        """Compacts those of the slices for which nothing waits: their figures stay. Returns their numbers."""
        gone = [one for one in slices if not db.execute("SELECT 1 FROM segments WHERE slice = ?", (one,)).fetchone()]
        db.executemany("DELETE FROM marks WHERE slice = ?", [(one,) for one in gone])
        db.executemany("DELETE FROM slices WHERE id = ? AND messages = x''", [(one,) for one in gone])
        _set(db, "last slice", self._next_slice - 1)
        _set(db, "last segment", self._next_segment - 1)
        return gone

    # Messages ----------------------------------------------------------------------------------

    def acknowledged(self, slices: Iterable[int]) -> None:
        """Pub/Sub is told that the messages of these slices are done with. It may give them again for a while, so their
        ids are remembered until they are forgotten."""
        with self.transaction() as db:
            db.executemany("UPDATE slices SET acknowledged_at = ? WHERE id = ?", [(time.time(), one) for one in slices])

    def acknowledged_before(self, at: float) -> list[int]:
        """The slices that were acknowledged before a Unix time."""
        return [row[0] for row in self._rows("SELECT id FROM slices WHERE acknowledged_at < ?", at)]

    def forget(self, slices: Iterable[int]) -> None:
        """Forgets the ids of the messages of these slices."""
        numbers = list(slices)
        with self.transaction() as db:
            db.executemany("UPDATE slices SET messages = x'' WHERE id = ?", [(one,) for one in numbers])
            self._finish(db, numbers)

    # Files -------------------------------------------------------------------------------------

    def read_again(self, files: Mapping[str, str], destinations: Iterable[str]) -> None:
        """Forgets that these files (name -> print) were read for these destinations; until the run comes to its end, once
        for each file as it is: a run that was cut off goes on with it."""
        begun = set(self._rows("SELECT name, value FROM facts WHERE name GLOB ?", f"{_AGAIN}*"))
        with self.transaction() as db:
            for to in destinations:
                for name, print_ in files.items():
                    fact = f"{_AGAIN}{to} {name}"
                    if (fact, print_) not in begun:
                        db.execute("DELETE FROM files WHERE name = ? AND destination = ?", (name, to))
                        _set(db, fact, print_)

    def _sweep(self) -> None:
        """Removes files that no transaction speaks of: what a kill left half made, or did not come to remove."""
        known = {row[0] for row in self._rows("SELECT path FROM segments")}
        slices = {row[0] for row in self._rows("SELECT DISTINCT slice FROM segments")}
        for path in Path(self.folder, "segments").iterdir():
            if f"segments/{path.name.removesuffix('.done')}" not in known:
                path.unlink()
        for path in Path(self.folder, "slices").iterdir():
            if not path.stem.isdigit() or int(path.stem) not in slices:
                path.unlink()


def _set(db: sqlite3.Connection, name: str, value: int | str) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _remove(*paths: str) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _hold(folder: str) -> IO[str]:
    """Takes the folder for this process, until the file is closed or the process ends in whatever way."""
    file = open(os.path.join(folder, "lock"), "a+", encoding="ascii")  # noqa: SIM115  # open as long as it is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        process = file.read().strip() or "unknown"
        file.close()
        raise StateError(
            f"{folder}: in use by process {process}; stop that one, or name another folder with --state"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
