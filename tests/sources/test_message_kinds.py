"""What can be in a message, and what becomes of it when it is bad."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import EVENT, decoded, delimited, events, json_array, json_lines, pretty_array, pretty_objects, whole

import schemas
from transforms.decode import Decoded, Decoder
from transforms.elements import Chunk, record_ref
from transforms.originals import originals
from transforms.read import Layout
from transforms.sources import messages
from transforms.sources.messages import Again, Message, blocks, pack_messages, write_messages
from transforms.sources.records import raw_records

RECORDS = events(60)
LINES = json_lines(RECORDS).splitlines()
GOOD = b'{"event_type":"spin","event_timestamp":1}'
DECODER = Decoder(EVENT)


def chunk_of(found: Sequence[Message]) -> Chunk:
    return Chunk("slice", 1 << 30, 0, "messages", pack_messages(found))


def message(data: bytes, attributes: dict[str, str] | None = None, id: str = "m1") -> Message:
    return Message(data, attributes or {}, id)


def decode(*found: Message | bytes, schema: schemas.Schema = EVENT) -> Decoded:
    decoder = DECODER if schema is EVENT else Decoder(schema)
    return decoder.decode(chunk_of([message(one) if isinstance(one, bytes) else one for one in found]))


def ids(found: Decoded) -> list[str]:
    return [record.event_id for record in found.records]


def binary(record: Any, schema: Any = EVENT.avro) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), record)
    return file.getvalue()


def avro_json(record: Any, schema: Any = EVENT.avro) -> bytes:
    file = io.StringIO()
    fastavro.json_writer(file, fastavro.parse_schema(schema), [record])
    return file.getvalue().encode()


BINARY, JSON = {"googclient_schemaencoding": "BINARY"}, {"googclient_schemaencoding": "JSON"}
HALVES = RECORDS[:30], RECORDS[30:]

KINDS = {
    "one a message": [message(line) for line in LINES],
    "with a line end": [message(line + b"\r\n") for line in LINES],
    "one with a line end": [message(line + b"\n" * (i == 7)) for i, line in enumerate(LINES)],
    "over several lines": [message(json.dumps(record, indent=2).encode()) for record in RECORDS],
    "with a byte order mark": [message(b"\xef\xbb\xbf" + line) for line in LINES],
    "arrays": [message(json_array(half)) for half in HALVES],
    "pretty arrays": [message(b" \n" + pretty_array(half)) for half in HALVES],
    "lines": [message(json_lines(half)) for half in HALVES],
    "lines without the last end": [message(json_lines(half).rstrip()) for half in HALVES],
    "lines and blank lines": [message(json_lines(half).replace(b"\n", b"\n\n \r\n")) for half in HALVES],
    "pretty objects": [message(pretty_objects(half)) for half in HALVES],
    "gzip of one": [message(gzip.compress(line, mtime=0)) for line in LINES],
    "gzip of lines": [message(gzip.compress(json_lines(half), mtime=0)) for half in HALVES],
    "gzip of an array": [message(gzip.compress(json_array(half), mtime=0), {"Content-Encoding": "gzip"}) for half in HALVES],
    "said to be gzip": [message(line, {"Content-Encoding": "gzip"}) for line in LINES],
    "avro binary": [message(binary(record), BINARY) for record in RECORDS],
    "gzip of avro binary": [message(gzip.compress(binary(record), mtime=0), {**BINARY, "content_encoding": "GZIP"}) for record in RECORDS],
    "avro json": [message(avro_json(record), JSON) for record in RECORDS],
    "avro json without unions": [message(line, JSON) for line in LINES],
    "encoding not said": [message(line, {"googclient_schemaencoding": "ENCODING_UNSPECIFIED"}) for line in LINES],
    "mixed": [message(line) for line in LINES[:20]] + [message(json_array(RECORDS[20:40])), message(b"[]")]
    + [message(binary(RECORDS[40]), BINARY)] + [message(b" [\n] ")] + [message(gzip.compress(line, mtime=0)) for line in LINES[41:]],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_records_as_from_lines(kind: str, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_bytes(json_lines(RECORDS))
    write_messages(str(tmp_path / "slice"), "s", KINDS[kind])
    found = decoded(whole(tmp_path / "slice"))
    assert found.undecodable == [] and found.records == decoded(whole(tmp_path / "lines.jsonl")).records
    refs = found.indexes or []
    again = originals(str(tmp_path / "slice"), refs, Layout())
    for ref in refs:
        one = again[ref]
        assert one.message is not None and one.message in KINDS[kind]
        if "googclient_schemaencoding" not in one.message.attributes:
            assert json.loads(one.text or b"") in RECORDS
        assert decoded([chunk_of([Message(one.text or b"", one.message.attributes, "again")])]).undecodable == []


@pytest.mark.parametrize("kind", KINDS)
def test_texts_for_models_that_pass_records_on_are_plain_json(kind: str) -> None:
    chunk = chunk_of(KINDS[kind])
    found = [without_null(json.loads(text)) for text in DECODER.raws(chunk, DECODER.decode(chunk))]
    assert found == [without_null(record) for record in RECORDS]


def without_null(value: Any) -> Any:
    """Without the fields that Avro's binary encoding says are null, and JSON text does not mention."""
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return value


