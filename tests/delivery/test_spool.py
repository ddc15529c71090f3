"""The spool: what is written comes back as it was, in segments of bounded size, and waits without growing."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms import spool
from transforms.spool import Spool, WriteSegmentsFn, gathered

SHARDS = 5


@pytest.fixture
def run(tmp_path: Path) -> Iterator[str]:
    name = uuid.uuid4().hex
    spool.open_spool(name, str(tmp_path), 1000)
    yield name
    spool.forget(name)


def write(run: str, destination: str, elements: list[Any], windows: FixedWindows | None = None) -> list[str]:
    """Paths of the segments that elements became."""
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        items = pipeline | beam.Create(elements)
        if windows is not None:
            items |= beam.WindowInto(windows)
        items | beam.ParDo(WriteSegmentsFn(run, destination, SHARDS))
    opened = spool.of(run)
    opened.close(destination)
    return list(opened.segments(destination))


def items_of(paths: list[str]) -> list[bytes]:
    return [packed for path in paths for group in gathered(path).values() for packed in group]


def test_shards_beyond_the_destinations_are_parts_with_segments_of_their_own(run: str) -> None:
    elements = [(n, b"%d" % n) for n in range(3 * SHARDS)]
    segments = [gathered(path) for path in write(run, "teak", elements)]
    assert [{shard: packed for (_, shard), packed in groups.items()} for groups in segments] == [
        {shard: [b"%d" % (part * SHARDS + shard)] for shard in range(SHARDS)} for part in range(3)
    ]


def test_a_segment_is_gathered_by_shard_each_in_order(run: str) -> None:
    elements = [(n % 5, b"%d" % n * (n % 300)) for n in range(200)]
    back: dict[int, list[bytes]] = {}
    for path in write(run, "teak", elements):
        for (_, shard), packed in gathered(path).items():
            back.setdefault(shard, []).extend(packed)
    assert back == {shard: [packed for own, packed in elements if own == shard] for shard in range(5)}


@pytest.mark.parametrize("start_ms", [0, 1, -1, -60_000, 1_700_000_000_100, 1_700_000_000_007, 253_402_300_799_999])
def test_a_windows_start_comes_back_exactly(run: str, start_ms: int) -> None:
    start = Timestamp(micros=start_ms * 1000)
    (path,) = write(run, "teak", [TimestampedValue((3, b"items"), start)], FixedWindows(Duration(micros=1000)))
    assert gathered(path) == {(start_ms * 1000, 3): [b"items"]}


def test_windows_of_a_shard_stay_apart(run: str) -> None:
    elements = [TimestampedValue((n % 2, b"%d" % n), Timestamp(micros=n * 1000)) for n in range(8)]
    (path,) = write(run, "teak", elements, FixedWindows(Duration(micros=4000)))
    assert gathered(path) == {
        (0, 0): [b"0", b"2"],
        (0, 1): [b"1", b"3"],
        (4000, 0): [b"4", b"6"],
        (4000, 1): [b"5", b"7"],
    }


def test_segments_end_at_their_size(run: str) -> None:
    elements = [(0, b"x" * 300) for _ in range(10)]
    assert [len(items_of([path])) for path in write(run, "teak", elements)] == [4, 4, 2]


def test_an_element_larger_than_a_segment_travels_whole(run: str) -> None:
    big = os.urandom(1 << 20)
    paths = write(run, "teak", [(1, b"small"), (2, big), (3, b"small")])
    assert items_of(paths) == [b"small", big, b"small"]
    assert len(paths) == 2


def test_destinations_have_their_own_segments(run: str) -> None:
    first = write(run, "teak", [(0, b"t")])
    second = write(run, "swrve", [(0, b"s")])
    assert items_of(first) == [b"t"]
    assert items_of(second) == [b"s"]


def test_nothing_written_is_no_segment(run: str, tmp_path: Path) -> None:
    assert write(run, "teak", []) == []
    assert list(tmp_path.iterdir()) == []


def test_segments_are_handed_over_while_more_are_written(tmp_path: Path) -> None:
    opened = Spool(str(tmp_path), 10)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.extend(opened.segments("teak")))
    reader.start()
    for name in "abc":
        opened.add("teak", name, 1)
    opened.close("teak")
    reader.join(5)
    assert got == ["a", "b", "c"]


def test_writing_waits_while_too_much_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_WAITING", 100)
    opened = Spool(str(tmp_path), 10)
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(b"")
    opened.add("teak", str(tmp_path / "first"), 90)
    writer = threading.Thread(target=opened.add, args=("teak", str(tmp_path / "second"), 90))
    writer.start()
    time.sleep(0.2)
    assert writer.is_alive()
    opened.remove(str(tmp_path / "first"))
    writer.join(5)
    assert not writer.is_alive()
    assert not (tmp_path / "first").exists()
