"""A letter's record as a message: the same record again, whatever it was written as; and what fails a second time."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from source_files import COMPRESSIONS, EVENT, FORMATS, decoded, events, whole
from test_message_kinds import KINDS

import schemas
from transforms.dead_letter import REJECTED, UNDELIVERED, DeadLetterWriter, Failed
from transforms.decode import Decoder
from transforms.elements import Chunk
from transforms.letter_shape import Base64, Letter
from transforms.letters import letter_message, read_letters, unreplayable
from transforms.read import Layout
from transforms.sources.messages import MESSAGES, Message, pack_messages, write_messages
from transforms.sources.records import raw_records

VENDORS = {"teak": "teak", "swrve": "swrve"}
RECORDS = events(300)


def writer(folder: Path) -> DeadLetterWriter:
    return DeadLetterWriter(str(folder), VENDORS, {"teak": "m-1"}, Layout())


def all_fail(path: Path, schema: schemas.Schema = EVENT) -> list[Failed]:
    """Every record of a file as an item that was not delivered."""
    refs = decoded(whole(path), schema).indexes or []
    return [Failed(UNDELIVERED, "HTTP 503", str(path), ref, "event", "u1", 7, b'{"a":1}', 503, "later") for ref in refs]


def replayed(folder: Path, letters: Sequence[Letter]) -> Path:
    """A message file of letters' records."""
    write_messages(str(folder / "replay"), str(folder), map(letter_message, letters))
    return folder / "replay"


def texts(path: Path, schema: schemas.Schema = EVENT) -> list[bytes]:
    """The records as models that pass them on get them."""
    decoder = Decoder(schema)
    return [text for chunk in whole(path) for text in decoder.raws(chunk, decoder.decode(chunk))]


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_records_of_files_are_the_same_again(tmp_path: Path, format: str, compression: str) -> None:
    path = tmp_path / (format + compression)
    path.write_bytes(COMPRESSIONS[compression](FORMATS[format](RECORDS)))
    before = decoded(whole(path))
    out = writer(tmp_path / "dead")
    out.write("teak", all_fail(path))
    letters = list(read_letters(str(tmp_path / "dead")))
    assert [letter.source.index for letter in letters] == [one.ref & 0xFFFFF for one in all_fail(path)]
    path.rename(tmp_path / "gone")  # the letters hold all that it takes
    again = replayed(tmp_path, letters)
    after = decoded(whole(again))
    assert after.undecodable == []
    assert len(after.records) == 300 and after.records == before.records
    (tmp_path / "gone").rename(path)
    assert texts(again) == texts(path)


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_messages_are_the_same_again(tmp_path: Path, kind: str) -> None:
    write_messages(str(tmp_path / "slice"), "projects/p/subscriptions/s", KINDS[kind])
    before = decoded(whole(tmp_path / "slice"))
    writer(tmp_path / "dead").write("teak", all_fail(tmp_path / "slice"))
    letters = list(read_letters(str(tmp_path / "dead")))
    again = replayed(tmp_path, letters)
    after = decoded(whole(again))
    assert after.undecodable == [] and after.records == before.records
    assert texts(again) == texts(tmp_path / "slice")
    assert {letter.source.name for letter in letters} == {"projects/p/subscriptions/s"}
    assert all(letter.source.position is None and letter.source.line is None for letter in letters)


def test_a_message_keeps_what_it_came_with(tmp_path: Path) -> None:
    sent = Message(
        b'{"event_type":"a","event_timestamp":1}', {"title": "chess", "googclient_x": "y"}, "m7", "u1", 1_700
    )
    write_messages(str(tmp_path / "slice"), "projects/p/subscriptions/s", [sent])
    writer(tmp_path / "dead").write("teak", all_fail(tmp_path / "slice"))
    (letter,) = read_letters(str(tmp_path / "dead"))
    assert msgspec.to_builtins(letter.source) == {
        "name": "projects/p/subscriptions/s",
        "format": "json",
        "line": None,
        "position": None,
        "index": 0,
        "message": {"id": "m7", "ordering_key": "u1", "published": 1_700, "attributes": dict(sent.attributes)},
    }
    assert letter_message(letter)[:5] == sent._replace(id=letter.id)[:5]


def test_a_message_that_cannot_be_read_again_is_carried(tmp_path: Path) -> None:
    """As on runners where no message file is: the second record of a message, with or without its text."""
    message = Message(b'[{"n":1}, {"n":2}]', {"a": "b"}, "m7")
    base = Failed(REJECTED, "HTTP 400", "projects/p/subscriptions/s", 5, "event", message=message, number=1)
    one, other = writer(tmp_path / "dead").letters("teak", [base, base._replace(original=b'{"n":2}', ref=99)])
    assert one == other
    assert one.original == '{"n":2}'
    assert letter_message(one).data == b'{"n":2}'


