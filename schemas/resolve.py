"""Whether an Avro container's schema can be read as another, and how; every difference is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas.loader import parse
from schemas.model import Field, Schema, SchemaError, Type

_PROMOTIONS = {
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "double": frozenset({"double"}),
    "string": frozenset({"string", "bytes"}),
    "bytes": frozenset({"bytes", "string"}),
    "boolean": frozenset({"boolean"}),
}
"""What a written type may be read as (Avro specification, Schema Resolution)."""


def resolve(writer: dict[str, Any], reader: Schema, file: str = "") -> None:
    """Checks that records written as `writer` (an Avro schema's decoded JSON) can be read as `reader`.

    By Avro's rules (promotions, defaults, aliases, unions, enums), with these differences: names of records and
    enums do not matter; a nullable field needs no default; a record can be read as a map, an enum as a string; where
    only some records hold null that the reader does not take, those records fail and not the file. Raises SchemaError
    that names every difference.
    """
    found = differences(writer, reader, file)
    if found:
        raise SchemaError(file or reader.name, "; ".join(found))


def differences(writer: dict[str, Any], reader: Schema, file: str = "") -> list[str]:
    """Why records written as `writer` cannot be read as `reader`, one text a difference; empty when they can.

    Raises SchemaError when `writer` is no schema of a record.
    """
    found: list[str] = []
    _compare(parse(writer, file or "the file's schema", written=True).type, reader.type, "", found)
    return found


def _compare(writer: Type, reader: Type, path: str, found: list[str]) -> None:
    if "json" in reader.kinds:
        return
    for kind in sorted(writer.kinds - {"null"}):
        _compare_kind(kind, writer, reader, path, found)
    if writer.kinds == {"null"} and not reader.nullable:
        found.append(f"{path}: the file has null, the relay needs {reader}")


def _compare_kind(kind: str, writer: Type, reader: Type, path: str, found: list[str]) -> None:
    takes = reader.kinds
    if kind == "record":
        if reader.fields is not None and writer.fields is not None:
            _compare_fields(writer.fields, reader.fields, path, found)
        elif "map" in takes and reader.items is not None and writer.fields is not None:
            for name, field in writer.fields.items():
                _compare(field.type, reader.items, _join(path, name), found)
        else:
            found.append(_unlike(path, "record", reader))
    elif kind in ("array", "map"):
        if kind not in takes or reader.items is None or writer.items is None:
            found.append(_unlike(path, kind, reader))
        else:
            _compare(writer.items, reader.items, f"{path}[]", found)
    elif kind == "enum":
        unknown = [] if "string" in takes else [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if "string" not in takes and "enum" not in takes:
            found.append(_unlike(path, "enum", reader))
        elif unknown:
            found.append(f"{path}: the file has {', '.join(unknown)}, the relay knows {', '.join(reader.symbols)}")
    elif kind == "bytes" and writer.name and "bytes" not in takes:
        found.append(_unlike(path, f"fixed {writer.name}", reader))
    elif not _PROMOTIONS[kind] & takes:
        found.append(_unlike(path, kind, reader))
    elif writer.logical and reader.logical and writer.logical != reader.logical:
        found.append(f"{path}: the file has {writer.logical}, the relay needs {reader.logical}")
    elif writer.logical == "decimal":
        found.append(f"{path}: the file has decimal, which the relay does not read; write it as {reader}")


def _compare_fields(writer: Mapping[str, Field], reader: Mapping[str, Field], path: str, found: list[str]) -> None:
    for name, field in reader.items():
        written = _written(writer, field)
        if written is not None:
            _compare(written.type, field.type, _join(path, name), found)
        elif field.required:
            found.append(f"{_join(path, name)}: the file has no such field, the relay needs {field.type}")


def _written(writer: Mapping[str, Field], field: Field) -> Field | None:
    """The written field that is read as this one: of its name, else of one of its aliases."""
    return next((writer[name] for name in (field.name, *field.aliases) if name in writer), None)


def _unlike(path: str, kind: str, reader: Type) -> str:
    return f"{path or 'the record'}: the file has {kind}, the relay needs {reader}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def as_read(writer: dict[str, Any], reader: Schema) -> dict[str, Any]:
    """The schema to read a resolved container's records by, so that msgspec.convert(record, struct_type(reader)) fits.

    Same bytes as `writer`, but: fields have the reader's names where the reader has them as aliases, logical types
    are dropped (a timestamp stays a number, in the unit it was written), bytes are text where the reader has text.
    For fastavro.parse_schema and fastavro.schemaless_reader. Named types written out once and referred to keep
    their first use's form.
    """
    read: dict[str, Any] = _as_read(json.loads(json.dumps(writer)), reader.type)
    return read


def _as_read(writer: Any, reader: Type | None) -> Any:
    if isinstance(writer, list):
        return [_as_read(branch, reader) for branch in writer]
    if writer == "bytes" and reader is not None and "string" in reader.kinds and "bytes" not in reader.kinds:
        return "string"
    if writer == "string" and reader is not None and "bytes" in reader.kinds and "string" not in reader.kinds:
        return "bytes"
    if not isinstance(writer, dict):
        return writer
    kind = writer["type"]
    if isinstance(kind, dict | list):
        return _as_read(kind, reader)
    if kind == "record":
        known = reader.fields if reader is not None and reader.fields is not None else {}
        taken = {field["name"] for field in writer["fields"]}
        renamed = {alias: name for name, field in known.items() if name not in taken for alias in field.aliases}
        fields = []
        for field in writer["fields"]:
            name = renamed.get(field["name"], field["name"])
            inner = known[name].type if name in known else reader.items if reader is not None else None
            fields.append({"name": name, "type": _as_read(field["type"], inner)})
        named = {key: writer[key] for key in ("name", "namespace") if key in writer}
        return {"type": "record", **named, "fields": fields}
    if kind in ("array", "map"):
        key = "items" if kind == "array" else "values"
        return {"type": kind, key: _as_read(writer[key], reader.items if reader is not None else None)}
    if kind in ("enum", "fixed"):
        return {key: value for key, value in writer.items() if key not in ("logicalType", "doc", "aliases", "default")}
    return _as_read(kind, reader)
