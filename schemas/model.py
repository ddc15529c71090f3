"""What a schema is here: a record type of fields with types and rules, and rules about which fields stand together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class SchemaError(ValueError):
    """A schema that cannot be read, or does not fit another. `file`, `message` and `line` (1-based, 0 unknown)."""

    def __init__(self, file: str, message: str, line: int = 0) -> None:
        super().__init__(file, message, line)
        self.file, self.message, self.line = file, message, line

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


@dataclass(frozen=True)
class Rules:
    """What a value must be besides its type; each from an extra attribute of the Avro field, in camelCase there.

    On a union a rule is about the types it can be about: `pattern` about text, `minimum` about numbers.
    """

    min_length: int | None = None
    """Characters."""
    max_length: int | None = None
    """Characters."""
    pattern: str | None = None
    """Regular expression that the whole text matches."""
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    one_of: tuple[Any, ...] | None = None
    max_pairs: int | None = None
    """Entries of a map."""
    source: str = ""
    """The document and heading that say so, such as "12traits Ingestion API Reference, KPI"."""


@dataclass(frozen=True, eq=False)
class Type:
    """A type, or a union of types. Two types are equal when they are the same object."""

    kinds: frozenset[str]
    """Of null, boolean, int, long, float, double, string, bytes, enum, array, map, record; or json: any JSON value."""
    items: Type | None = None
    """Element type of an array, value type of a map."""
    fields: Mapping[str, Field] | None = None
    """Of a record, in the schema's order."""
    symbols: tuple[str, ...] = ()
    """Of an enum."""
    logical: str = ""
    """Avro's logicalType, such as timestamp-millis. Values keep the underlying type."""
    name: str = ""
    """Of a record or an enum."""

    @property
    def nullable(self) -> bool:
        """Whether null is a value."""
        return "null" in self.kinds or "json" in self.kinds

    def __str__(self) -> str:
        """In words and without null, such as "long or string"."""
        return " or ".join(_word(self, kind) for kind in sorted(self.kinds - {"null"})) or "null"


def _word(type: Type, kind: str) -> str:
    if kind == "enum":
        return "one of " + ", ".join(type.symbols)
    if kind in ("array", "map"):
        return f"{kind} of {type.items}"
    return "any JSON" if kind == "json" else kind


JSON = Type(frozenset({"json"}))
"""Any JSON value."""


@dataclass(frozen=True, eq=False)
class Field:
    """A field of a record."""

    name: str
    type: Type
    required: bool
    """Neither nullable nor with a default: a record without it is wrong."""
    default: Any = None
    """What stands for an absent value."""
    doc: str = ""
    rules: Rules = Rules()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Presence:
    """Which fields of a record stand together; from the record's extra attribute `presence`."""

    rule: str
    """exactly_one, at_least_one, together (all or none) of `fields`; required_when: all, if `field` is in `values`."""
    fields: tuple[str, ...]
    source: str
    field: str = ""
    values: tuple[Any, ...] = ()

    def fault(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with a record (null and absent are the same), or None."""
        there = sum(record.get(name) is not None for name in self.fields)
        names = ", ".join(self.fields)
        if self.rule == "exactly_one" and there != 1:
            return f"exactly one of {names} must be there"
        if self.rule == "at_least_one" and not there:
            return f"one of {names} must be there"
        if self.rule == "together" and 0 < there < len(self.fields):
            return f"{names} must be there together or not at all"
        if self.rule == "required_when" and there < len(self.fields) and record.get(self.field) in self.values:
            return f"{names} must be there when {self.field} is {record.get(self.field)}"
        return None


@dataclass(frozen=True, eq=False)
class Schema:
    """A record's schema."""

    name: str
    """As `load` takes it, such as teak/event; the path of a user's own."""
    avro: dict[str, Any]
    """As written."""
    type: Type
    doc: str = ""
    presence: tuple[Presence, ...] = ()

    @property
    def fields(self) -> Mapping[str, Field]:
        """The record's fields by name, in the schema's order."""
        assert self.type.fields is not None
        return self.type.fields

    def __reduce__(self) -> tuple[Callable[[str, str], Schema], tuple[str, str]]:
        """A schema that travelled in a job graph is the one of this process: types are compared by identity."""
        from schemas.loader import arrived  # which imports this module

        return arrived, (self.name, json.dumps(self.avro))
