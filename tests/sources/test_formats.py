"""Every format with every compression gives the same records, and each record can be read again."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow
import pytest
import zstandard
from source_files import COMPRESSIONS, DATA, EVENT, FORMATS, avro, decoded, delimited, events, json_lines, whole

import schemas
from transforms.decode import Decoder
from transforms.decode_avro import LEARNED_FROM
from transforms.originals import originals
from transforms.read import Layout
from transforms.sources.avro import blocks_of

SAMPLE = Path(__file__).parents[2] / "templates/demo/aws_game_analytics.ndjson"
RECORDS = events()


def expected() -> list[Any]:
    struct = schemas.struct_type(EVENT)
    return [msgspec.convert(record, struct) for record in RECORDS]


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_same_records_in_every_format(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / (name + ending)
    path.write_bytes(COMPRESSIONS[ending](FORMATS[name](RECORDS)))
    found = decoded(whole(path))
    assert found.undecodable == []
    assert found.records == expected()
    assert len(set(found.indexes or ())) == len(RECORDS)


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_record_is_read_again_by_its_reference(tmp_path: Path, name: str, ending: str) -> None:
    content = FORMATS[name](RECORDS)
    path = tmp_path / (name + ending)
    path.write_bytes(COMPRESSIONS[ending](content))
    refs = decoded(whole(path)).indexes
    assert refs is not None
    chosen = [0, 1, 700, 1400, 1999]
    found = originals(str(path), [refs[i] for i in chosen], Layout())
    for i in chosen:
        text, line = found[refs[i]][:2]
        assert text is not None
        if name == "container.avro":
            assert json.loads(text) == RECORDS[i]
            assert line == 0
            continue
        assert text in content
        assert content.count(b"\n", 0, content.index(text)) + 1 == line
        if name.endswith(("json", "jsonl")):
            assert json.loads(text) == RECORDS[i]
        else:
            assert f"e{i}".encode() == text.split(b"\t" if "tabs" in name else b",")[0]


@pytest.mark.parametrize("name", FORMATS)
def test_raws_are_the_records_as_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = FORMATS[name](RECORDS)
    path.write_bytes(content)
    decoder = Decoder(EVENT)
    texts = [text for chunk in whole(path) for text in decoder.raws(chunk, decoder.decode(chunk))]
    assert len(texts) == len(RECORDS)
    assert name == "container.avro" or all(text in content for text in texts[:50])


OTHER_CODECS = {
    "zstandard": lambda data: zstandard.ZstdCompressor().compress(data),
    "snappy": lambda data: pyarrow.compress(data, codec="snappy", asbytes=True) + zlib.crc32(data).to_bytes(4, "big"),
}


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", *OTHER_CODECS])
def test_avro_codecs(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "events.avro"
    plain = avro(RECORDS[:300], "null" if codec in OTHER_CODECS else codec)
    path.write_bytes(compressed(plain, codec) if codec in OTHER_CODECS else plain)
    assert decoded(whole(path)).records == expected()[:300]


def test_avro_fields_that_come_up_late_in_a_file_are_read(tmp_path: Path) -> None:
    late = {"app_id": "ä", "os": "iOS 16.3", "timezone": "Europe/Berlin", "email": "a@b.c", "params": {"a": 1}}
    more = {"success": True, "price": 1.5, "kpi_value": -2.0, "connection": "linked"}
    found = [event | late | {"event_data": event["event_data"] | more} for event in RECORDS[:300]]
    mixed = RECORDS * (LEARNED_FROM // len(RECORDS) + 1) + found + RECORDS[:300]
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(EVENT.avro), mixed)
    path = tmp_path / "events.avro"
    path.write_bytes(file.getvalue())
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(json_lines(mixed))
    assert decoded(whole(path)).records == decoded(whole(lines)).records


def test_damage_in_snappy_is_found(tmp_path: Path) -> None:
    path = tmp_path / "events.avro"
    content = compressed(avro(RECORDS[:300], "null"), "snappy")
    for at in range(content.index(b"sixteen bytes !!") + 16, len(content) - 20, 61):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = decoded(whole(path))
        assert len(found.undecodable) == 1, at
        assert len(found.records) < 300


def compressed(container: bytes, codec: str) -> bytes:
    """An uncompressed container, compressed by a codec for which fastavro would need a package more."""
    sync = b"sixteen bytes !!"
    start = container.index(sync) + len(sync)
    found = [container[:start].replace(b"\x08null", _long(len(codec)) + codec.encode())]
    for _, count, data in blocks_of(container[start:]):
        stored = OTHER_CODECS[codec](data)
        found += [_long(count), _long(len(stored)), stored, sync]
    return b"".join(found)


def _long(value: int) -> bytes:
    value <<= 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def test_avro_codec_that_is_not_supported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.avro"
    path.write_bytes(avro(RECORDS[:3], "null").replace(b"\x08null", b"\x08lzma"))
    found = decoded(whole(path))
    assert found.records == []
    assert "lzma is not supported" in found.undecodable[0].reason


def test_format_is_told_by_the_content_when_the_name_says_nothing(tmp_path: Path) -> None:
    for name, write in FORMATS.items():
        if name == "tabs.tsv":
            continue
        path = tmp_path / f"part-0000{name[0]}"
        path.write_bytes(write(RECORDS[:20]))
        assert decoded(whole(path)).records == expected()[:20], name


def test_format_of_the_relay_file_wins_over_the_name(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(json_lines(RECORDS[:5]))
    assert decoded(whole(path, Layout("json"))).records == expected()[:5]


def test_delimiter_is_found_or_given(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    for mark in ",;|\t#":
        path.write_bytes(delimited(RECORDS[:5], mark))
        assert decoded(whole(path, Layout(delimiter="#" if mark == "#" else None))).records == expected()[:5], mark


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="none of json, csv, avro"):
        Layout("yaml")
    with pytest.raises(ValueError, match="one ASCII character"):
        Layout(delimiter="::")
    with pytest.raises(ValueError, match="at least 1"):
        Layout(max_record=0)


@pytest.mark.parametrize(
    ("path", "schema", "count"),
    [(SAMPLE, "telemetry/aws_game_analytics", 5000), (DATA / "made_events.ndjson", "telemetry/event", 200)],
)
def test_sample_files(path: Path, schema: str, count: int) -> None:
    found = decoded(whole(path), schemas.load(schema))
    assert found.undecodable == []
    assert len(found.records) == count
