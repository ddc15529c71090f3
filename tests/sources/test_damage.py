"""What is damaged, too long or no record becomes a dead letter; everything around it is read."""

from __future__ import annotations

import bz2
import gzip
import random
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import COMPRESSIONS, EVENT, FORMATS, avro, decoded, delimited, events, json_array, json_lines, whole

from schemas import SchemaError, parse
from transforms.decode import Decoder
from transforms.elements import Chunk, split_ref
from transforms.originals import GONE, originals
from transforms.read import Layout, check_schemas

RECORDS = events(3000)
GOOD = json_lines(RECORDS[1:2])


def ids(path: Path, layout: Layout | None = None) -> list[str]:
    return [record.event_id for record in decoded(whole(path, layout)).records]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"event_type":"login"}', "event_timestamp: required, but absent"),
        (b'{"event_type":"login","event_timestamp":"now"}', "event_timestamp: expected whole number, got text"),
        (b'{"event_type":"login","event_timestamp":1.5}', "event_timestamp: expected whole number, got number"),
        (
            b'{"event_type":"login","event_timestamp":1,"event_data":{"level":"x"}}',
            "event_data.level: expected whole number or null, got text",
        ),
        (b'{"event_type":null,"event_timestamp":1}', "event_type: required, but empty"),
        (b"[]", "the record: expected object, got array"),
        (b"nonsense", "not JSON: invalid character (byte 4)"),
        (b'{"event_type":"login"', "not JSON: it ends inside a value"),
        (b'{"event_type":"login","event_timestamp":1}{}', "not JSON: trailing characters (byte 43)"),
        (
            b'{"event_type":"login","event_timestamp":1,"unknown":"\xff"}',
            "not UTF-8: byte 0xff at byte 53 of the record",
        ),
        (b'{"event_type":"login","event_timestamp":1,"x":' + b"[" * 9999 + b"]" * 9999 + b"}", "nested too deeply"),
    ],
)
def test_one_bad_line(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(GOOD + b"\n \r\n" + line + b"\r\n" + GOOD)
    found = decoded(whole(path))
    assert len(found.records) == 2
    (bad,) = found.undecodable
    assert (bad.reason, bad.line, bad.offset, bad.original) == (reason, 4, len(GOOD) + 4, line)
    assert split_ref(bad.ref) == (0, 1)
    assert [split_ref(ref)[1] for ref in found.indexes or ()] == [0, 2]
    assert originals(str(path), [bad.ref], Layout())[bad.ref][:2] == (line, 4)


def test_values_that_do_not_stand_one_on_a_line() -> None:
    schema = parse({"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]})
    decoder = Decoder(schema)
    # Three values on three lines, but not one on each: JSON itself would not mind.
    found = decoder.decode(Chunk("f", 0, 1, "json", b'{"a":1} {"a":2}\n{"a":\n3}\n'))
    assert (found.records, len(found.undecodable)) == ([], 3)
    for payload in (
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\r\n{"a":2}\r\n',
        b'\n{"a":1} \n\n{"a":2}',
        b'{"a":1}\n{"a":2}\n\x0b\n',
    ):
        found = decoder.decode(Chunk("f", 0, 1, "json", payload))
        assert ([record.a for record in found.records], found.undecodable) == ([1, 2], [])
    assert decoder.decode(Chunk("f", 0, 1, "json", b"")).records == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"login,1", "2 fields, the header has 5"),
        (b"login,1,2,3,4,5", "6 fields, the header has 5"),
        (b",1,,,", "event_type: required, but empty"),
        (b"login,soon,,,", "event_timestamp: expected whole number, got text"),
        (b"login,1_0,,,", "event_timestamp: expected whole number, got text"),
        (b"login,1,nan,,", "nan is no finite number"),
        (b"login,1,,{,", "not JSON: it ends inside a value"),
        (b"login,1,,,\xff", "not UTF-8: byte 0xff at byte 10 of the record"),
        (b"lo\rgin,1,,,", "new-line character seen in unquoted field - do you need to open the file with newline=''?"),
    ],
)
def test_one_bad_row(tmp_path: Path, row: bytes, reason: str) -> None:
    header = b"event_type,event_timestamp,event_data.duration_s,params,user_id\n"
    good = b'"log\n""in",1,2.5,"{""a"":[1]}",7\n'
    path = tmp_path / "events.csv"
    path.write_bytes(header + good + b"\n" + row + b"\n" + good)
    found = decoded(whole(path))
    assert [record.event_type for record in found.records] == ['log\n"in'] * 2
    assert found.records[0].params == {"a": [1]}
    assert found.records[0].user_id == "7"
    (bad,) = found.undecodable
    assert (bad.reason.split(" - do")[0], bad.line, bad.original) == (reason.split(" - do")[0], 5, row)
    assert bad.offset == len(header + good) + 1
    assert originals(str(path), [bad.ref], Layout())[bad.ref][:2] == (row, 5)


