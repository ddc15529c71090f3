"""Avro's JSON encoding to plain values.

It differs from plain JSON in unions, whose values stand in an object that names the branch ({"string": "x"}), and in
bytes, which are text of the characters U+0000 to U+00FF (Avro specification, "JSON Encoding").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Plain = Callable[[Any], Any]
"""From an encoded value to a plain one. What is not as the schema says is left as it is, to be refused with the
field's name by what checks the record."""

_SAME = ("null", "boolean", "int", "long", "float", "double", "string")


def compile_plain(schema: Any) -> Plain:
    """The function for records of a schema (parsed JSON). Values that are not encoded as a union's, as some
    publishers write them, are taken too. The function raises ValueError for bytes that are none.
    """
    found = _Names().plain(schema, "")
    return found or _identity


def _identity(value: Any) -> Any:
    return value


class _Names:
    """Makes the functions; knows the named types met so far."""

    def __init__(self) -> None:
        self._known: dict[str, list[Plain | None]] = {}
        """Full name -> a list of its function, which is empty until it is made: a type may hold itself."""

    def plain(self, schema: Any, space: str) -> Plain | None:
        """The function for values of a schema; None when they are plain already."""
        if isinstance(schema, list):
            return self._union(schema, space)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self.plain(kind, space)
        if kind in _SAME:
            return None
        if kind == "array":
            return _array(self.plain(schema["items"], space))
        if kind == "map":
            return _map(self.plain(schema["values"], space))
        if kind == "bytes":
            return _bytes
        if not isinstance(schema, dict):
            return self._named(kind, space)
        name, inner = _full_name(schema, space)
        made = self._known.setdefault(name, [])
        if kind == "fixed":
            made.append(_bytes)
        elif kind == "enum":
            made.append(None)
        else:
            fields = {field["name"]: self.plain(field["type"], inner) for field in schema["fields"]}
            made.append(_record({field: plain for field, plain in fields.items() if plain is not None}))
        return made[0]

    def _named(self, name: str, space: str) -> Plain | None:
        made = self._known.get(_in_space(name, space)) or self._known.get(name)
        if made:
            return made[0]
        # The type is being made, so it is a record that holds itself.
        own = self._known.setdefault(_in_space(name, space), [])
        return lambda value: value if own[0] is None else own[0](value)

    def _union(self, branches: list[Any], space: str) -> Plain:
        by_name = {name: self.plain(branch, space) for branch in branches for name in _names_of(branch, space)}

        def union(value: Any) -> Any:
            if value.__class__ is dict and len(value) == 1:
                ((name, inner),) = value.items()
                if name in by_name:
                    plain = by_name[name]
                    return inner if plain is None else plain(inner)
            return value

        return union


def _names_of(branch: Any, space: str) -> tuple[str, ...]:
    """What a union's branch may be called in a record: a named type by its full name, or as it is written."""
    kind = branch["type"] if isinstance(branch, dict) else branch
    if isinstance(kind, dict):
        return _names_of(kind, space)
    if kind in (*_SAME, "bytes", "array", "map"):
        return (kind,)
    full = _full_name(branch, space)[0] if isinstance(branch, dict) else _in_space(kind, space)
    return full, full.rpartition(".")[2]


def _in_space(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def _full_name(schema: dict[str, Any], space: str) -> tuple[str, str]:
    """The full name of a named type, and the namespace that holds inside it."""
    name: str = schema["name"]
    if "." in name:
        return name, name.rpartition(".")[0]
    inner: str = schema.get("namespace", space)
    return (f"{inner}.{name}" if inner else name), inner


def _bytes(value: Any) -> Any:
    if value.__class__ is not str:
        return value
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError("bytes hold a character above U+00FF, which Avro's JSON encoding does not have") from error


def _array(plain: Plain | None) -> Plain | None:
    if plain is None:
        return None
    return lambda value: [plain(one) for one in value] if value.__class__ is list else value


def _map(plain: Plain | None) -> Plain | None:
    if plain is None:
        return None
    return lambda value: {key: plain(one) for key, one in value.items()} if value.__class__ is dict else value


def _record(fields: dict[str, Plain]) -> Plain | None:
    if not fields:
        return None

    def record(value: Any) -> Any:
        if value.__class__ is not dict:
            return value
        found = dict(value)
        for name, plain in fields.items():
            if name in found:
                found[name] = plain(found[name])
        return found

    return record