def test_a_record_knows_its_message_and_its_place_in_it() -> None:
    found = [
        message(GOOD, {"n": "0"}, "a"),
        message(b"[]", {"n": "1"}, "b"),
        message(b"[%b,1,%b]" % (GOOD, GOOD), {"n": "2"}, "c"),
        message(b"", {"n": "3"}, "d"),
        message(GOOD, {"n": "4"}, "e"),
    ]
    chunk = chunk_of(found)
    one = DECODER.decode(chunk)
    assert [(origin.message.id, origin.number) for origin in DECODER.in_messages(chunk, one) or []] == [
        ("a", 0), ("c", 0), ("c", 2), ("e", 0)]  # fmt: skip
    assert [attributes["n"] for attributes in DECODER.attributes(chunk, one) or []] == ["0", "2", "2", "4"]
    assert [bad.ref for bad in one.undecodable] == [record_ref(1 << 30, index) for index in (2, 4)]
    plain = chunk_of([found[0], found[4]])
    assert [origin.message.id for origin in DECODER.in_messages(plain, DECODER.decode(plain)) or []] == ["a", "e"]
    lines = Chunk("file", 0, 1, "json", GOOD)
    assert DECODER.in_messages(lines, DECODER.decode(lines)) is None


DEEP = b'{"event_type":"x","event_timestamp":1,"params":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"