# What fails again --------------------------------------------------------------------------------


def test_what_fails_again_keeps_its_first_reason_and_its_source(tmp_path: Path) -> None:
    path = tmp_path / "commas.csv"
    path.write_bytes(FORMATS["commas.csv"](RECORDS[:5]))
    out = writer(tmp_path / "dead")
    out.write("teak", all_fail(path))
    first = {letter.id: letter for letter in read_letters(str(tmp_path / "dead"))}
    assert len(first) == 5
    for failures in (2, 3, 4):
        before = sorted(read_letters(str(tmp_path / "dead")), key=lambda letter: letter.id)
        again = replayed(tmp_path, before)
        new = [one._replace(reason=f"HTTP 400, time {failures}", outcome=REJECTED) for one in all_fail(again)]
        out.write("teak", new[:4])
        out.write("teak", new[:4])  # as after a crash
        letters = list(read_letters(str(tmp_path / "dead")))
        assert sorted(letter.id for letter in letters) == sorted(first)
        assert sorted(letter.failures for letter in letters) == [1, *[failures] * 4]
        for letter in letters:
            was = first[letter.id]
            assert (letter.first, letter.source, letter.original) == (was.first, was.source, was.original)
            assert letter.first.reason == "HTTP 503"
            if letter.failures > 1:
                assert letter.reason == f"HTTP 400, time {failures}"
        path.unlink(missing_ok=True)


def test_what_could_not_be_decoded_may_fail_at_several_models(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"event_type":7,"event_timestamp":1}\n')
    (bad,) = decoded(whole(path)).undecodable
    out = writer(tmp_path / "dead")
    fails = Failed(REJECTED, f"undecodable: {bad.reason}", str(path), bad.ref, original=bad.original, format=bad.format)
    out.write("teak", [fails])
    (letter,) = read_letters(str(tmp_path / "dead"))
    again = replayed(tmp_path, [letter])
    item = Failed(REJECTED, "level: required", str(again), whole(again)[0].position << 20, "a")
    new = out.letters("teak", [item, item._replace(model="b"), item._replace(model=""), item._replace(model="a")])
    assert len({one.id for one in new}) == 3
    assert new[2].id == letter.id and new[3].id == new[0].id
    assert {one.failures for one in new} == {2}
    assert {one.first.reason for one in new} == {letter.reason}


def test_what_is_undecodable_still_is_again(tmp_path: Path) -> None:
    """A bad record of each format costs one letter each time, with the same reason and record."""
    lines = b'{"event_type":"a","event_timestamp":1}\n{"event_type":"b"}\nnonsense\n'
    for name, text, number in (
        ("lines.jsonl", lines, 2),
        ("array.json", b'[{"event_type":"b"},\n {"event_type":\n"c"}]', 2),
        ("commas.csv", b'event_type,event_timestamp\na,1\nb,"x\ny"\nc\n', 2),
        ("tabs.tsv", b"event_type\tevent_timestamp\nb\tz\n", 1),
        ("container.avro", avro_of({"event_type": "a"}), 1),
    ):
        path = tmp_path / name
        path.write_bytes(text)
        bad = decoded(whole(path)).undecodable
        failures = [
            Failed(REJECTED, one.reason, str(path), one.ref, line=one.line, original=one.original, format=one.format)
            for one in bad
        ]
        letters = writer(tmp_path / "dead").letters("teak", failures)
        assert len(letters) == number
        assert [unreplayable(letter) for letter in letters] == [""] * number
        file = replayed(tmp_path, letters)
        again = decoded(whole(file))
        assert again.records == []
        assert [(one.reason.replace(str(file), str(path)), one.original) for one in again.undecodable] == [
            (one.reason, one.original) for one in bad
        ]


