"""The floor: the least work that relays events to one vendor on Beam's local runner.

It decodes to typed structs, maps to Teak's event, groups by 16 user shards, batches, and posts over libcurl. It checks
nothing, accounts for nothing, retries nothing and keeps everything in memory. It is the yardstick of the table, no design.

    python -m benchmarks.floor EVENTS URL MODE

MODE `bundle`: batches of 100 as they come, without grouping. `shuffle`: grouped by shard, batches of 100.
`user`: grouped by shard, a batch a user (100 at the most).
"""

from __future__ import annotations

import io
import resource
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import msgspec
import pycurl
from apache_beam.io.filebasedsource import FileBasedSource
from apache_beam.io.iobase import Read
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

SHARDS = 16
BATCH = 100
CONNECTIONS = 32
BLOCK = 1 << 20


class EventData(msgspec.Struct, gc=False):
    """What the mapping needs of `event_data`, and what else the events have."""

    level: int | None = None
    score: int | None = None
    duration_s: float | None = None
    currency: str | None = None
    amount: int | None = None
    item_id: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event of make_events."""

    event_id: str
    event_type: str
    event_timestamp: int
    user_id: str
    session_id: str
    app_version: str | None = None
    platform: str | None = None
    country: str | None = None
    event_data: EventData | None = None


class TeakEvent(msgspec.Struct, gc=False, omit_defaults=True):
    """Teak's event."""

    user_id: str
    action_type: str
    object_type: str | None = None
    object_instance_id: str | None = None
    event_count: int | None = None
    value: float | None = None
    sum_of_squares: float | None = None
    country_code: str | None = None


def teak_event(event: Event) -> TeakEvent:
    """The mapping, as straight as it gets."""
    data = event.event_data
    if data is None:
        return TeakEvent(event.user_id, event.event_type, None, None, 1, None, None, event.country)
    value = data.amount
    square = None if value is None else value * value
    return TeakEvent(event.user_id, event.event_type, data.currency, data.item_id, 1, value, square, event.country)


class Blocks(FileBasedSource):
    """Whole lines in blocks of about 1 MiB."""

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern, min_bundle_size=16 << 20)

    def read_records(self, file_name: str, range_tracker: Any) -> Iterator[bytes]:
        """The blocks of a range."""
        start, stop = range_tracker.start_position(), range_tracker.stop_position()
        range_tracker.set_split_points_unclaimed_callback(lambda *_: 1)
        with self.open_file(file_name) as file:
            position = 0
            if start:
                file.seek(start - 1)
                position = start - 1 + len(file.readline())
            while range_tracker.try_claim(position):
                endless = stop is None or stop == float("inf")
                block = file.read(BLOCK if endless else min(BLOCK, max(stop - position, 1)))
                if not block:
                    return
                if not block.endswith(b"\n"):
                    block += file.readline()
                position += len(block)
                yield block


class MapFn(beam.DoFn):
    """In: block. Out: (shard, payloads), or (shard, [(user, payload)]) with `users`."""

    def __init__(self, users: bool) -> None:
        self.users = users

    def setup(self) -> None:
        """Makes the codecs."""
        self.decode = msgspec.json.Decoder(Event).decode_lines
        self.encode = msgspec.json.Encoder().encode

    def process(self, block: bytes) -> Iterator[tuple[int, list[Any]]]:
        """Maps a block."""
        shards: list[list[Any]] = [[] for _ in range(SHARDS)]
        encode, crc = self.encode, zlib.crc32
        if self.users:
            for event in self.decode(block):
                shards[crc(event.user_id.encode()) % SHARDS].append((event.user_id, encode(teak_event(event))))
        else:
            for event in self.decode(block):
                shards[crc(event.user_id.encode()) % SHARDS].append(encode(teak_event(event)))
        for number, payloads in enumerate(shards):
            if payloads:
                yield number, payloads


def body(payloads: list[bytes]) -> bytes:
    """Body of a request."""
    return b'{"game_id":"teak-app","secret_key":"k-teak","events":[' + b",".join(payloads) + b"]}"


class PackFn(beam.DoFn):
    """In: (shard, payloads), or (shard, lists of payloads) once grouped. Out: body."""

    def process(self, shard: tuple[int, Any]) -> Iterator[bytes]:
        """Cuts into batches."""
        lists = shard[1]
        held: list[bytes] = []
        for payloads in lists if isinstance(lists[0], list) else [lists]:
            held.extend(payloads)
            while len(held) >= BATCH:
                yield body(held[:BATCH])
                del held[:BATCH]
        if held:
            yield body(held)


class PackByUserFn(beam.DoFn):
    """In: (shard, lists of (user, payload)). Out: body."""

    def process(self, shard: tuple[int, Iterable[list[tuple[str, bytes]]]]) -> Iterator[bytes]:
        """Cuts into batches of one user each."""
        users: dict[str, list[bytes]] = {}
        for pairs in shard[1]:
            for user, payload in pairs:
                users.setdefault(user, []).append(payload)
        for payloads in users.values():
            for start in range(0, len(payloads), BATCH):
                yield body(payloads[start : start + BATCH])


class PostFn(beam.DoFn):
    """In: body. Out: nothing."""

    def __init__(self, url: str) -> None:
        self.url = url

    def setup(self) -> None:
        """Makes the connections' handles."""
        self.multi = pycurl.CurlMulti()
        self.busy = 0
        self.idle = []
        for _ in range(CONNECTIONS):
            handle = pycurl.Curl()
            handle.setopt(pycurl.URL, self.url)
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.TIMEOUT_MS, 30_000)
            handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
            self.idle.append(handle)

    def process(self, payload: bytes) -> None:
        """Starts a request, waiting for a free handle."""
        while not self.idle:
            self.reap()
            if not self.idle:
                self.multi.select(0.1)
        handle = self.idle.pop()
        handle.setopt(pycurl.POSTFIELDS, payload)
        handle.setopt(pycurl.WRITEFUNCTION, io.BytesIO().write)
        self.multi.add_handle(handle)
        self.busy += 1
        self.multi.perform()

    def finish_bundle(self) -> None:
        """Waits for all answers."""
        while self.busy:
            self.reap()
            if self.busy:
                self.multi.select(0.1)

    def reap(self) -> None:
        """Takes finished requests."""
        self.multi.perform()
        left = 1
        while left:
            left, done, failed = self.multi.info_read()
            for handle in done:
                assert handle.getinfo(pycurl.RESPONSE_CODE) == 200
                self.multi.remove_handle(handle)
                self.idle.append(handle)
                self.busy -= 1
            if failed:
                raise RuntimeError(failed)


def main(path: str, url: str, mode: str) -> None:
    """Runs the floor and prints what it took, without Python's start and imports."""
    start, cpu = time.perf_counter(), time.process_time()
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        shards = pipeline | Read(Blocks(path)) | beam.ParDo(MapFn(mode == "user"))
        if mode != "bundle":
            shards |= beam.GroupByKey()
        batches = shards | beam.ParDo(PackByUserFn() if mode == "user" else PackFn())
        batches | beam.ParDo(PostFn(url))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{mode}: {time.perf_counter() - start:.2f} s, {time.process_time() - cpu:.2f} s CPU, {peak} MB at the peak")


if __name__ == "__main__":
    main(*sys.argv[1:4])