BAD = [
    (message(b""), "the message is empty", b""),
    (message(b" \n\xef\xbb\xbf"[:2]), "the message is empty", b" \n"),
    (message(b"\xff\xfe{}"), "not UTF-8: byte 0xff at byte 0", b"\xff\xfe{}"),
    (message(b'{"event_type":"\xc3","event_timestamp":1}'), "not UTF-8", b'{"event_type":"\xc3","event_timestamp":1}'),
    (message(b'{"other":"\xc3","event_type":"x","event_timestamp":1}'), "not UTF-8", None),
    (message(DEEP), "nested too deeply", DEEP),
    (message(b'{"event_type":"x","event_timestamp":NaN}'), "not JSON", None),
    (message(b'{"event_type":"x","event_timestamp":1e400}'), "event_timestamp: number out of range", None),
    (message(b'{"event_type":"x","event_timestamp":99999999999999999999}'), "event_timestamp", None),
    (message(b'{"event_type":"\\ud800","event_timestamp":1}'), "not JSON", None),
    (message(b"null"), "the record: required, but empty", b"null"),
    (message(b"7"), "the record: expected", b"7"),
    (message(GOOD + GOOD), "not JSON", GOOD + GOOD),
    (message(b'{\n"event_type":\n7}'), "event_type", b'{\n"event_type":\n7}'),
    (message(gzip.compress(GOOD, mtime=0)[:-1]), "the gzip data of the message ends too early", gzip.compress(GOOD, mtime=0)[:-1]),
    (message(b"\x1f\x8b\x08\xff" + bytes(20)), "the gzip data of the message is damaged", None),
    (message(gzip.compress(GOOD, mtime=0) + b"more"), "is followed by bytes that are not", None),
    (message(gzip.compress(GOOD * 9, mtime=0) + gzip.compress(b"", mtime=0)), "more than the", None),
    (message(gzip.compress(b"", mtime=0)), "the message is empty", gzip.compress(b"", mtime=0)),
    (message(binary(RECORDS[0])[:-9], BINARY), "not an Avro binary record of the source's schema", None),
    (message(binary(RECORDS[0]) + b"\0", BINARY), "1 bytes follow it", None),
    (message(b"", BINARY), "not an Avro binary record", b""),
    (message(b"\x1f\x8b\x08", BINARY), "not an Avro binary record", b"\x1f\x8b\x08"),
    (message(binary({"event_type": "xyz", "event_timestamp": 1}).replace(b"y", b"\xff"), BINARY), "not UTF-8", None),
    (message(b'{"event_type":{"string":"x"},"event_timestamp":1}', JSON), "event_type", None),
    (message(b"nonsense", JSON), "not JSON", b"nonsense"),
    (message(b"[" + GOOD), "the JSON array is not closed", b""),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said", "original"), BAD)
def test_a_bad_message_costs_one_dead_letter(bad: Message, said: str, original: bytes | None) -> None:
    found = decode(GOOD, bad, GOOD, b"[%b]" % GOOD)
    (one,) = found.undecodable
    assert said in one.reason
    assert one.original == (bad.data if original is None else original)
    assert len(found.records) == 3 + ("closed" in said)


@pytest.mark.parametrize(
    ("data", "good", "bad"),
    [
        (b"[%b,7,%b]" % (GOOD, GOOD), 2, [b"7"]),
        (b"[%b,{bad}, %b]" % (GOOD, GOOD), 2, [b"{bad}"]),
        (b'[%b,{"a":' % GOOD, 1, [b'{"a":']),
        (b"%b\nnonsense\n\n%b" % (GOOD, GOOD), 2, [b"nonsense"]),
        (b'%b\n{"event_type":\n%b' % (GOOD, GOOD), 2, [b'{"event_type":']),
        (b'{\n"a": 1}\n%b' % GOOD, 1, [b'{\n"a": 1}']),
        (b"%b\r\n{}\r\n" % GOOD, 1, [b"{}"]),
        (gzip.compress(b"%b\n7\n" % GOOD, mtime=0), 1, [b"7"]),
    ],
)
def test_a_bad_record_costs_the_others_of_its_message_nothing(data: bytes, good: int, bad: list[bytes]) -> None:
    found = decode(GOOD, data)
    assert len(found.records) == 1 + good
    assert [one.original for one in found.undecodable] == bad


@pytest.mark.parametrize("data", [[b"", GOOD + b"\n"], [GOOD + b"\n" + GOOD, b"", GOOD + b"\n"], [b"\n", GOOD + b"\n"],
                                  [GOOD + b"\n\n", GOOD + b"\n"], [GOOD + b"\n" + GOOD, b"\n"], [GOOD, b""]])  # fmt: skip
def test_empty_messages_among_those_with_line_ends_are_noticed(data: list[bytes]) -> None:
    found = decode(*data)
    assert len(found.undecodable) == sum(not one.strip() for one in data)
    assert len(found.records) == sum(one.count(GOOD) for one in data)


def test_rows_of_csv_come_again_with_their_header() -> None:
    header, *rows = delimited(RECORDS[:3], ";").decode().replace("\nzweite", " zweite").splitlines()
    told = Again("csv", b"", header.encode(), ";")
    found = decode(*(message(row.encode())._replace(again=told) for row in (*rows, "a;b")))
    assert ids(found) == ["e0", "e1", "e2"] and "2 fields, the header has" in found.undecodable[0].reason


NESTED: dict[str, Any] = {
    "type": "record", "name": "Made", "namespace": "studio", "fields": [
        {"name": "raw", "type": "bytes"},
        {"name": "hash", "type": ["null", {"type": "fixed", "name": "Hash", "size": 2}]},
        {"name": "kind", "type": ["null", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}]},
        {"name": "many", "type": {"type": "array", "items": ["null", "long"]}},
        {"name": "by", "type": {"type": "map", "values": ["null", "bytes", {"type": "array", "items": "bytes"}]}},
        {"name": "inner", "type": ["null", {"type": "record", "name": "Inner", "namespace": "other", "fields": [
            {"name": "note", "type": ["null", "string"]}]}]},
        {"name": "again", "type": ["null", "other.Inner"]},
        {"name": "plain", "type": {"type": "map", "values": {"type": "array", "items": "double"}}},
    ],
}  # fmt: skip
MADE = {
    "raw": b"\0\xff", "hash": b"\xfe\x01", "kind": "B", "many": [None, 7], "by": {"a": b"\xe4", "b": [b"1"], "c": None},
    "inner": {"note": "string"}, "again": {"note": None}, "plain": {"x": [1.5]},
}  # fmt: skip


