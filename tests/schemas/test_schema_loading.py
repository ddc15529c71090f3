"""Users' own schemas: what is understood, and how what is not is told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas import Presence, Rules, SchemaError


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Mine", "fields": list(fields), **more}


def field(name: str, type: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **more}


def of(type: Any, **more: Any) -> schemas.Type:
    return schemas.parse(record(field("a", type, **more))).fields["a"].type


def test_types_of_all_kinds() -> None:
    assert of("string").kinds == {"string"}
    assert of(["null", "string", "long"]).kinds == {"null", "string", "long"}
    assert of({"type": "long", "logicalType": "timestamp-micros"}).logical == "timestamp-micros"
    assert of({"type": {"type": "string"}}).kinds == {"string"}
    assert of({"type": "fixed", "name": "F", "size": 4}).kinds == {"bytes"}
    enum = of(["null", {"type": "enum", "name": "E", "symbols": ["x", "y"]}])
    assert enum.kinds == {"null", "enum"}
    assert enum.symbols == ("x", "y")
    assert enum.nullable
    array = of({"type": "array", "items": {"type": "map", "values": "double"}})
    assert array.items is not None
    assert array.items.items is not None
    assert [array.kinds, array.items.kinds, array.items.items.kinds] == [{"array"}, {"map"}, {"double"}]
    inner = of(["null", record(field("b", "int"), name="Inner")])
    assert inner.fields is not None
    assert inner.fields["b"].type.kinds == {"int"}


def test_any_json() -> None:
    assert of("string", json=True).kinds == {"json"}
    free = of(["null", {"type": "map", "values": ["null", "string"], "json": True}])
    assert free.kinds == {"null", "map"}
    assert free.items is not None
    assert free.items.kinds == {"json"}


def test_named_types_are_used_again() -> None:
    schema = schemas.parse(
        record(
            field("a", {"type": "record", "name": "Point", "fields": [field("x", "double")]}),
            field("b", ["null", "Point"], default=None),
            field("c", "com.game.Point"),
            namespace="com.game",
        )
    )
    assert schema.fields["a"].type is schema.fields["c"].type
    assert schema.fields["b"].type.fields is schema.fields["a"].type.fields


def test_required_and_default() -> None:
    schema = schemas.parse(
        record(
            field("needed", "string"),
            field("nullable", ["null", "string"]),
            field("defaulted", "string", default="x"),
            field("either", ["string", "null"], default="y"),
            field("raw", "bytes", default="\u00ff"),
            field("free", "string", json=True),
        )
    )
    assert [one.required for one in schema.fields.values()] == [True, False, False, False, False, False]
    assert [one.default for one in schema.fields.values()] == [None, None, "x", "y", b"\xff", None]


def test_rules_and_presence() -> None:
    schema = schemas.parse(
        record(
            field("a", "string", minLength=1, maxLength=5, pattern="[a-z]+", source="Guide, Names"),
            field("b", "long", minimum=0, maximum=9, oneOf=[1, 2]),
            field("c", "double", exclusiveMinimum=0.5),
            field("d", {"type": "map", "values": "string"}, maxPairs=3),
            presence=[{"rule": "required_when", "field": "a", "values": ["x"], "fields": ["b"], "source": "Guide, B"}],
        )
    )
    assert schema.fields["a"].rules == Rules(min_length=1, max_length=5, pattern="[a-z]+", source="Guide, Names")
    assert schema.fields["b"].rules == Rules(minimum=0, maximum=9, one_of=(1, 2))
    assert schema.fields["c"].rules == Rules(exclusive_minimum=0.5)
    assert schema.fields["d"].rules == Rules(max_pairs=3)
    assert schema.presence == (Presence("required_when", ("b",), "Guide, B", "a", ("x",)),)
    assert schema.presence[0].fault({"a": "x", "b": None}) == "b must be there when a is x"
    assert schema.presence[0].fault({"a": "y"}) is None


FAULTS: list[tuple[Any, str]] = [
    ([], 'must be a record: {"type": "record"'),
    ("string", "must be a record"),
    ({"type": "enum", "name": "E", "symbols": ["a"]}, "must be a record"),
    ({"type": "record", "name": "Mine"}, 'record needs "fields"'),
    ({"type": "record", "fields": []}, 'record needs a "name"'),
    (record("a"), 'a field must be an object with a "name", not "a"'),
    (record({"type": "string"}), 'a field must be an object with a "name"'),
    (record(field("a\ud800", "string")), 'a field must be an object with a "name"'),
    (record({"name": "a"}), 'a: the field needs a "type"'),
    (record(field("a", "string"), field("a", "long")), "a: the field is there twice"),
    (record(field("a", "strin")), "a: unknown type strin; did you mean string?"),
    (record(field("a", "map")), 'a: map must be written as an object: {"type": "map"'),
    (record(field("a", {"type": "array"})), 'a: array needs "items"'),
    (record(field("a", {"type": "map"})), 'a: map needs "values"'),
    (record(field("a", {"type": "enum", "name": "E"})), 'a: enum needs "symbols"'),
    (record(field("a", 5)), "a: a type must be a name, a list (a union) or an object with a type, not 5"),
    (record(field("a", [])), "a: a union needs at least one type"),
    (
        record(field("a", [{"type": "map", "values": "int"}, {"type": "array", "items": "int"}])),
        "one array or map only",
    ),
    (record(field("a", ["string", "bytes"])), "a: string and bytes cannot be told apart in JSON"),
    (
        record(field("a", [record(name="R"), {"type": "map", "values": "int"}])),
        "a: record and map cannot be told apart",
    ),
    (record(field("a", ["null", "Mine"])), 'a: Mine holds itself, without end; use a map with "json": true'),
    (record(field("a", record(name="Mine"))), "a: there is a type Mine already"),
    (record(field("a", record(field("b", "sting"), name="R"))), "a.b: unknown type sting; did you mean string?"),
    (record(field("a", "string", pattern="(")), 'a: pattern "(" is no regular expression'),
    (record(field("a", "string", pattern=5)), "a: pattern 5 is no regular expression"),
    (record(field("a", "string", maxLength="5")), 'a: maxLength must be a number, not "5"'),
    (record(field("a", "string", oneOf="x")), "a: oneOf must be a list"),
    (record(field("a", "string", aliases="x")), "a: aliases must be a list of names"),
    (record(field("a", "string", default=5)), "a: default 5 does not fit: Expected `str`, got `int`"),
    (record(field("a", "string", default=None)), "a: default null does not fit"),
    (record(field("a", "long", default=3, maximum=2)), "a: default 3 does not fit"),
    (record(field("a", "string"), presence=[{"rule": "both", "fields": ["a"]}]), "presence: rule must be one of"),
    (record(field("a", "string"), presence=[{"rule": "together", "fields": ["b"]}]), 'presence: unknown field "b"'),
    (record(field("a", "string"), presence=[{"rule": "required_when", "fields": ["a"]}]), 'required_when a "field"'),
    (record(field("a", "string"), presence="x"), "presence must be a list"),
]


@pytest.mark.parametrize(("avro", "words"), FAULTS)
def test_faults_are_told_with_the_field_and_the_remedy(avro: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError) as parsed:
        schemas.parse(avro)
    assert words in str(parsed.value)
    path = tmp_path / "mine.avsc"
    path.write_text(json.dumps(avro))
    with pytest.raises(SchemaError) as loaded:
        schemas.load_file(path)
    assert loaded.value.file == str(path)
    assert words in loaded.value.message


def test_a_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.avsc"
    inner = record(field("id", "string"), field("b", "sting"), name="R")
    path.write_text(json.dumps(record(field("b", "string"), field("a", inner)), indent=1))
    with pytest.raises(SchemaError, match=r"mine\.avsc:\d+: a\.b: unknown type sting") as error:
        schemas.load_file(path)
    assert '"name": "b"' in path.read_text().splitlines()[error.value.line - 1]
    assert error.value.line > 10


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b'{"type": "record",\n "name": "M",\n "fields": [}', 3, "is not JSON"),
        (b"", 1, "is not JSON"),
        (b'{"name": "\xff"}', 0, "is not UTF-8 (byte 10); save it as UTF-8"),
        (b"[" * 100_000, 0, "is nested too deeply"),
        (b'{"type": ' * 500 + b"1" + b"}" * 500, 0, "must be a record"),
        (b"1" * 5000, 0, "is not JSON: Exceeds the limit"),
    ],
)
def test_a_broken_file(content: bytes, line: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.avsc"
    path.write_bytes(content)
    with pytest.raises(SchemaError) as error:
        schemas.load_file(path)
    assert error.value.line == line
    assert words in error.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="cannot be read: No such file"):
        schemas.load_file(tmp_path / "none.avsc")
    with pytest.raises(SchemaError, match="cannot be read: Is a directory"):
        schemas.load_file(tmp_path)


def test_a_good_file_with_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.avsc"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record(field("a", "string"))).encode())
    assert list(schemas.load_file(path).fields) == ["a"]
    assert schemas.load_file(path).name == str(path)


def test_an_unknown_name_has_the_nearest() -> None:
    with pytest.raises(SchemaError, match=r"there is no such schema; did you mean teak/event\?"):
        schemas.load("teak/events")
    assert schemas.load("teak/event") is schemas.load("teak/event")


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SchemaError("a.avsc", "is broken", 3)))
    assert str(error) == "a.avsc:3: is broken"
    assert str(SchemaError("a.avsc", "is broken")) == "a.avsc: is broken"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["record", "string", "map", "Mine", "enum", "", "a"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "default", "pattern", "oneOf", "minimum",
                         "presence", "rule", "aliases", "json", "namespace", "maxLength"]), inner, max_size=6
    ),
    max_leaves=25,
)  # fmt: skip


@given(avro=json_values | st.lists(json_values, max_size=4).map(lambda fields: record(*fields)))
def test_whatever_is_in_the_file_the_answer_is_a_schema_or_a_clear_error(avro: Any) -> None:
    try:
        found = schemas.parse(avro, "mine")
    except SchemaError as error:
        told = str(error)
    else:
        told = f"mine: {found.type.name}"
        assert issubclass(schemas.struct_type(found), msgspec.Struct)
    assert told.startswith("mine: ")


@given(content=st.binary(max_size=80))
def test_whatever_bytes_are_in_the_file(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.avsc"
    path.write_bytes(content)
    with pytest.raises(SchemaError) as error:
        schemas.load_file(path)
    assert error.value.message


def test_a_schema_that_travelled_is_the_one_of_this_process() -> None:
    event = schemas.load("telemetry/event")
    assert pickle.loads(pickle.dumps(event)) is event
    own = schemas.parse({"type": "record", "name": "Own", "fields": [{"name": "a", "type": "long"}]}, "telemetry/event")
    arrived = pickle.loads(pickle.dumps(own))
    assert arrived.avro == own.avro and arrived.fields.keys() == {"a"}
    assert pickle.loads(pickle.dumps(own)) is arrived


@pytest.mark.parametrize(
    ("type", "said"),
    [
        ({"type": "enum", "name": "E", "symbols": ["x", "x"]}, "All symbols in an enum must be unique"),
        ({"type": "enum", "name": "E", "symbols": ["x y"]}, "Every symbol must match the regular expression"),
        ({"type": "enum", "name": "E", "symbols": ["x"], "default": "z"}, "Default value for enum must be in symbols"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 5}, "decimal scale must be less than"),
    ],
)
def test_what_no_other_reader_of_avro_takes_is_refused(type: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.avsc"
    path.write_text(json.dumps(record(field("a", type))), encoding="utf-8")
    with pytest.raises(SchemaError) as caught:
        schemas.load_file(str(path))
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "as the Avro specification has it" in str(caught.value)
