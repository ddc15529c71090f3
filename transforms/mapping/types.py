"""Static types of values in a mapping, taken from the Avro schemas, and the words that messages use for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import schemas

_SAME = {"int": "long", "float": "double", "enum": "string"}
"""Avro types that differ in range only are one here; an enum is text with known symbols."""

WORDS = {
    "string": "text",
    "long": "a whole number",
    "double": "a number",
    "boolean": "true or false",
    "bytes": "bytes",
    "map": "a map",
    "array": "a list",
    "record": "a record",
    "json": "any JSON value",
}


class Member(NamedTuple):
    """A field of a record."""

    type: Static
    required: bool
    rules: schemas.Rules | None


@dataclass(frozen=True, eq=False)
class Static:
    """The type of a value: `kinds` of null, boolean, long, double, string, bytes, array, map, record, json."""

    kinds: frozenset[str]
    items: Static | None = None
    """Of an array's elements or a map's values."""
    members: Mapping[str, Member] | None = None
    """Of a record."""
    symbols: frozenset[str] | None = None
    """The texts that an enum may be."""
    access: str = "item"
    """How a record's fields are reached: `attribute` (a struct) or `item` (a dict)."""
    origin: schemas.Type | None = None
    short: bool = False
    """Whole numbers have 32 bits."""
    sent: bool = False
    """A free value that was made fit to be sent: no nulls in maps, no infinite numbers."""
    unknown: bool = False
    """What a problem leaves behind: fits everywhere, so that one mistake gives one message."""

    @property
    def nullable(self) -> bool:
        """Whether the value may be absent."""
        return "null" in self.kinds

    @property
    def solid(self) -> frozenset[str]:
        """The kinds besides null."""
        return self.kinds - {"null"}

    def with_null(self, nullable: bool = True) -> Static:
        """The same type, nullable or not."""
        if nullable == self.nullable:
            return self
        return replace(self, kinds=self.kinds | {"null"} if nullable else self.kinds - {"null"})

    def words(self) -> str:
        """The type in words."""
        names = [word for kind, word in WORDS.items() if kind in self.kinds]
        if "a whole number" in names and "a number" in names:
            names.remove("a whole number")
        return " or ".join(names) or "nothing"


def of(*kinds: str, items: Static | None = None) -> Static:
    """A plain type."""
    return Static(frozenset(kinds), items)


NULL = of("null")
STRING = of("string")
LONG = of("long")
DOUBLE = of("double")
BOOLEAN = of("boolean")
JSON = of("json", "null")
UNKNOWN = Static(frozenset({"json", "null"}), unknown=True)
NUMBER = of("long", "double")
FREE_MAP = of("map", items=JSON)
MADE_MAP = Static(frozenset({"map"}), of("json"), sent=True)
"""A map that generated code made: without nulls."""
FLAT_MAP = Static(frozenset({"map"}), of("string", "long"), sent=True)


def static(type_: schemas.Type, access: str) -> Static:
    """A schema's type as records decoded by it have it."""
    kinds = frozenset(_SAME.get(kind, kind) for kind in type_.kinds)
    if "json" in kinds:
        kinds |= {"null"}
    members = None
    if type_.fields is not None:
        members = {
            name: Member(static(field.type, access), field.required, field.rules)
            for name, field in type_.fields.items()
        }
    items = static(type_.items, access) if type_.items is not None else None
    if items is None and kinds & {"map", "array"}:
        items = JSON
    symbols = frozenset(type_.symbols) if "enum" in type_.kinds and "string" not in type_.kinds else None
    short = "int" in type_.kinds and "long" not in type_.kinds
    return Static(kinds, items, members, symbols, access, type_, short)


def of_value(value: Any) -> Static:
    """The type of a constant."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return LONG
    if isinstance(value, float):
        return DOUBLE
    if isinstance(value, str):
        return STRING
    return of("array", items=JSON) if isinstance(value, list) else FREE_MAP


def union(types: Iterable[Static]) -> Static:
    """What a value is that is of one of these types."""
    types = list(types)
    if any(type_.unknown for type_ in types):
        return UNKNOWN
    kinds = frozenset().union(*(type_.kinds for type_ in types))
    shaped = [type_ for type_ in types if type_.solid & {"map", "array", "record", "json"}]
    if len(shaped) > 1 and any(one is not shaped[0] for one in shaped):
        if len(kinds & {"map", "array", "record", "json"}) > 1 or "record" in kinds:
            return Static((kinds - {"map", "array", "record"}) | {"json"})
        items = union(one.items or JSON for one in shaped)
        return Static(kinds, items, sent=all(one.sent for one in shaped))
    return replace(shaped[0], kinds=kinds, symbols=None) if shaped else Static(kinds)
