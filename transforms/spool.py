"""The spool: mapped items waiting on disk for their destination, in segments, in order.

Between mapping and delivery on one machine. Each destination takes its segments at its own pace, so a vendor
that is slow or down keeps no other waiting, and memory does not grow with the input. With a ledger, segments are
handed to delivery when their slice is in it, and outlive the process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import apache_beam as beam

from transforms.dead_letter import DeadLetterWriter, Failed
from transforms.disk import sync_folder
from transforms.elements import counts
from transforms.ledger import Ledger
from transforms.ledger_reader import Segment
from transforms.segments import Element, Head, start_of, write_element, write_head
from transforms.tally import Tally

MAX_WAITING = 8 << 30
"""Bytes that may wait on disk for all destinations before reading pauses, in a run without a state folder."""


SEGMENT_COST = 4096
"""Bytes that a segment in hand counts at the least: small ones may wait by the hundred thousand."""

MOST_IN_HAND = 4
"""Times what fits that may be in hand to find a user whose items a parked vendor takes."""


class Waiting(NamedTuple):
    """What waits for a destination."""

    items: int
    bytes: int
    """On disk: of its segments, and of the message files of their slices, which are kept for dead letters."""


class Spool:
    """The segments of one run, by destination."""

    def __init__(
        self,
        segment_bytes: int,
        ledger: Ledger | None = None,
        letters: DeadLetterWriter | None = None,
        folder: str = "",
    ) -> None:
        self.folder = folder
        """Where segments are kept without a ledger, which has a folder of its own."""
        self.segment_bytes = segment_bytes
        """Bytes of packed items a segment, and what delivering holds in memory at a time."""
        self.ledger = ledger
        self.letters = letters
        self._unfinished: dict[int, dict[str, int]] = {}
        """Slice -> destination -> its segments that wait or are being sent."""
        self._message_bytes: dict[int, int] = {}
        """Unfinished slice -> bytes of its message file."""
        self._queues: dict[str, deque[Segment]] = {}
        self._waiting: dict[str, Waiting] = {}
        self._mapped: dict[str, list[Segment]] = {}
        self._closed: set[str] = set()
        self._number = 0
        self._figures: dict[str, Tally] = {}
        self._changed = threading.Condition(threading.RLock())

    # From mapping ------------------------------------------------------------------------------

    @property
    def setting(self) -> str:
        """What says where the segments are."""
        return "TMPDIR" if self.ledger is None else "--state"

    def new_segment(self, destination: str) -> tuple[int, str]:
        """Number and path of a segment that is to be written."""
        if self.ledger is not None:
            return self.ledger.new_segment()
        with self._changed:
            self._number += 1
            return self._number, os.path.join(self.folder, f"{destination}-{self._number}.segment")

    def add(self, destination: str, segments: Sequence[Segment]) -> None:
        """Finished segments. With a ledger they wait for their slice to be in it; else this waits while too much is on
        disk."""
        if self.ledger is not None:
            with self._changed:
                self._mapped.setdefault(destination, []).extend(segments)
            return
        self.release({destination: segments})
        while sum(waiting.bytes for waiting in self._waiting.values()) > MAX_WAITING:
            time.sleep(0.1)

    def mapped(self) -> dict[str, list[Segment]]:
        """The segments of the slice that was just mapped, by destination; the next slice begins with none."""
        with self._changed:
            mapped, self._mapped = self._mapped, {}
        return mapped

    def release(self, segments: Mapping[str, Sequence[Segment]]) -> None:
        """Hands segments to delivery."""
        with self._changed:
            for destination, own in segments.items():
                self._queues.setdefault(destination, deque()).extend(own)
                self._count(destination, own, 1)
            self._changed.notify_all()

    def close(self, destination: str) -> None:
        """No more segments come."""
        with self._changed:
            self._closed.add(destination)
            self._changed.notify_all()

    # To delivery -------------------------------------------------------------------------------

    def take(self, destination: str) -> list[Segment]:
        """A destination's next segments, as many as are there and fit into memory together; none when it is closed."""
        with self._changed:
            queue = self._queues.setdefault(destination, deque())
            while not queue and destination not in self._closed:
                self._changed.wait()
            return self._fitting(queue, [])

    def more(self, destination: str, held: Sequence[Segment], least: int) -> list[Segment]:
        """The next that are there and fit beside those in hand, without waiting; `least` of them even when they do not, as
        long as those in hand are no more than MOST_IN_HAND times what fits."""
        with self._changed:
            if sum(one.bytes for one in held) > MOST_IN_HAND * self.segment_bytes:
                return []
            return self._fitting(self._queues.setdefault(destination, deque()), held, least)

    def _fitting(self, queue: deque[Segment], held: Sequence[Segment], least: int = 1) -> list[Segment]:
        taken: list[Segment] = []
        size = sum(max(one.bytes, SEGMENT_COST) for one in held)
        while queue and (len(taken) < least or size + max(queue[0].bytes, SEGMENT_COST) <= self.segment_bytes):
            size += max(queue[0].bytes, SEGMENT_COST)
            taken.append(queue.popleft())
        return taken

    def finish(
        self, destination: str, segments: Sequence[Segment], tally: Tally, failed: Mapping[int, Sequence[Failed]]
    ) -> None:
        """Every item of these segments has its outcome. failed: slice -> what was not delivered."""
        failures = [failure for own in failed.values() for failure in own]
        if failures and self.letters is not None:
            # First, as segments that are not said to be done are gone through again after a kill.
            self.letters.write(destination, failures, f"{destination}-{segments[0].number}")
        if self.ledger is not None:
            self.ledger.delivered(destination, segments, tally, failed)
        else:
            for segment in segments:
                os.unlink(segment.path)
        self.add_figures(destination, tally)
        with self._changed:
            self._count(destination, segments, -1)
            self._changed.notify_all()

    def sent(self, destination: str, traffic: Tally) -> None:
        """What was sent of segments that go on waiting in the ledger."""
        assert self.ledger is not None
        self.ledger.sent(destination, traffic)
        self.add_figures(destination, traffic)

    def unfinished(self, slice_: int) -> list[str]:
        """The destinations for which items of a slice wait or are being sent."""
        with self._changed:
            return [name for name, count in self._unfinished.get(slice_, {}).items() if count]

    def waiting(self, destination: str) -> Waiting:
        """What waits for a destination, that which is being sent included."""
        with self._changed:
            return self._waiting.get(destination, Waiting(0, 0))

    def figures(self, destination: str) -> Tally:
        """What became of items in this process so far, for displays; reasons are left out."""
        with self._changed:
            return self._figures.get(destination, Tally())

    def add_figures(self, destination: str, tally: Tally) -> None:
        """Adds to `figures`."""
        with self._changed:
            figures = self._figures.setdefault(destination, Tally())
            figures.add(tally)
            figures.reasons.clear()
            figures.filtered.clear()

    def _count(self, destination: str, segments: Sequence[Segment], sign: int) -> None:
        items, size = self._waiting.get(destination, (0, 0))
        items += sign * sum(one.items for one in segments)
        size += sign * sum(one.bytes for one in segments)
        for one in segments:
            by_destination = self._unfinished.setdefault(one.slice, {})
            before = by_destination.get(destination, 0)
            by_destination[destination] = before + sign
            if not before or not by_destination[destination]:  # its first segment, or its last
                size += sign * self._messages_of(one.slice)
            if not any(by_destination.values()):
                del self._unfinished[one.slice]
                self._message_bytes.pop(one.slice, None)
        self._waiting[destination] = Waiting(items, size)

    def _messages_of(self, slice_: int) -> int:
        if slice_ not in self._message_bytes:
            self._message_bytes[slice_] = self.ledger.message_bytes(slice_) if self.ledger is not None else 0
        return self._message_bytes[slice_]


