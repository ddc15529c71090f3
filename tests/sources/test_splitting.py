"""Wherever a file is split, each record is read once; whatever the block size, the chunks are the same records."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import FORMATS, avro, decoded, delimited, events, file_of, in_order, json_lines, whole

from transforms.elements import MAX_CHUNK_RECORDS, Chunk
from transforms.originals import originals
from transforms.read import Layout, Part, split_file
from transforms.sources import delimited as csv_source
from transforms.sources import json_values, lines
from transforms.sources.files import Stream
from transforms.sources.records import raw_records

RECORDS = events(60)
TEXT = b'\xef\xbb\xbf{"a":1}\r\n\r\n{"b": "\xc3\xa4"}\n   \n{"c":[1,\r2]}\n\n{"d":4}'


def cut(chunks: Callable[..., Iterator[Chunk]], path: Path, **settings: int) -> list[Chunk]:
    with closing(Stream(str(path))) as stream:
        return list(chunks(stream, **settings))


def texts(chunks: list[Chunk]) -> list[bytes]:
    return [raw.text for chunk in chunks for raw in raw_records(chunk)]


def test_lines_split_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(TEXT)
    expected = texts(whole(path))
    assert len(expected) == 4
    for cut in range(1, len(TEXT)):
        for second in range(cut, len(TEXT), 3):
            parts = [Part(str(path), 0, cut), Part(str(path), cut, second), Part(str(path), second, None)]
            assert texts(list(in_order([part for part in parts if part.start != part.stop], Layout()))) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4000), max_size=6, unique=True))
def test_avro_split_anywhere(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("split") / "events.avro"
    path.write_bytes(avro(RECORDS, interval=400))
    edges = [0, *sorted(cuts), None]
    parts = [Part(str(path), start or 0, stop) for start, stop in itertools.pairwise(edges)]
    found = decoded(list(in_order(parts, Layout())))
    assert [record.event_id for record in found.records] == [f"e{i}" for i in range(60)]
    assert len(set(found.indexes or ())) == 60


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [300, 2000])
def test_files_are_split_safely(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name](RECORDS))
    parts = split_file(file_of(path), Layout(), size)
    found = decoded(list(in_order(parts, Layout())))
    assert found.undecodable == []
    assert [record.event_id for record in found.records] == [f"e{i}" for i in range(60)]
    assert found.indexes is not None
    again = originals(str(path), found.indexes, Layout())
    assert all(f"e{i}".encode() in (again[ref].text or b"") for i, ref in enumerate(found.indexes))
    splittable = name in ("lines.jsonl", "commas.csv", "tabs.tsv", "container.avro")
    # CSV is cut where a block that was read ends, and this file is but one block.
    assert (len(parts) > 1) == (splittable and not name.endswith("sv"))


def test_large_csv_is_split_between_rows(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    content = delimited(RECORDS)
    head, _, rows = content.partition(b"\n")
    path.write_bytes(head + b"\n" + rows * 900)
    parts = split_file(file_of(path), Layout(), 1 << 20)
    assert len(parts) > 2
    found = decoded(list(in_order(parts, Layout())))
    assert len(found.records) == 60 * 900
    assert found.undecodable == []


def test_compressed_files_are_read_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"  # the name does not say it
    path.write_bytes(gzip.compress(json_lines(RECORDS)))
    assert split_file(file_of(path), Layout(), 100) == [Part(str(path), 0, None)]


CSV_BITS = [b'"', b",", b"\n", b"a", b" ", b'""', b"\n\n", b'"x"', b"\r\n"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CSV_BITS), max_size=60), st.integers(1, 20))
def test_any_csv_is_cut_between_rows(tmp_path_factory: pytest.TempPathFactory, bits: list[bytes], block: int) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    path.write_bytes(b"h,i\n" + b"".join(bits))
    big = cut(csv_source.chunks, path)
    small = cut(csv_source.chunks, path, block=block)
    assert texts(small) == texts(big)
    assert b"".join(chunk.payload[len(b",h,i\n") :] for chunk in small) == b"".join(bits)


ARRAY_BITS = [b'{"a":', b"}", b"[", b"]", b",", b" ", b"\n", b'"', b'"x"', b"1", b'{"a":1}', b"\\", b"nul"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*ARRAY_BITS, b'{"a":[{}]},']), max_size=50), st.integers(1, 20))
def test_any_array_is_cut_between_elements(
    tmp_path_factory: pytest.TempPathFactory, bits: list[bytes], block: int
) -> None:
    path = tmp_path_factory.mktemp("array") / "events.json"
    path.write_bytes(b"[" + b"".join(bits))
    big = cut(json_values.chunks, path)
    small = cut(json_values.chunks, path, block=block)
    assert [(raw.text, raw.offset, raw.line) for chunk in small for raw in raw_records(chunk)] == [
        (raw.text, raw.offset, raw.line) for chunk in big for raw in raw_records(chunk)
    ]


ROWS = [b"", b" ", b'{"a":1}', b"x" * 30, b"\r"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ROWS), max_size=30), st.integers(1, 40), st.integers(5, 60))
def test_any_block_size_gives_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], block: int, limit: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    path.write_bytes(b"\n".join(rows))
    big = cut(lines.chunks, path, max_record=limit)
    small = cut(lines.chunks, path, max_record=limit, block=block)
    found = [(raw.text, raw.offset, raw.line, raw.problem) for chunk in small for raw in raw_records(chunk)]
    assert found == [(raw.text, raw.offset, raw.line, raw.problem) for chunk in big for raw in raw_records(chunk)]
    assert len(found) == sum(bool(row.strip()) for row in rows)


def test_a_chunk_of_the_shortest_records_has_fewer_than_its_references_can_name(tmp_path: Path) -> None:
    for name, content in {"a.jsonl": b"1\n" * (3 << 19), "a.json": b"[" + b"1," * (3 << 19) + b"1]"}.items():
        path = tmp_path / name
        path.write_bytes(content)
        counts = [chunk.payload.count(b"1") for chunk in whole(path)]
        assert sum(counts) >= 3 << 19
        assert max(counts) < MAX_CHUNK_RECORDS
