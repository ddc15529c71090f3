"""The same records written in every format and compression, and reading them back."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro
import zstandard

import schemas
from transforms.decode import Decoded, Decoder
from transforms.elements import Chunk, record_ref
from transforms.read import Layout, Part, chunks
from transforms.sources.files import File

EVENT = schemas.load("telemetry/event")
DATA = Path(__file__).parent.parent / "data"

AVRO = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Written",
        "namespace": "studio",
        "fields": [
            {"name": "event_id", "type": "string"},
            {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": [
                "level_up", "level_start", "purchase", "login", "spend_virtual_currency", "earn_virtual_currency"]}},
            {"name": "event_timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "user_id", "type": ["null", "string", "long"]},
            {"name": "session_id", "type": "string"},
            {"name": "app_version", "type": "string"},
            {"name": "platform", "type": "string"},
            {"name": "country", "type": ["null", "string"]},
            {"name": "event_data", "type": {"type": "record", "name": "Data", "fields": [
                {"name": "level", "type": "int"},
                {"name": "score", "type": "long"},
                {"name": "duration_s", "type": "double"},
                {"name": "currency", "type": ["null", "string"]},
                {"name": "amount", "type": "long"},
                {"name": "item_id", "type": "string"},
            ]}},
        ],
    }
)  # fmt: skip


def events(count: int = 2000) -> list[dict[str, Any]]:
    """Made events, a few of them with text that is not ASCII, quotes and line ends in it."""
    found = [json.loads(line) for line in (DATA / "made_events.ndjson").read_bytes().splitlines()]
    found = [dict(found[i % len(found)], event_id=f"e{i}", event_data=dict(found[i % len(found)]["event_data"]))
             for i in range(count)]  # fmt: skip
    for i in range(0, count, 7):
        found[i]["event_data"]["item_id"] = f'Schwert "größer", {i}\nzweite Zeile 🗡'
        found[i]["user_id"] = f"ü{i}"
    return found


def json_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def json_array(records: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps(records, ensure_ascii=False).encode()


def pretty_array(records: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps(records, ensure_ascii=False, indent=2).encode()


def pretty_objects(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(record, indent=2).encode() for record in records)


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in record.items():
        row |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return row


def delimited(records: Sequence[Mapping[str, Any]], delimiter: str = ",") -> bytes:
    rows = [flat(record) for record in records]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def tsv(records: Sequence[Mapping[str, Any]]) -> bytes:
    return delimited(records, "\t")


def avro(records: Sequence[Mapping[str, Any]], codec: str = "deflate", interval: int = 4000) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, AVRO, records, codec=codec, sync_interval=interval, sync_marker=b"sixteen bytes !!")
    return file.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], bytes]] = {
    "lines.jsonl": json_lines,
    "array.json": json_array,
    "pretty.json": pretty_array,
    "objects.json": pretty_objects,
    "commas.csv": delimited,
    "tabs.tsv": tsv,
    "container.avro": avro,
}
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, 1),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".zst": lambda data: zstandard.ZstdCompressor(1).compress(data),
}


def whole(path: Path | str, layout: Layout | None = None) -> list[Chunk]:
    """A file's chunks, read in one go."""
    return list(chunks(Part(str(path), 0, None), layout or Layout()))


def decoded(found: Sequence[Chunk], schema: schemas.Schema = EVENT) -> Decoded:
    """All of the chunks' records; indexes are references here."""
    decoder = Decoder(schema)
    records: list[Any] = []
    refs: list[int] = []
    undecodable = []
    for chunk in found:
        one = decoder.decode(chunk)
        records += one.records
        indexes = range(len(one.records)) if one.indexes is None else one.indexes
        refs += [record_ref(chunk.position, index) for index in indexes]
        undecodable += one.undecodable
    return Decoded(records, refs, undecodable)


def in_order(parts: Sequence[Part], layout: Layout) -> Iterator[Chunk]:
    for part in parts:
        yield from chunks(part, layout)


def file_of(path: Path) -> File:
    return File(str(path), path.stat().st_size)
