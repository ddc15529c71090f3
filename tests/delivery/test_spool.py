"""The spool: what is written comes back as it was, in segments of bounded size, and waits without growing."""

from __future__ import annotations

import os
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from pipelines.explain import explained
from transforms import spool
from transforms.elements import pack_items, unpack_items
from transforms.ledger_reader import Segment, StateError
from transforms.segments import NO_WINDOW, Element, Head, SegmentGone, read_segment, shard_again, translation
from transforms.spool import Spool, WriteSegmentsFn
from transforms.tally import Tally

SHARDS = 5
HEAD = Head(["event"], ["teak/event"], SHARDS)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[str]:
    name = uuid.uuid4().hex
    spool.open_spool(name, 1000, folder=str(tmp_path))
    yield name
    spool.forget(name)


def packed(text: bytes) -> bytes:
    """An element of one item."""
    return pack_items("f", [(text, 0, "u", 0, 0)])


def write(run: str, destination: str, elements: list[Any], windows: FixedWindows | None = None) -> list[Segment]:
    """The segments that (shard, payload) pairs became."""
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        items = pipeline | beam.Create(elements) | beam.Map(lambda pair: (pair[0], packed(pair[1])))
        if windows is not None:
            items |= beam.WindowInto(windows)
        items | beam.ParDo(WriteSegmentsFn(run, destination, HEAD))
    opened = spool.of(run)
    opened.close(destination)
    taken = []
    while segments := opened.take(destination):
        taken += segments
    return taken


def gathered(segment: Segment) -> dict[tuple[int, int], list[bytes]]:
    """(window's start, shard) -> payloads."""
    head, elements = read_segment(segment.path)
    assert head == HEAD
    groups: dict[tuple[int, int], list[bytes]] = {}
    for start, shard, data in elements:
        groups.setdefault((start, shard), []).extend(item[0] for item in unpack_items(data)[1])
    return groups


def payloads(segments: list[Segment]) -> list[bytes]:
    return [payload for segment in segments for group in gathered(segment).values() for payload in group]


def test_shards_beyond_the_destinations_are_parts_with_segments_of_their_own(run: str) -> None:
    elements = [(n, b"%d" % n) for n in range(3 * SHARDS)]
    segments = write(run, "teak", elements)
    assert [{shard: held for (_, shard), held in gathered(segment).items()} for segment in segments] == [
        {shard: [b"%d" % (part * SHARDS + shard)] for shard in range(SHARDS)} for part in range(3)
    ]
    assert [(one.items, one.records) for one in segments] == [(SHARDS, SHARDS)] * 3


def test_a_segment_is_gathered_by_shard_each_in_order(run: str) -> None:
    elements = [(n % 5, b"%d" % n * (n % 300)) for n in range(200)]
    back: dict[int, list[bytes]] = {}
    for segment in write(run, "teak", elements):
        for (_, shard), held in gathered(segment).items():
            back.setdefault(shard, []).extend(held)
    assert back == {shard: [payload for own, payload in elements if own == shard] for shard in range(5)}


@pytest.mark.parametrize("start_ms", [0, 1, -1, -60_000, 1_700_000_000_100, 1_700_000_000_007, 253_402_300_799_999])
def test_a_windows_start_comes_back_exactly(run: str, start_ms: int) -> None:
    start = Timestamp(micros=start_ms * 1000)
    (segment,) = write(run, "teak", [TimestampedValue((3, b"items"), start)], FixedWindows(Duration(micros=1000)))
    assert gathered(segment) == {(start_ms * 1000, 3): [b"items"]}


def test_windows_of_a_shard_stay_apart(run: str) -> None:
    elements = [TimestampedValue((n % 2, b"%d" % n), Timestamp(micros=n * 1000)) for n in range(8)]
    (segment,) = write(run, "teak", elements, FixedWindows(Duration(micros=4000)))
    assert gathered(segment) == {
        (0, 0): [b"0", b"2"],
        (0, 1): [b"1", b"3"],
        (4000, 0): [b"4", b"6"],
        (4000, 1): [b"5", b"7"],
    }


def test_segments_end_at_their_size(run: str) -> None:
    elements = [(0, b"x" * 300) for _ in range(10)]
    assert [len(payloads([segment])) for segment in write(run, "teak", elements)] == [4, 4, 2]


def test_an_element_larger_than_a_segment_travels_whole(run: str) -> None:
    big = os.urandom(1 << 20)
    segments = write(run, "teak", [(1, b"small"), (2, big), (3, b"small")])
    assert payloads(segments) == [b"small", big, b"small"]
    assert len(segments) == 2


def test_destinations_have_their_own_segments(run: str) -> None:
    first = write(run, "teak", [(0, b"t")])
    second = write(run, "swrve", [(0, b"s")])
    assert payloads(first) == [b"t"]
    assert payloads(second) == [b"s"]


