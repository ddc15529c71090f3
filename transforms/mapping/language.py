"""The mapping language as a tree: what a YAML mapping says, before it is known which fields there are.

A value expression gives a value for a field, a condition is true or false of a record. Every part keeps the YAML node it
was read from, so that a problem found later points at the right line. Null means "no value" throughout: an operator given
null gives null, and null is never sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from transforms.located import Node


@dataclass(frozen=True, eq=False)
class Expression:
    """A value expression."""

    node: Node


@dataclass(frozen=True, eq=False)
class Const(Expression):
    """A constant: text, number, true or false, null, or (by `{const: …}`) any JSON value."""

    value: Any


@dataclass(frozen=True, eq=False)
class Path(Expression):
    """`$a.b.c`: a field of the record, a key of a map; `$key` and `$value` inside `each`."""

    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The path as YAML writes it."""
        return "$" + ".".join(self.parts)


@dataclass(frozen=True, eq=False)
class Template(Expression):
    """`{template: "level_{event_data.level}"}`: text with values in it; null when one of them is."""

    parts: tuple[str | Path, ...]


@dataclass(frozen=True, eq=False)
class First(Expression):
    """`{first: [e, e]}`, `{value: e, default: e}`: the first that has a value."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Lookup(Expression):
    """`{lookup: e, table: {a: b}, default: e}`: the table's value for the key's text."""

    key: Expression
    table: dict[str, Const]
    default: Expression | None


@dataclass(frozen=True, eq=False)
class Convert(Expression):
    """`{number: e}`, `{integer: e, round: true}`, `{text: e}`, `{boolean: e}`, `{json: e}`, `{flat: e}`."""

    to: str
    item: Expression
    round: bool = False


@dataclass(frozen=True, eq=False)
class Replace(Expression):
    """`{replace: e, pattern: P, with: T}`: the text with each match of P replaced by the literal text T."""

    item: Expression
    pattern: str
    by: str


@dataclass(frozen=True, eq=False)
class Time(Expression):
    """`{time: e, unit: s}` or `{time: e, format: F, zone: Z}`, with `to:` in another form; else ms since 1970 UTC."""

    item: Expression
    unit: str | None
    format: str | None
    zone: str | None
    to: str


@dataclass(frozen=True, eq=False)
class Arithmetic(Expression):
    """`{multiply: [e, e]}`, `{divide: [e, e]}`."""

    op: str
    items: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class ListOf(Expression):
    """`{list: [e, e]}`: the values that are there."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Each(Expression):
    """`{list: e, each: body}`: one element for each entry of a map (`$key`, `$value`) or element of a list (`$value`)."""

    over: Expression
    body: Expression


@dataclass(frozen=True, eq=False)
class MapOf(Expression):
    """`{map: {k: e}}`: the values that are there, under their keys."""

    items: dict[str, Expression]


@dataclass(frozen=True, eq=False)
class Merge(Expression):
    """`{merge: [e, e]}`: maps put together, the later winning."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class If(Expression):
    """`{if: CONDITION, then: e, else: e}`."""

    condition: Condition
    then: Expression
    other: Expression


@dataclass(frozen=True, eq=False)
class Condition:
    """True or false of a record."""

    node: Node


@dataclass(frozen=True, eq=False)
class Always(Condition):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, eq=False)
class All(Condition):
    """Every one holds."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, eq=False)
class AnyOf(Condition):
    """One holds."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, eq=False)
class Not(Condition):
    """It does not hold."""

    item: Condition


@dataclass(frozen=True, eq=False)
class Test(Condition):
    """A test of one field: `is`, `in`, `exists`, `empty`, `matches`, `gt`, `gte`, `lt`, `lte`."""

    path: Path
    op: str
    argument: Any
    """The constant; for `in` a tuple of them; for `matches` the pattern."""
    texts: tuple[str, ...] = ()
    """The constants as YAML writes them: 007 compared with a text is "007"."""


def walk(part: Any) -> Iterator[Expression | Condition]:
    """The expression or condition and everything inside it."""
    if isinstance(part, Expression | Condition):
        yield part
        for field in fields(part):
            if field.name != "node":
                yield from walk(getattr(part, field.name))
    elif isinstance(part, tuple):
        for item in part:
            yield from walk(item)
    elif isinstance(part, dict):
        for item in part.values():
            yield from walk(item)