def test_every_type_in_both_avro_encodings() -> None:
    schema = schemas.parse(NESTED, "made.avsc")
    one, other = decode(
        message(binary(MADE, NESTED), BINARY), message(avro_json(MADE, NESTED), JSON), schema=schema
    ).records
    assert one == other and (one.raw, one.hash, one.kind, one.many) == (b"\0\xff", b"\xfe\x01", "B", [None, 7])
    assert (one.by["a"], one.inner.note, one.again.note, one.plain) == (b"\xe4", "string", None, {"x": [1.5]})
    simple = avro_json(MADE, NESTED).replace(b"studio.Hash", b"Hash").replace(b"other.Inner", b"Inner")
    assert decode(message(simple, JSON), schema=schema).records == [one]
    found = decode(message(avro_json(MADE, NESTED).replace(b"\\u0000", "Ā".encode()), JSON), schema=schema)
    assert "U+00FF" in found.undecodable[0].reason


def test_a_zip_bomb_is_one_dead_letter_in_bounded_memory() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([compressor.compress(b" " * (1 << 20)) for _ in range(300)] + [compressor.flush()])
    assert len(bomb) < 400_000
    tracemalloc.start()
    found = decode(GOOD, bomb, GOOD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.records) == 2
    assert found.undecodable[0].reason == "the message has over 67,108,864 bytes when decompressed"
    assert found.undecodable[0].original == bomb
    assert peak < 150 << 20


@pytest.mark.parametrize("text", [b"[%b]" % b",".join([b"{}"] * 300_000), b"{}\n" * 300_000, b"[" + b"1," * 300_000])
def test_a_message_of_more_records_than_one_may_hold_is_one_dead_letter(text: bytes) -> None:
    found = decode(GOOD, gzip.compress(text, mtime=0), text, GOOD)
    assert [one.reason for one in found.undecodable] == ["the message has over 250,000 records"] * 2
    assert len(found.records) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"[%b,%b" % (GOOD, b"[" * 5_000_000),
        b"[%b,[%b" % (GOOD, b"{}," * 2_000_000),
        b"[%b,[%b" % (GOOD, b'"a":' * 3_000_000),
    ],
)
def test_what_says_nowhere_where_it_ends_is_not_gone_through_for_minutes(text: bytes) -> None:
    found = decode(GOOD, gzip.compress(text, mtime=0), GOOD)
    assert len(found.records) == 3
    (one,) = found.undecodable
    assert one.reason == (
        "it is no valid JSON, and its first 1,000,000 brackets, strings and numbers do not say where it ends"
    )
    assert one.original == text[len(GOOD) + 2 :]