def test_nothing_written_is_no_segment(run: str, tmp_path: Path) -> None:
    assert write(run, "teak", []) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: whole[:-3], "is cut off"),
        (lambda whole: whole[:-20], "is cut off"),
        (lambda whole: whole[:-1] + b"?", "is damaged"),
        (lambda whole: whole[:6], "is damaged"),
        (lambda whole: whole[:9] + b"\xff" + whole[10:], "is damaged"),
        (lambda whole: b"something else", "is no segment"),
    ],
)
def test_a_segment_that_is_not_as_it_was_written_is_told(damage: Callable[[bytes], bytes], said: str, run: str) -> None:
    (segment,) = write(run, "teak", [(0, b"payload")])
    path = Path(segment.path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StateError, match=f"{path}: {said}; items wait there for their vendor: put the file back"):
        list(read_segment(segment.path)[1])


def test_a_segment_that_is_gone_is_told(run: str) -> None:
    (segment,) = write(run, "teak", [(0, b"payload")])
    Path(segment.path).unlink()
    with pytest.raises(SegmentGone, match="is gone; items wait there"):
        read_segment(segment.path)


def test_items_under_another_number_of_shards() -> None:
    items = [(b"%d" % n, 0, f"u{n}", n, n) for n in range(100)]
    again = list(shard_again(iter([Element(NO_WINDOW, 3, pack_items("f", items))]), 7))
    assert sorted(item for one in again for item in unpack_items(one.packed)[1]) == sorted(items)
    for one in again:
        assert {zlib.crc32(item[2].encode()) % 7 for item in unpack_items(one.packed)[1]} == {one.shard}


def test_models_of_a_segment_that_the_destination_has_no_longer() -> None:
    head = Head(["event", "user", "iap"], ["swrve/event", "swrve/user", "swrve/iap"], 16)
    schemas = {"user": "swrve/user", "event": "swrve/single_event"}
    assert translation(head, ("user", "event"), schemas) == [None, 0, None]


def named(name: str, size: int) -> Segment:
    return Segment(1, 0, name, size, 1, 1)


def test_segments_are_handed_over_while_more_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_COST", 1)
    opened = Spool(2)
    got: list[list[str]] = []

    def read() -> None:
        while taken := opened.take("teak"):
            got.append([one.path for one in taken])

    for name in "abc":
        opened.add("teak", [named(name, 1)])
    reader = threading.Thread(target=read)
    reader.start()
    opened.add("teak", [named("d", 5)])
    opened.close("teak")
    reader.join(5)
    # As many at a time as fit into memory together; one that is larger comes alone.
    assert got[0] == ["a", "b"]
    assert [name for names in got for name in names] == ["a", "b", "c", "d"]


def test_small_segments_are_taken_in_bounds_and_more_only_when_they_must(tmp_path: Path) -> None:
    opened = Spool(10 * spool.SEGMENT_COST)
    opened.add("teak", [named(f"{number:02}", 1) for number in range(30)])
    held = opened.take("teak")
    assert len(held) == 10
    assert opened.more("teak", held, 0) == []
    assert [one.path for one in opened.more("teak", held, 1)] == ["10"]
    assert len(opened.more("teak", held[:6], 0)) == 4


def test_a_user_whose_items_are_taken_is_not_looked_for_in_all_that_waits(tmp_path: Path) -> None:
    size = 4 * spool.SEGMENT_COST
    opened = Spool(size)
    opened.add("teak", [named(f"{number:02}", 1)._replace(bytes=size) for number in range(30)])
    held = opened.take("teak")
    while more := opened.more("teak", held, 1):
        held += more
    assert len(held) == 1 + spool.MOST_IN_HAND


def test_writing_waits_while_too_much_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_WAITING", 100)
    opened = Spool(10)
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(b"")
    first = named(str(tmp_path / "first"), 90)
    opened.add("teak", [first])
    writer = threading.Thread(target=opened.add, args=("teak", [named(str(tmp_path / "second"), 90)]))
    writer.start()
    time.sleep(0.2)
    assert writer.is_alive()
    opened.finish("teak", [first], Tally(), {})
    writer.join(5)
    assert not writer.is_alive()
    assert not (tmp_path / "first").exists()


def test_a_full_disk_is_told_with_the_segment(run: str, tmp_path: Path) -> None:
    (tmp_path / "teak-1.segment").symlink_to("/dev/full")
    with pytest.raises(RuntimeError) as caught:  # Beam's
        write(run, "teak", [(0, b"x" * 400)])
    assert explained(caught.value) == [
        f"{tmp_path}/teak-1.segment: No space left on device; items wait there for their vendor: make room, or set TMPDIR"
        " to another folder"
    ]