_spools: dict[str, Spool] = {}


def open_spool(
    run: str,
    segment_bytes: int,
    ledger: Ledger | None = None,
    letters: DeadLetterWriter | None = None,
    folder: str = "",
) -> Spool:
    """Makes the spool of a run in this process; WriteSegmentsFn finds it by the run."""
    _spools[run] = Spool(segment_bytes, ledger, letters, folder)
    return _spools[run]


def of(run: str) -> Spool:
    """The spool of a run in this process."""
    return _spools[run]


def forget(run: str) -> None:
    """Drops the spool of a finished run."""
    _spools.pop(run, None)


class _Open:
    """A segment that is being written."""

    __slots__ = ("file", "items", "number", "path", "records", "setting", "size")

    def __init__(self, number: int, path: str, head: Head, setting: str) -> None:
        self.number = number
        self.path = path
        self.setting = setting
        self.file: IO[bytes] = open(path, "wb", 1 << 17)  # noqa: SIM115  # closed when it is handed over
        self.items = self.records = self.size = 0
        write_head(self.file, head)

    def write(self, element: Element) -> None:
        """Adds an element. OSError naming the segment when the disk does not take it."""
        try:
            write_element(self.file, element)
        except OSError as error:
            raise self._named(error) from error
        items, records = counts(element.packed)
        self.items += items
        self.records += records
        self.size += len(element.packed)

    def finish(self, synced: bool) -> None:
        """Ends the segment; `synced`: it is there after a power cut too. OSError as of `write`."""
        try:
            with self.file:
                if synced:
                    self.file.flush()
                    os.fsync(self.file.fileno())
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        """The error with its file, which it does not name when it comes from writing."""
        what = (
            f"{error.strerror}; items wait there for their vendor: make room, or set {self.setting} to another folder"
        )
        return OSError(error.errno, what, self.path)


