"""CSV rows to typed records: a row becomes a dict of texts by a function made for the header, and msgspec converts
the texts by the schema's types."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

import schemas
from transforms.sources.delimited import is_blank_row

NOT_FINITE: Final = tuple("nfyNFY")
"""How `nan`, `inf` and `infinity` end, and no number does."""

AT_A_TIME: Final = 200
"""Rows converted in one go: few enough that the garbage collector has little to look through."""

BAD_ROW: Final = (csv.Error, ValueError, RecursionError)
"""What parsing and converting raise for a row that is not as the schema says; msgspec's errors are ValueErrors."""


class Header(NamedTuple):
    """How the rows under one header are read."""

    columns: int
    to_dict: Callable[[list[str]], dict[str, Any]]
    problem: str
    """Why no row can be read; empty when they can."""


def compile_header(text: bytes, delimiter: str, schema: schemas.Schema) -> Header:
    """The way from a row to a record for a header row.

    A column is named like a field, or `record.field`, or `map.key`. Others are passed over. An empty text is absent;
    arrays, maps and records in one column are JSON.
    """
    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter))]
    except (UnicodeDecodeError, csv.Error) as error:
        return Header(0, _nothing, f"the header is not readable: {error}")
    code = _Code(names)
    expression = code.record(schema.fields, "")
    twice = sorted({name for name in code.used if names.count(name) > 1})
    if twice:
        return Header(0, _nothing, f"the header names a column twice: {', '.join(twice)}")
    if code.clash:
        return Header(0, _nothing, f"the header has {code.clash} and columns inside it")
    scope: dict[str, Any] = {**code.constants, "_json": _json, "_value": _value, "_finite": _finite}
    # No name of the header is in the source: those are constants.
    to_dict: Callable[[list[str]], dict[str, Any]] = eval(f"lambda row: {expression}", scope)  # noqa: S307
    return Header(len(names), to_dict, "")


def _nothing(_: list[str]) -> dict[str, Any]:
    return {}


class _Code:
    """Makes the expression that a row becomes a dict by."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.constants: dict[str, Any] = {}
        self.used: list[str] = []
        self.clash = ""
        """A column that stands for a whole record or map whose parts have columns too."""

    def record(self, fields: Mapping[str, schemas.Field], prefix: str) -> str:
        """A dict display of the fields that have columns."""
        parts = []
        for name, field in fields.items():
            path = prefix + name
            inner = [column for column in self._names if column.startswith(path + ".")]
            if path in self._names and inner and field.type.kinds & {"record", "map"}:
                self.clash = path
            if path in self._names:
                value = self._column(path, field)
            elif inner and field.type.fields is not None:
                value = self.record(field.type.fields, path + ".")
                columns = " or ".join(f"row[{self._names.index(column)}]" for column in inner)
                if not field.required:
                    value = f"({value} if {columns} else {self._empty(field)})"
            elif inner and "map" in field.type.kinds:
                value = self._map(path, inner, field)
            else:
                continue
            parts.append(f"{self._constant(name)}: {value}")
        return "{" + ", ".join(parts) + "}"

    def _column(self, path: str, field: schemas.Field) -> str:
        self.used.append(path)
        text = f"row[{self._names.index(path)}]"
        kinds = field.type.kinds
        if "json" in kinds:
            text = f"_value({text})"
        elif "string" not in kinds and kinds & {"array", "map", "record"}:
            text = f"_json({text})"
        elif "string" not in kinds and kinds & {"float", "double"}:
            text = f"(_finite({text}) if {text}.endswith({self._constant(NOT_FINITE)}) else {text})"
        return f"{text} or {self._empty(field)}"

    def _map(self, path: str, columns: list[str], field: schemas.Field) -> str:
        self.used += columns
        pairs = ", ".join(
            f"({self._constant(column[len(path) + 1 :])}, row[{self._names.index(column)}])" for column in columns
        )
        return f"{{key: text for key, text in ({pairs},) if text}} or {self._empty(field)}"

    def _empty(self, field: schemas.Field) -> str:
        """What stands for an empty text."""
        return "None" if field.default is None else self._constant(field.default)

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name


def _json(text: str) -> Any:
    return msgspec.json.decode(text) if text else None


def _value(text: str) -> Any:
    """Of a field that takes any JSON: an object or array, else the text as it is."""
    return _json(text) if text[:1] in ("{", "[") else text


def _finite(text: str) -> str:
    raise ValueError(f"{text} is no finite number")


class CsvDecoder:
    """Decodes the rows of CSV chunks to structs of a schema."""

    def __init__(self, schema: schemas.Schema, struct: type[msgspec.Struct]) -> None:
        self._schema, self._struct = schema, struct
        self._list: Any = list[struct]  # type: ignore[valid-type]  # a type made at run time
        self._headers: dict[bytes, Header] = {}

    def header(self, text: bytes, delimiter: str) -> Header:
        """The compiled header row."""
        key = delimiter.encode() + text
        if key not in self._headers:
            self._headers[key] = compile_header(text, delimiter, self._schema)
        return self._headers[key]

    def rows(self, text: bytes, header: Header, delimiter: str) -> list[Any] | None:
        """All rows; None when one of them is bad."""
        if header.problem:
            return None
        records: list[Any] = []
        try:
            lines = io.StringIO(text.decode(), newline="\n")
            reader = csv.reader(lines, delimiter=delimiter)
            while rows := list(itertools.islice(reader, AT_A_TIME)):
                if not all(len(row) == header.columns for row in rows):
                    rows = [row for row in rows if not is_blank_row(row)]
                    if not all(len(row) == header.columns for row in rows):
                        return None
                records += msgspec.convert(list(map(header.to_dict, rows)), self._list, strict=False)
        except BAD_ROW:
            return None
        return records

    def row(self, text: bytes, header: Header, delimiter: str) -> Any:
        """One row. Raises one of BAD_ROW."""
        if header.problem:
            raise ValueError(header.problem)
        row = next(csv.reader(io.StringIO(text.decode(), newline="\n"), delimiter=delimiter))
        if len(row) != header.columns:
            raise ValueError(f"{len(row)} fields, the header has {header.columns}")
        return msgspec.convert(header.to_dict(row), self._struct, strict=False)