def test_nothing_is_as_large_as_a_reference_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of what decompresses to most have fewer records than references tell apart."""
    most = gzip.compress(b"[" + b"1," * 200_000 + b"1]", 9, mtime=0)
    sizes = [len(pack_messages(group)) for group in blocks([message(most)] * 20)]
    assert len(sizes) == 20
    assert messages.MAX_MESSAGE_RECORDS + messages.BLOCK < 1 << 20


def test_twelve_traits_gets_plain_json_of_bytes_too() -> None:
    schema = schemas.parse(NESTED, "made.avsc")
    chunk, decoder = chunk_of([message(binary(MADE, NESTED), BINARY), message(b"\1", BINARY)]), Decoder(schema)
    (text,) = decoder.raws(chunk, decoder.decode(chunk))
    assert json.loads(text)["raw"] == "AP8="


DATA = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([one.data for kind in KINDS.values() for one in kind[:2]] + [bad.data for bad, *_ in BAD[:5]]),
    st.lists(st.sampled_from([GOOD, b"\n", b",", b"[", b"]", b"{", b"}", b" ", b"7", b'"', b"\xff"]), max_size=9).map(b"".join),
)  # fmt: skip
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["googclient_schemaencoding", "Content-Encoding", "x"]),
    st.one_of(st.sampled_from(["BINARY", "JSON", "csv", "gzip", ",", "event_type,event_timestamp"]), st.text(max_size=5)),
    max_size=4,
)  # fmt: skip


def edited(data: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    text = bytearray(data)
    for at, new, old in edits:
        at %= len(text) + 1
        text[at : at + old] = new
    return bytes(text)


EDITS = st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=3), st.integers(0, 3)), max_size=3)
TEXT = st.text(st.characters(codec="utf-8"), max_size=3)
AGAIN = st.builds(
    Again,
    st.sampled_from(["json", "array", "csv", "avro", "avro json", "unreadable", ""]),
    st.just(b"{}"),
    st.sampled_from([b"event_type,event_timestamp\n", b"event_type,event_timestamp", b"\xff\n", b"\n"]),
    st.sampled_from(",;"),
    st.sampled_from([b"", json.dumps(EVENT.avro).encode()]),
)
ANY = st.builds(
    Message,
    st.builds(edited, DATA, EDITS), ATTRIBUTES | st.just({}), TEXT, TEXT, st.integers(0, 2**62), st.none() | AGAIN,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY, max_size=6))
def test_any_bytes_are_records_or_dead_letters(tmp_path: Path, found: list[Message]) -> None:
    path = tmp_path / "slice"
    write_messages(str(path), "s", found)
    chunks = whole(path)
    for chunk in chunks:
        one = DECODER.decode(chunk)
        raws = list(raw_records(chunk))
        read = len(one.records) + len(one.undecodable)
        assert read == len(raws)
        refs = [record_ref(chunk.position, index) for index in one.indexes or range(len(one.records))]
        refs += [bad.ref for bad in one.undecodable]
        assert sorted(refs) == [record_ref(chunk.position, index) for index in range(read)]
        again = originals(str(path), refs, Layout())
        assert all(again[bad.ref].text == bad.original and bad.reason for bad in one.undecodable)
        in_messages = DECODER.in_messages(chunk, one) or []
        assert len(DECODER.raws(chunk, one)) == len(in_messages) == len(one.records)
        for ref, origin in zip(refs, in_messages, strict=False):
            assert (again[ref].message, again[ref].number) == (origin.message, origin.number)