class WriteSegmentsFn(beam.DoFn):
    """In: (shard, packed items) of one destination, in its window when the destination has windows. Out: nothing.

    head: of the destination's segments. When there are several times as many shards in what comes in, they are written
    in parts: shard n belongs to shard n % shards, and to segments of the part n // shards.
    """

    def __init__(self, run: str, destination: str, head: Head) -> None:
        self.run = run
        self.destination = destination
        self.head = head
        self._open: dict[int, _Open] = {}

    def start_bundle(self) -> None:
        """Begins without a segment."""
        self._open = {}

    def process(self, element: tuple[int, bytes], window: Any = beam.DoFn.WindowParam) -> None:
        """Writes one element."""
        part, shard = divmod(element[0], self.head.shards)
        if part not in self._open:
            spool = _spools[self.run]
            self._open[part] = _Open(*spool.new_segment(self.destination), self.head, spool.setting)
        segment = self._open[part]
        segment.write(Element(start_of(window), shard, element[1]))
        if segment.size >= _spools[self.run].segment_bytes:
            self._hand_over([part])

    def _hand_over(self, parts: Sequence[int]) -> None:
        spool = _spools[self.run]
        synced = spool.ledger is not None  # their slice will be said to be mapped
        finished = []
        for part in parts:
            one = self._open.pop(part)
            one.finish(synced)
            finished.append(Segment(one.number, 0, one.path, one.size, one.items, one.records))
        for folder in {os.path.dirname(one.path) for one in finished if synced}:
            sync_folder(folder)
        spool.add(self.destination, finished)

    def finish_bundle(self) -> None:
        """Hands over what is written, all parts at once, so that how they are sent together does not hang on who was
        faster."""
        self._hand_over(sorted(self._open))

    def teardown(self) -> None:
        """Lets go of segments that were not finished, as the run failed."""
        while self._open:
            with contextlib.suppress(OSError):  # of a full disk, which is what the run failed for
                self._open.popitem()[1].file.close()
