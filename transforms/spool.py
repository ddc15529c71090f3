"""The spool: mapped items waiting on disk for their destination, in segments, in order.

Between mapping and delivery on one machine. Each destination takes its segments at its own pace, so a vendor
that is slow or down keeps no other waiting, and memory does not grow with the input.
"""

from __future__ import annotations

import os
import queue
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow

_HEAD = struct.Struct("<IqI")
"""Shard, window start in microseconds (_NO_WINDOW: none), length of the packed items."""

_NO_WINDOW = -(1 << 63)

MAX_WAITING = 8 << 30
"""Bytes that may wait on disk for all destinations before reading pauses."""


class Spool:
    """The segments of one run, by destination, in a folder."""

    def __init__(self, folder: str, segment_bytes: int) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        """Bytes of packed items a segment: what delivering holds in memory at a time."""
        self._queues: dict[str, queue.SimpleQueue[str | None]] = {}
        self._sizes: dict[str, int] = {}
        self._waiting = 0
        self._lock = threading.Lock()

    def segments(self, destination: str) -> Iterator[str]:
        """A destination's segments as they come, until the destination is closed."""
        waiting = self._queue(destination)
        while (path := waiting.get()) is not None:
            yield path

    def add(self, destination: str, path: str, size: int) -> None:
        """A finished segment; waits while too much is on disk."""
        with self._lock:
            self._waiting += size
            self._sizes[path] = size
        self._queue(destination).put(path)
        while self._waiting > MAX_WAITING:
            time.sleep(0.1)

    def remove(self, path: str) -> None:
        """A segment that was delivered."""
        with self._lock:
            self._waiting -= self._sizes.pop(path, 0)
        os.unlink(path)

    def close(self, destination: str) -> None:
        """No more segments come."""
        self._queue(destination).put(None)

    def _queue(self, destination: str) -> queue.SimpleQueue[str | None]:
        with self._lock:
            return self._queues.setdefault(destination, queue.SimpleQueue())


_spools: dict[str, Spool] = {}


def open_spool(run: str, folder: str, segment_bytes: int) -> Spool:
    """Makes the spool of a run in this process; WriteSegmentsFn finds it by the run."""
    _spools[run] = Spool(folder, segment_bytes)
    return _spools[run]


def of(run: str) -> Spool:
    """The spool of a run in this process."""
    return _spools[run]


def forget(run: str) -> None:
    """Drops the spool of a finished run."""
    _spools.pop(run, None)


class _Open(NamedTuple):
    """A segment that is being written."""

    path: str
    file: IO[bytes]


class WriteSegmentsFn(beam.DoFn):
    """In: (shard, packed items) of one destination, in its window when the destination has windows. Out: nothing.

    `shards`: of the destination. When there are several times as many in what comes in, they are written in parts:
    shard n belongs to shard n % shards, and to segments of the part n // shards.
    """

    def __init__(self, run: str, destination: str, shards: int) -> None:
        self.run = run
        self.destination = destination
        self.shards = shards
        self._open: dict[int, _Open] = {}

    def start_bundle(self) -> None:
        """Begins without a segment."""
        self._open = {}

    def process(self, element: tuple[int, bytes], window: Any = beam.DoFn.WindowParam) -> None:
        """Writes one element."""
        part, shard = divmod(element[0], self.shards)
        packed = element[1]
        if part not in self._open:
            folder = _spools[self.run].folder
            number, path = tempfile.mkstemp(dir=folder, prefix=f"{self.destination}-", suffix=".segment")
            self._open[part] = _Open(path, os.fdopen(number, "wb", 1 << 17))
        file = self._open[part].file
        start = _NO_WINDOW if isinstance(window, GlobalWindow) else window.start.micros
        file.write(_HEAD.pack(shard, start, len(packed)))
        file.write(packed)
        if file.tell() >= _spools[self.run].segment_bytes:
            self._hand_over(part)

    def _hand_over(self, part: int) -> None:
        path, file = self._open.pop(part)
        size = file.tell()
        file.close()
        _spools[self.run].add(self.destination, path, size)

    def finish_bundle(self) -> None:
        """Hands over what is written."""
        for part in sorted(self._open):
            self._hand_over(part)

    def teardown(self) -> None:
        """Lets go of segments that were not finished, as the run failed."""
        while self._open:
            self._open.popitem()[1].file.close()


def gathered(path: str) -> dict[tuple[int, int], list[bytes]]:
    """What was written to a segment, in order: (window start in µs, shard) -> packed items.

    Without windows the start is one and the same number.
    """
    groups: dict[tuple[int, int], list[bytes]] = {}
    with open(path, "rb") as file:
        while head := file.read(_HEAD.size):
            shard, start, length = _HEAD.unpack(head)
            groups.setdefault((start, shard), []).append(file.read(length))
    return groups
