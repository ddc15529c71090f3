"""Struct classes made from schemas: what decoding takes and refuses, what encoding writes."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas


def struct_of(*fields: dict[str, Any], **options: bool) -> type[msgspec.Struct]:
    return schemas.struct_type(schemas.parse({"type": "record", "name": "Mine", "fields": list(fields)}), **options)


def decoded(type: Any, text: str, **more: Any) -> Any:
    struct = struct_of({"name": "a", "type": type, **more})
    return msgspec.json.decode(b'{"a":%s}' % text.encode(), type=struct).a  # type: ignore[attr-defined]


TAKEN: list[tuple[Any, str, Any]] = [
    ("string", '"x"', "x"),
    ("boolean", "true", True),
    ("int", "-2147483648", -(2**31)),
    ("long", "9223372036854775807", 2**63 - 1),
    ("double", "5", 5.0),
    ("float", "5.5", 5.5),
    (["null", "string", "long"], "null", None),
    (["null", "string", "long"], "7", 7),
    (["null", "string", "long"], '"7"', "7"),
    (["long", "double"], "7", 7),
    (["long", "double"], "7.0", 7.0),
    ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, '"y"', "y"),
    ({"type": "array", "items": ["null", "long"]}, "[1,null]", [1, None]),
    ({"type": "map", "values": {"type": "array", "items": "string"}}, '{"k":["v"]}', {"k": ["v"]}),
    ({"type": "map", "values": "string", "json": True}, '{"k":[1,{"x":null}]}', {"k": [1, {"x": None}]}),
    ({"type": "array", "items": "string", "json": True}, '[1,"x",[]]', [1, "x", []]),
    ("bytes", '"AAE="', b"\x00\x01"),
]


@pytest.mark.parametrize(("type", "text", "value"), TAKEN)
def test_takes(type: Any, text: str, value: Any) -> None:
    found = decoded(type, text)
    assert found == value
    assert found.__class__ is value.__class__


@pytest.mark.parametrize(
    ("type", "text"),
    [
        ("string", "5"),
        ("string", "null"),
        ("boolean", "1"),
        ("boolean", '"true"'),
        ("int", "2147483648"),
        ("int", "true"),
        ("long", "9223372036854775808"),
        ("long", "-9223372036854775809"),
        ("long", "1.0"),
        ("long", '"1"'),
        ("double", '"1.5"'),
        ("double", "true"),
        (["null", "string", "long"], "1.5"),
        (["null", "string", "long"], "true"),
        ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, '"z"'),
        ({"type": "array", "items": "long"}, '["x"]'),
        ({"type": "array", "items": "long"}, "{}"),
        ({"type": "map", "values": "string"}, '{"k":1}'),
        ({"type": "map", "values": "string", "json": True}, "[]"),
    ],
)
def test_refuses(type: Any, text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.a"):
        decoded(type, text)


@pytest.mark.parametrize(
    ("type", "rules", "good", "bad"),
    [
        ("string", {"minLength": 2, "maxLength": 3}, ['"ab"', '"äöü"'], ['"a"', '"abcd"']),
        ("string", {"pattern": "[A-Z]{3}|x"}, ['"USD"', '"x"'], ['"USDx"', '"xUSD"', '"USD\\n"', '"usd"']),
        ("string", {"oneOf": ["a", "b"]}, ['"a"'], ['"c"']),
        ("long", {"oneOf": [1, 2]}, ["2"], ["3"]),
        ("long", {"minimum": 1, "maximum": 5}, ["1", "5"], ["0", "6"]),
        ("int", {"minimum": 1}, ["2147483647"], ["0", "2147483648"]),
        ("double", {"exclusiveMinimum": 0}, ["0.001", "1"], ["0", "-1"]),
        ("double", {"maximum": 1.5}, ["1.5"], ["1.6"]),
        (["null", "string", "long"], {"minLength": 1, "minimum": 1}, ["null", '"x"', "1"], ['""', "0"]),
        ({"type": "map", "values": "long"}, {"maxPairs": 1}, ["{}", '{"a":1}'], ['{"a":1,"b":2}']),
    ],
)
def test_rules_are_kept(type: Any, rules: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for text in good:
        decoded(type, text, **rules)
    for text in bad:
        with pytest.raises(msgspec.ValidationError):
            decoded(type, text, **rules)


def test_rules_of_nested_records_are_kept() -> None:
    inner = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "double", "exclusiveMinimum": 0}]}
    kind = ["null", {"type": "map", "values": inner}]
    assert decoded(kind, '{"k":{"n":1}}')["k"].n == 1.0
    with pytest.raises(msgspec.ValidationError, match=r"> 0.* at `\$\.a\[\.\.\.\]\.n`"):
        decoded(kind, '{"k":{"n":0}}')


def test_none_is_left_out_and_other_defaults_are_written() -> None:
    struct = struct_of(
        {"name": "a", "type": "string"},
        {"name": "b", "type": ["null", "string"], "default": None},
        {"name": "c", "type": ["null", "long"]},
        {"name": "d", "type": "string", "default": "constant"},
        {"name": "e", "type": {"type": "array", "items": "long"}, "default": []},
        {"name": "f", "type": {"type": "map", "values": "string", "json": True}, "default": {}},
        {"name": "g", "type": "string", "json": True},
    )
    one, other = struct(a="x"), struct(a="x")
    assert msgspec.json.encode(one) == b'{"a":"x","d":"constant","e":[],"f":{}}'
    assert one.e is not other.e  # type: ignore[attr-defined]
    assert msgspec.json.decode(b'{"a":"x"}', type=struct) == one
    assert msgspec.json.decode(b'{"a":"x","b":null,"c":null,"g":null}', type=struct) == one


def test_a_default_may_be_a_record() -> None:
    point = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "long"}]}
    struct = struct_of({"name": "at", "type": point, "default": {"x": 4}})
    assert msgspec.json.encode(struct()) == b'{"at":{"x":4}}'


def test_names_that_python_does_not_take() -> None:
    struct = struct_of(
        *(
            {"name": name, "type": ["null", "long"]}
            for name in ("class", "f_class", "user-id", "user id", "__init__", "1st")
        )
    )
    text = b'{"class":1,"f_class":2,"user-id":3,"user id":4,"__init__":5,"1st":6}'
    made = msgspec.json.decode(text, type=struct)
    assert msgspec.json.encode(made) == text
    assert struct.__struct_encode_fields__ == ("class", "f_class", "user-id", "user id", "__init__", "1st")
    assert len(set(struct.__struct_fields__)) == 6
    assert [getattr(made, name) for name in struct.__struct_fields__] == [1, 2, 3, 4, 5, 6]


def test_attributes_are_the_fields_in_order() -> None:
    schema = schemas.load("teak/event")
    struct = schemas.struct_type(schema)
    assert struct.__struct_fields__ == tuple(schema.fields)
    assert tuple(schemas.attribute_names(schema.fields).values()) == struct.__struct_fields__
    assert msgspec.json.encode(struct("u", "spin")) == b'{"user_id":"u","action_type":"spin"}'


def test_a_required_field_may_follow_an_optional_one() -> None:
    struct = struct_of({"name": "a", "type": ["null", "string"]}, {"name": "b", "type": "string"})
    assert msgspec.json.encode(struct(b="x")) == b'{"b":"x"}'
    with pytest.raises(msgspec.ValidationError, match="missing required field `b`"):
        msgspec.json.decode(b"{}", type=struct)


def test_unknown_fields() -> None:
    fields = ({"name": "a", "type": ["null", {"type": "record", "name": "R", "fields": []}]},)
    text = b'{"a":{"y":1},"x":2}'
    assert msgspec.json.encode(msgspec.json.decode(text, type=struct_of(*fields))) == b'{"a":{}}'
    for unknown in (b'{"x":2}', b'{"a":{"y":1}}'):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.json.decode(unknown, type=struct_of(*fields, forbid_unknown=True))


def test_a_class_is_made_once() -> None:
    schema = schemas.load("telemetry/event")
    assert schemas.struct_type(schema) is schemas.struct_type(schema.type)
    assert schemas.struct_type(schema) is not schemas.struct_type(schema, forbid_unknown=True)
    inner = schemas.struct_type(schema.fields["event_data"].type)
    event = msgspec.json.decode(
        b'{"event_type":"x","event_timestamp":1,"event_data":{}}', type=schemas.struct_type(schema)
    )
    assert type(event.event_data) is inner  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="string is not a record"):
        schemas.struct_type(schema.fields["country"].type)


def test_structs_are_not_tracked_by_the_garbage_collector() -> None:
    assert schemas.struct_type(schemas.load("telemetry/event")).__struct_config__.gc is False


def test_constants_are_checked() -> None:
    fields = schemas.load("swrve/iap").fields
    store = fields["app_store"]
    assert schemas.fits(store.type, "google", store.rules) is None
    assert schemas.fits(store.type, "steam", store.rules) == "Invalid enum value 'steam'"
    assert schemas.fits(fields["quantity"].type, None) is None
    assert schemas.fits(fields["quantity"].type, 2.5) == "Expected `int | null`, got `float`"


@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(), kinds=st.sets(st.sampled_from(
    ["null", "boolean", "int", "long", "float", "double", "string"]), min_size=1))  # fmt: skip
def test_decoding_takes_what_the_types_say(value: Any, kinds: set[str]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    allowed = (
        ("null" in kinds and value is None)
        or ("boolean" in kinds and isinstance(value, bool))
        or ("string" in kinds and isinstance(value, str))
        or ("long" in kinds and whole and -(2**63) <= value < 2**63)
        or ("int" in kinds and whole and -(2**31) <= value < 2**31)
        or (bool({"float", "double"} & kinds) and number and (not {"int", "long"} & kinds or not whole))
    )
    assert (schemas.fits(schemas.parse(_record(sorted(kinds))).fields["a"].type, value) is None) == allowed
    assert not (number and math.isnan(value)) or allowed == bool({"float", "double"} & kinds)


def _record(type: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Mine", "fields": [{"name": "a", "type": type}]}
