"""Avro containers of older, newer and foreign schemas: read when they fit, else refused with each difference named."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import msgspec
import pytest
from schema_golden import GOLDEN

import schemas
from schemas import Schema, SchemaError

EVENT = schemas.load("telemetry/event")


def record(*fields: Any, name: str = "Written") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, type: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **more}


def reader(type: Any, **more: Any) -> Schema:
    return schemas.parse(record(field("a", type, **more), name="Read"))


def through(writer: dict[str, Any], schema: Schema, *records: dict[str, Any]) -> list[Any]:
    """Records written to a container as `writer` and read from it as `schema`."""
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(writer), records)
    file.seek(0)
    blocks = fastavro.block_reader(file)
    written = blocks.writer_schema
    schemas.resolve(written, schema)
    parsed = fastavro.parse_schema(schemas.as_read(written, schema))
    struct = schemas.struct_type(schema)
    found = []
    for block in blocks:
        data = io.BytesIO(block.bytes_.getvalue())
        found += [msgspec.convert(fastavro.schemaless_reader(data, parsed), struct) for _ in range(block.num_records)]
    return found


READ: list[tuple[Any, Any, Any, Any]] = [
    ("int", "long", 5, 5),
    ("int", "double", 5, 5.0),
    ("long", "float", 5, 5.0),
    ("float", "double", 0.5, 0.5),
    ("string", "string", "x", "x"),
    ("bytes", "string", "ü".encode(), "ü"),
    ("string", "bytes", "ü", "ü".encode()),
    ("string", ["null", "string", "long"], "x", "x"),
    (["null", "int"], ["null", "string", "long"], 5, 5),
    (["null", "string"], "string", "x", "x"),
    ({"type": "enum", "name": "W", "symbols": ["x"]}, {"type": "enum", "name": "R", "symbols": ["x", "y"]}, "x", "x"),
    ({"type": "enum", "name": "W", "symbols": ["x"]}, "string", "x", "x"),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, [1], [1.0]),
    ({"type": "map", "values": "int"}, {"type": "map", "values": ["null", "long"]}, {"k": 1}, {"k": 1}),
    (record(field("k", "int"), name="R"), {"type": "map", "values": "double"}, {"k": 1}, {"k": 1.0}),
    (record(field("k", "int"), name="R"), {"type": "map", "values": "int", "json": True}, {"k": 1}, {"k": 1}),
    ({"type": "long", "logicalType": "timestamp-millis"}, "long", 1764000000000, 1764000000000),
    ({"type": "int", "logicalType": "date"}, "long", 20000, 20000),
]


@pytest.mark.parametrize(("written", "read", "value", "found"), READ)
def test_is_read(written: Any, read: Any, value: Any, found: Any) -> None:
    (one,) = through(record(field("a", written)), reader(read), {"a": value})
    assert one.a == found
    assert one.a.__class__ is found.__class__


def test_null_and_logical_types_are_read() -> None:
    (one,) = through(record(field("a", ["null", "int"])), reader(["null", "long"]), {"a": None})
    assert one.a is None
    uuid = "0c77d20a-e42c-43ae-a27a-5d96746c4490"
    (one,) = through(record(field("a", {"type": "string", "logicalType": "uuid"})), reader("string"), {"a": uuid})
    assert one.a == uuid


REFUSED: list[tuple[Any, Any, str]] = [
    ("string", "long", "a: the file has string, the relay needs long"),
    ("double", "long", "a: the file has double, the relay needs long"),
    ("long", "int", "a: the file has long, the relay needs int"),
    ("boolean", "string", "a: the file has boolean, the relay needs string"),
    ("long", "string", "a: the file has long, the relay needs string"),
    ("null", "string", "a: the file has null, the relay needs string"),
    (
        ["null", "string", "double"],
        ["null", "string", "long"],
        "a: the file has double, the relay needs long or string",
    ),
    ("string", {"type": "enum", "name": "R", "symbols": ["x"]}, "a: the file has string, the relay needs one of x"),
    (
        {"type": "enum", "name": "W", "symbols": ["x", "z"]},
        {"type": "enum", "name": "R", "symbols": ["x", "y"]},
        "a: the file has z, the relay knows x, y",
    ),
    ({"type": "enum", "name": "W", "symbols": ["x"]}, "long", "a: the file has enum, the relay needs long"),
    ({"type": "array", "items": "string"}, {"type": "array", "items": "long"}, "a[]: the file has string"),
    (
        {"type": "array", "items": "long"},
        {"type": "map", "values": "long"},
        "a: the file has array, the relay needs map of long",
    ),
    (record(field("k", "string"), name="R"), {"type": "map", "values": "long"}, "a.k: the file has string"),
    (record(field("k", "string"), name="R"), "string", "a: the file has record, the relay needs string"),
    (
        {"type": "map", "values": "long"},
        record(field("k", "long"), name="R"),
        "a: the file has map, the relay needs record",
    ),
    ({"type": "fixed", "name": "F", "size": 2}, "string", "a: the file has fixed F, the relay needs string"),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        {"type": "long", "logicalType": "timestamp-millis"},
        "a: the file has timestamp-micros, the relay needs timestamp-millis",
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "bytes",
        "a: the file has decimal, which the relay does not read; write it as bytes",
    ),
]


@pytest.mark.parametrize(("written", "read", "words"), REFUSED)
def test_is_refused_in_words(written: Any, read: Any, words: str) -> None:
    with pytest.raises(SchemaError) as error:
        schemas.resolve(record(field("a", written)), reader(read), "part-0.avro")
    assert str(error.value).startswith(f"part-0.avro: {words}")


def test_every_difference_is_named() -> None:
    written = record(field("event_timestamp", "string"), field("user_id", "double"))
    with pytest.raises(SchemaError) as error:
        schemas.resolve(written, EVENT, "old.avro")
    assert error.value.message.split("; ") == [
        "event_type: the file has no such field, the relay needs string",
        "event_timestamp: the file has string, the relay needs long",
        "user_id: the file has double, the relay needs long or string",
    ]
    assert schemas.differences(written, EVENT) == error.value.message.split("; ")


def test_older_and_newer_schemas_of_the_same_record() -> None:
    nested = record(field("level", "int"), field("combo", "long"), name="Data")
    written = record(
        field("event_type", {"type": "enum", "name": "Kind", "symbols": ["login", "level_up"]}),
        field("event_timestamp", {"type": "long", "logicalType": "timestamp-millis"}),
        field("user_id", ["null", "int"]),
        field("shard", "int"),
        field("event_data", ["null", nested]),
        field("params", ["null", record(field("boss", "string"), name="Params")]),
    )
    one, other = through(
        written,
        EVENT,
        {"event_type": "level_up", "event_timestamp": 1764000000000, "user_id": 5, "shard": 1,
         "event_data": {"level": 3, "combo": 9}, "params": {"boss": "hydra"}},
        {"event_type": "login", "event_timestamp": 1764000000001, "user_id": None, "shard": 1,
         "event_data": None, "params": None},
    )  # fmt: skip
    assert (one.event_type, one.user_id, one.event_data.level, one.params) == ("level_up", 5, 3, {"boss": "hydra"})
    assert (other.event_timestamp, other.user_id, other.event_data, other.country) == (1764000000001, None, None, None)


def test_the_canonical_schema_reads_what_it_wrote() -> None:
    for name in ("telemetry/event", "telemetry/aws_game_analytics", "telemetry/playfab"):
        schema = schemas.load(name)
        struct = schemas.struct_type(schema)
        for payload in GOLDEN[name].good:
            assert through(schema.avro, schema, payload) == [msgspec.convert(payload, struct)]


def test_aliases_and_defaults() -> None:
    schema = schemas.parse(
        record(
            field("user", "string", aliases=["uid", "player"]),
            field("level", "long", default=1),
            field("at", record(field("x", "double", aliases=["lon"]), name="P"), aliases=["place"]),
        )
    )
    written = record(field("player", "string"), field("place", record(field("lon", "int"), name="Q")))
    (one,) = through(written, schema, {"player": "ann", "place": {"lon": 3}})
    assert (one.user, one.level, one.at.x) == ("ann", 1, 3.0)
    (one,) = through(record(field("user", "string"), field("uid", "int"), field("at", {**written["fields"][1]["type"]})),
                     schema, {"user": "bob", "uid": 1, "at": {"lon": 4}})  # fmt: skip
    assert (one.user, one.at.x) == ("bob", 4.0)


def test_one_record_with_null_fails_alone() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"got `null` - at `\$\.a`"):
        through(record(field("a", ["null", "string"])), reader("string"), {"a": "x"}, {"a": None})


def test_a_containers_own_defaults_do_not_matter() -> None:
    written = record(field("a", ["null", "string"], default="null"), field("b", "int", default=None, pattern="("))
    assert schemas.differences(written, reader(["null", "string"])) == []


def test_a_container_that_is_no_record_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"part-0\.avro: must be a record"):
        schemas.resolve({"type": "array", "items": "string"}, EVENT, "part-0.avro")


def test_the_schema_to_read_by_leaves_the_written_one_alone() -> None:
    written = record(field("a", {"type": "long", "logicalType": "timestamp-millis"}, default=5))
    before = json.dumps(written)
    assert schemas.as_read(written, reader("long"))["fields"] == [{"name": "a", "type": "long"}]
    assert json.dumps(written) == before