def avro_of(*records: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    schema = {"type": "record", "name": "R", "fields": [{"name": "event_type", "type": "string"}]}
    fastavro.writer(file, schema, records)
    return file.getvalue()


# What cannot be relayed again --------------------------------------------------------------------


def letter_of(tmp_path: Path, **fields: Any) -> Letter:
    failed = Failed(REJECTED, "HTTP 400", "s.jsonl", 0, "event", original=b'{"a":1}', format="json", payload=b"{}")
    (letter,) = writer(tmp_path / "dead").letters("teak", [failed])
    return msgspec.structs.replace(letter, **fields)


def changed(letter: Letter, **fields: Any) -> Letter:
    return msgspec.structs.replace(letter, source=msgspec.structs.replace(letter.source, **fields))


def test_stretches_without_a_record_are_not_relayed(tmp_path: Path) -> None:
    """The start of a row too long would be a row, and the lines of damaged data records: they must not be sent."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b'event_type,event_timestamp\na,"%b"\nb,1\n' % (b"1" * 5_000))
    layout = Layout(max_record=1_000)
    (bad,) = decoded(whole(path, layout)).undecodable
    fails = Failed(REJECTED, bad.reason, str(path), bad.ref, original=bad.original, format=bad.format)
    item = Failed(REJECTED, "HTTP 400", str(path), bad.ref, "event")
    out = DeadLetterWriter(str(tmp_path / "dead"), VENDORS, {}, layout)
    for letter in out.letters("teak", [fails, item]):
        assert letter.source.format == "unreadable"
        assert "get the file again" in unreplayable(letter)
        found = decoded(whole(replayed(tmp_path, [letter])))
        assert found.records == [] and len(found.undecodable) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"original": None}, "does not hold the original"),
        ({"original": Base64("no base64!")}, "damaged"),
        ({"original": "  "}, "empty"),
        ({"source": {"format": "csv"}}, "delimiter"),
        ({"source": {"format": "csv", "delimiter": "::", "header": "a::b"}}, "delimiter"),
        ({"source": {"format": "csv", "delimiter": "\n", "header": "a"}}, "delimiter"),
        ({"source": {"format": "csv", "delimiter": ",", "header": " \n"}}, "header"),
        ({"source": {"format": "avro", "avro": {"record": "x", "schema": {"type": "record"}}}}, "damaged"),
        ({"source": {"format": "avro", "avro": {"record": "x", "schema": "int"}}}, "damaged"),
    ],
)
def test_letters_that_do_not_hold_a_record(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    text = json.loads(msgspec.json.encode(letter_of(tmp_path)))
    text.update({name: value for name, value in given.items() if name == "original" and isinstance(value, str | None)})
    text["source"].update(given.get("source", {}))
    letter = msgspec.json.decode(json.dumps(text), type=Letter)
    if isinstance(given.get("original"), Base64):
        letter.original = given["original"]
    assert says in unreplayable(letter)
    found = decoded(whole(replayed(tmp_path, [letter])))
    assert found.records == [] and len(found.undecodable) == 1


def test_a_letter_without_its_record_may_fail_again(tmp_path: Path) -> None:
    """As when its payload is sent as it was mapped: the source was gone before."""
    letter = letter_of(tmp_path, original=None)
    again = replayed(tmp_path, [letter])
    failed = Failed(REJECTED, "HTTP 400", str(again), whole(again)[0].position << 20, "event", payload=b"{}")
    (new,) = writer(tmp_path / "dead").letters("teak", [failed])
    assert (new.id, new.failures, new.original, new.source) == (letter.id, 2, None, letter.source)


def test_what_is_published_cannot_pretend_to_be_a_record_again(tmp_path: Path) -> None:
    attributes = {"playrelay.format": "csv", "playrelay.header": "a,b", "again": "csv", "format": "csv"}
    message = Message(b'{"event_type":"a","event_timestamp":1}', attributes, "m")
    chunk = Chunk("slice", 0, 0, MESSAGES, pack_messages([message]))
    assert len(Decoder(EVENT).decode(chunk).records) == 1
    (raw,) = raw_records(chunk)
    assert raw.message == message and raw.message.again is None
    assert Decoder(EVENT).attributes(chunk, Decoder(EVENT).decode(chunk)) == [attributes]


def test_avro_that_json_cannot_say_comes_back_as_it_was(tmp_path: Path) -> None:
    """Bytes, not-a-number and a name that the relay's schema has as an alias."""
    path = tmp_path / "made.avro"
    written = {"type": "record", "name": "R", "namespace": "n", "fields": [
        {"name": "old_name", "type": "bytes", "doc": "x" * 5_000},
        {"name": "ratio", "type": "double"},
        {"name": "doc", "type": {"type": "map", "values": ["null", "int", "double"]}},
    ]}  # fmt: skip
    with path.open("wb") as file:
        fastavro.writer(file, written, [{"old_name": b"\xff", "ratio": 0.1, "doc": {"default": 2, "doc": None}}] * 3)
    (tmp_path / "s.avsc").write_text(json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": [
        {"name": "data", "type": "bytes", "aliases": ["old_name"]},
        {"name": "ratio", "type": "double"},
        {"name": "doc", "type": {"type": "map", "values": ["null", "double"]}},
    ]}))  # fmt: skip
    schema = schemas.load_file(tmp_path / "s.avsc")
    before = decoded(whole(path), schema)
    letters = writer(tmp_path / "dead").letters("teak", all_fail(path, schema))
    after = decoded(whole(replayed(tmp_path, letters)), schema)
    assert after.undecodable == [] and after.records == before.records and len(after.records) == 3
    (source,) = {msgspec.json.encode(letter.source.avro) for letter in letters}
    assert len(source) < 600 and base64.b64decode(json.loads(source)["record"])