def test_a_row_of_nothing_but_quotes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(b'event_type,event_timestamp\n  "\r \nlogin,1\n')
    found = decoded(whole(path))
    assert [record.event_type for record in found.records] == ["login"]
    assert found.undecodable[0].original == b'  "\r '


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"event_type,event_type,event_timestamp", "the header names a column twice: event_type"),
        (b"event_type,event_timestamp,event_data,event_data.level", "the header has event_data and columns inside it"),
        (b"event_type,\xff", "the header is not readable"),
        (b"event_type,user_id", "event_timestamp: required, but absent"),
    ],
)
def test_a_header_that_says_too_little_or_too_much(tmp_path: Path, header: bytes, reason: str) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(header + b"\n" + b",".join([b"1"] * (header.count(b",") + 1)) + b"\n")
    found = decoded(whole(path))
    assert found.records == []
    assert found.undecodable[0].reason.startswith(reason)


def test_map_columns_and_empty_texts(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(b"event_type,event_timestamp,params.mode,params.note,other,event_data.level\nlogin,1,pvp,,x,\n")
    (record,) = decoded(whole(path)).records
    assert record.params == {"mode": "pvp"}
    assert record.event_data is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.json.gz", "a.csv.gz"])
@pytest.mark.parametrize("limit", [3000, 10 << 20])
def test_a_record_too_long(tmp_path: Path, name: str, limit: int) -> None:
    long = dict(RECORDS[1], user_id="ä" * limit)
    write = {"jsonl": json_lines, "json": json_array, "csv": delimited}[name.split(".")[1]]
    content = write([*RECORDS[:500], long, *RECORDS[500:1000]])
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    layout = Layout(max_record=limit)
    tracemalloc.start()
    chunks = whole(path, layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = decoded(chunks)
    assert [record.event_id for record in found.records] == [f"e{i}" for i in range(1000)]
    (bad,) = found.undecodable
    assert bad.reason.startswith(f"{path}, byte {bad.offset:,}: the record has ")
    assert bad.reason.endswith(f"more than max_record ({limit:,})")
    assert len(bad.original) == min(64 << 10, int(bad.reason.split(" bytes,")[0].split()[-1].replace(",", "")))
    assert content[bad.offset : bad.offset + len(bad.original)] == bad.original
    assert bad.line == content.count(b"\n", 0, bad.offset) + 1
    assert peak < 4 * limit + (8 << 20)
    after = next(
        ref for ref, record in zip(found.indexes or (), found.records, strict=True) if record.event_id == "e700"
    )
    text, line = originals(str(path), [bad.ref, after], layout)[after][:2]
    assert text is not None
    assert b"e700" in text
    assert line == content.count(b"\n", 0, content.index(text)) + 1


def test_an_endless_line_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(GOOD)
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + GOOD)
    tracemalloc.start()
    found = decoded(whole(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(found.records), len(found.undecodable)) == (2, 1)
    assert peak < 50 << 20


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.avro"])
def test_a_file_cut_off(tmp_path: Path, name: str, ending: str) -> None:
    stored = COMPRESSIONS[ending](_written(name))
    path = tmp_path / (name + ending)
    path.write_bytes(stored[: len(stored) * 2 // 3])
    found = decoded(whole(path))
    count = len(found.records)
    assert [record.event_id for record in found.records] == [f"e{i}" for i in range(count)]
    # bzip2 has blocks of 100 kB, and gives nothing of one that is not whole.
    assert (0 if ending == ".bz2" else 500) <= count < 3000
    (bad,) = found.undecodable
    assert "cut off" in bad.reason
    assert str(path) in bad.reason


def _written(name: str) -> bytes:
    ending = name.split(".")[1]
    return {"jsonl": json_lines, "json": json_array, "csv": delimited, "avro": avro}[ending](RECORDS)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path, ending: str) -> None:
    rest = random.Random(1).randbytes(200)
    stored = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}[ending](GOOD * 9)
    path = tmp_path / f"events.jsonl{ending}"
    path.write_bytes(stored + stored + rest)
    found = decoded(whole(path))
    assert len(found.records) == 18  # nothing that a decompressor had made is lost
    (bad,) = found.undecodable
    assert bad.offset == 18 * len(GOOD)
    broken = bytearray(COMPRESSIONS[ending](json_lines(RECORDS)))
    broken[len(broken) // 2] ^= 255
    path.write_bytes(broken)
    found = decoded(whole(path))
    assert len(found.undecodable) >= 1


def test_names_that_promise_too_much(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(GOOD)  # a store may hand it out decompressed
    assert ids(path) == ["e1"]
    path.write_bytes(b"\x00\xff" * 99)
    assert "not gzip data" in decoded(whole(path)).undecodable[0].reason
    path.write_bytes(gzip.compress(GOOD) + b"\0" * 512 + gzip.compress(GOOD))
    assert ids(path) == ["e1", "e1"]
    path.write_bytes(b"")
    assert whole(path) == []
    other = tmp_path / "events.avro"
    other.write_bytes(GOOD)
    assert "not an Avro container" in decoded(whole(other)).undecodable[0].reason
    other.write_text("event_type", encoding="utf-16")
    assert "UTF-16" in decoded(whole(other)).undecodable[0].reason


def test_a_damaged_avro_block_costs_only_itself(tmp_path: Path) -> None:
    content = avro(RECORDS)
    sync = b"sixteen bytes !!"
    starts = [i for i in range(len(content)) if content.startswith(sync, i)]
    path = tmp_path / "events.avro"
    for at in (starts[5] + 16, starts[5] + 40, starts[6] + 3):  # the count, the records, the marker
        broken = bytearray(content)
        broken[at] ^= 0x55
        path.write_bytes(broken)
        found = decoded(whole(path))
        assert len(found.undecodable) == 1
        got = [int(record.event_id[1:]) for record in found.records]
        assert got == sorted(got)
        assert 0 < 3000 - len(got) < 200
    path.write_bytes(content[: starts[8] + 30])
    (bad,) = decoded(whole(path)).undecodable
    assert "cut off" in bad.reason
    assert bad.offset == starts[8] + 16


def test_an_avro_schema_that_does_not_fit(tmp_path: Path) -> None:
    wanted = parse(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "event_id", "type": "long"}, {"name": "age", "type": "int"}],
        }
    )
    path = tmp_path / "events.avro"
    path.write_bytes(avro(RECORDS[:3]))
    found = decoded(whole(path), wanted)
    assert found.records == []
    assert len(found.undecodable) == 3
    assert found.undecodable[0].reason.startswith(f"{path}: ")
    assert "event_id" in found.undecodable[0].reason
    assert "age" in found.undecodable[0].reason
    assert msgspec.json.decode(found.undecodable[0].original)["event_id"] == "e0"
    with pytest.raises(SchemaError, match=r"events\.avro: .*age.*no such field"):
        check_schemas([str(path)], Layout(), wanted)
    check_schemas([str(path)], Layout(), EVENT)


@pytest.mark.parametrize(
    "schema",
    [
        b'{"type":"record","name":"R"}',
        b'"string"',
        b"[]",
        b"{",
        b'{"type":"record","name":"R","fields":[{"name":"a","type":"Unknown"}]}',
        b'{"type":"record","name":"R","fields":[{"name":"a","type":'
        + b'{"type":"array","items":' * 30
        + b'"int"'
        + b"}" * 32
        + b"]}",
    ],
)
def test_an_avro_schema_that_is_none(tmp_path: Path, schema: bytes) -> None:
    path = tmp_path / "events.avro"
    path.write_bytes(
        b"Obj\x01\x02\x16avro.schema" + _length(len(schema)) + schema + b"\0" + b"s" * 16 + b"\2\0" + b"s" * 16
    )
    (bad,) = decoded(whole(path)).undecodable
    assert "the Avro header has no readable schema" in bad.reason


def _length(value: int) -> bytes:
    return bytes([value * 2 & 127 | 128, value * 2 >> 7 & 127]) if value > 63 else bytes([value * 2])


def test_one_bad_avro_record(tmp_path: Path) -> None:
    bad = dict(RECORDS[1], country="Atlantis", user_id=5)
    path = tmp_path / "events.avro"
    path.write_bytes(avro([RECORDS[0], bad, RECORDS[2]], codec="null").replace(b"Atlantis", b"\xff" * 8))
    found = decoded(whole(path))
    assert [record.event_id for record in found.records] == ["e0", "e2"]
    assert found.undecodable[0].reason == "a text is not UTF-8"


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"", b"\n\n", b"\xef\xbb\xbf") if name != "container.avro" else (b"",):
        path.write_bytes(content)
        assert decoded(whole(path))[:3] == ([], [], [])


def test_arrays_that_are_empty_several_or_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_bytes(b" [ ]\n")
    assert whole(path) == []
    path.write_bytes(json_array(RECORDS[:2]) + b"\n" + json_array(RECORDS[2:4]))
    assert ids(path) == ["e0", "e1", "e2", "e3"]
    path.write_bytes(json_array(RECORDS[:2])[:-1])
    found = decoded(whole(path))
    assert len(found.records) == 2
    assert "not closed" in found.undecodable[0].reason
    path.write_bytes(b'[{"event_type":"x","event_timestamp":1}, nonsense, {"event_type":"y","event_timestamp":1}]')
    found = decoded(whole(path))
    assert [record.event_type for record in found.records] == ["x", "y"]
    assert found.undecodable[0].original == b"nonsense"


def test_a_file_that_is_gone_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(GOOD * 5)
    ref = (decoded(whole(path)).indexes or [])[4]
    path.write_bytes(GOOD)
    assert originals(str(path), [ref], Layout()) == {ref: GONE}
    path.unlink()
    assert originals(str(path), [ref], Layout()) == {ref: GONE}
    assert "No such file" in decoded(whole(path)).undecodable[0].reason


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "directory" in decoded(whole(tmp_path)).undecodable[0].reason


SEEDS = [FORMATS[name](RECORDS[:8]) for name in FORMATS]
SEEDS += [compress(seed) for seed in SEEDS for ending, compress in COMPRESSIONS.items() if ending]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=4), st.integers(0, 4)), max_size=5),
    st.sampled_from(["a", "a.jsonl", "a.json", "a.csv", "a.avro", "a.json.gz"]),
    st.sampled_from([50, 10 << 20]),
)
def test_any_bytes_are_records_or_dead_letters(
    tmp_path: Path, seed: bytes, edits: list[tuple[int, bytes, int]], name: str, limit: int
) -> None:
    content = bytearray(seed)
    for at, new, old in edits:
        content[at % len(content) : at % len(content) + old] = new
    path = tmp_path / name
    path.write_bytes(content)
    chunks = whole(path, Layout(max_record=limit))
    found = decoded(chunks)
    refs = [*(found.indexes or ()), *(bad.ref for bad in found.undecodable)]
    assert len(refs) == len(set(refs)) == len(found.records) + len(found.undecodable)
    again = originals(str(path), refs, Layout(max_record=limit))
    assert all(again[bad.ref].text == bad.original for bad in found.undecodable)
    assert all(again[ref].text is not None for ref in refs)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300), st.sampled_from(["a", "a.jsonl", "a.json", "a.csv", "a.avro", "a.json.gz", "a.csv.zst"])
)
def test_arbitrary_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = decoded(whole(path))
    assert found.records == []
