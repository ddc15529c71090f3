"""Reads Avro schemas: the shipped ones by name, a user's own from a file."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from schemas.model import JSON, Field, Presence, Rules, Schema, SchemaError, Type
from schemas.typed import fits

FOLDER = Path(__file__).parent

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})
COMPLEX = frozenset({"record", "enum", "array", "map", "fixed"})
PRESENCE_RULES = ("exactly_one", "at_least_one", "together", "required_when")

# Two types of one JSON form: a value could not be told to be the one or the other.
_ALIKE = (("record", "map"), ("string", "bytes"), ("string", "enum"), ("bytes", "enum"))

_RULES = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "minimum",
    "exclusiveMinimum": "exclusive_minimum",
    "maximum": "maximum",
    "oneOf": "one_of",
    "maxPairs": "max_pairs",
}


@functools.cache
def names() -> tuple[str, ...]:
    """All shipped schemas, such as teak/event."""
    return tuple(sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.avsc")))


@functools.cache
def load(name: str) -> Schema:
    """The shipped schema of that name. Raises SchemaError with the nearest name when there is none."""
    if name not in names():
        raise SchemaError(name, f"there is no such schema{_nearest(name, names())}")
    return _read(FOLDER / f"{name}.avsc", name)


def load_file(path: str | Path) -> Schema:
    """A user's own Avro schema (.avsc) of one record. Raises SchemaError with file, line and remedy."""
    schema = _read(Path(path), str(path))
    _check_as_others_do(schema)
    return schema


def _check_as_others_do(schema: Schema) -> None:
    """Refuses what fastavro refuses, where it is stricter than the parser here: enums and decimals that Avro does not
    allow, so that no other reader of the game's records would take the schema either."""
    # Imported here: most commands load no schema of the user's.
    import fastavro
    from fastavro.schema import SchemaParseException, UnknownType

    try:
        fastavro.parse_schema(schema.avro)
    except SchemaParseException as error:
        raise SchemaError(schema.name, f"{error}; write it as the Avro specification has it") from None
    except UnknownType as error:
        raise SchemaError(schema.name, f"unknown type {error}") from None


def parse(avro: Any, name: str = "the schema", *, written: bool = False) -> Schema:
    """The schema in an Avro schema's decoded JSON; `name` stands for it in messages. Raises SchemaError.

    written: it is a container's own, so that defaults and rules say nothing and are not looked at.
    """
    try:
        return _schema(avro, name, written)
    except _Fault as fault:
        raise SchemaError(name, str(fault)) from None


@functools.lru_cache(maxsize=64)
def arrived(name: str, text: str) -> Schema:
    """The schema of that name and Avro JSON, of which there is one in this process: the shipped one, if it is."""
    avro = json.loads(text)
    if name in names() and load(name).avro == avro:
        return load(name)
    return parse(avro, name)


def _read(path: Path, name: str) -> Schema:
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return _schema(json.loads(text), name)
    except OSError as error:
        raise SchemaError(file, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SchemaError(file, f"is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise SchemaError(file, f"is not JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except ValueError as error:  # a number of thousands of digits
        raise SchemaError(file, f"is not JSON: {error}") from None
    except RecursionError:
        raise SchemaError(file, "is nested too deeply") from None
    except _Fault as fault:
        raise SchemaError(file, str(fault), _line(text, fault.path)) from None


def _schema(avro: Any, name: str, written: bool = False) -> Schema:
    if not isinstance(avro, dict) or avro.get("type") != "record":
        raise _Fault((), 'must be a record: {"type": "record", "name": …, "fields": […]}')
    try:
        type = _Parser(written).type(avro, (), "")
    except RecursionError:
        raise _Fault((), "is nested too deeply") from None
    assert type.fields is not None
    presence = () if written else _presence(avro, type.fields)
    return Schema(name, avro, type, str(avro.get("doc", "")), presence)


class _Fault(Exception):
    """What is wrong, and the names of the fields on the way to it."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(f"{'.'.join(path)}: {message}" if path else message)
        self.path = path


def _line(text: str, path: tuple[str, ...]) -> int:
    """The line where the fields of the path are named, one after the other; 0 when they are not found."""
    at = -1
    for name in path:
        found = re.compile(r'"name"\s*:\s*' + re.escape(json.dumps(name))).search(text, at + 1)
        if found is None:
            break
        at = found.start()
    return 0 if at < 0 else text.count("\n", 0, at) + 1


def _nearest(word: str, choices: Collection[str]) -> str:
    found = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {found[0]}?" if found else ""


class _Parser:
    """Takes an Avro schema apart; knows the named types met so far (None: not yet complete)."""

    def __init__(self, written: bool) -> None:
        self.written = written
        self.named: dict[str, Type | None] = {}

    def type(self, avro: Any, path: tuple[str, ...], namespace: str) -> Type:
        if isinstance(avro, str):
            return self.reference(avro, path, namespace)
        if isinstance(avro, list):
            return self.union(avro, path, namespace)
        kind = avro.get("type") if isinstance(avro, dict) else None
        if isinstance(kind, dict | list):
            return self.type(kind, path, namespace)
        if not isinstance(kind, str):
            raise _Fault(path, f"a type must be a name, a list (a union) or an object with a type, not {_brief(avro)}")
        if kind in ("record", "enum", "fixed"):
            return self.define(avro, kind, path, namespace)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            if key not in avro:
                raise _Fault(path, f'{kind} needs "{key}": the type of what it holds')
            free = avro.get("json") is True
            return Type(frozenset({kind}), items=JSON if free else self.type(avro[key], path, namespace))
        found = self.reference(kind, path, namespace)
        logical = str(avro.get("logicalType", ""))
        return Type(found.kinds, logical=logical) if logical and kind in PRIMITIVES else found

    def reference(self, name: str, path: tuple[str, ...], namespace: str) -> Type:
        if name in PRIMITIVES:
            return Type(frozenset({name}))
        for full in (f"{namespace}.{name}", name):
            if full in self.named:
                found = self.named[full]
                if found is None:
                    raise _Fault(path, f'{name} holds itself, without end; use a map with "json": true in its place')
                return found
        if name in COMPLEX:
            raise _Fault(path, f'{name} must be written as an object: {{"type": "{name}", …}}')
        raise _Fault(path, f"unknown type {name}{_nearest(name, [*PRIMITIVES, *COMPLEX, *self.named])}")

    def union(self, avro: list[Any], path: tuple[str, ...], namespace: str) -> Type:
        branches = [self.type(branch, path, namespace) for branch in avro]
        if not branches:
            raise _Fault(path, "a union needs at least one type")
        kinds = frozenset[str]().union(*(branch.kinds for branch in branches))
        for shape, what in (("items", "array or map"), ("fields", "record"), ("symbols", "enum")):
            if sum(bool(getattr(branch, shape)) for branch in branches) > 1:
                raise _Fault(path, f'a union may hold one {what} only; use "json": true for any value')
        for one, other in _ALIKE:
            if one in kinds and other in kinds:
                raise _Fault(path, f'{one} and {other} cannot be told apart in JSON; keep one, or use "json": true')
        return Type(
            kinds,
            items=next((branch.items for branch in branches if branch.items is not None), None),
            fields=next((branch.fields for branch in branches if branch.fields is not None), None),
            symbols=next((branch.symbols for branch in branches if branch.symbols), ()),
            logical=next((branch.logical for branch in branches if branch.logical), ""),
            name=next((branch.name for branch in branches if branch.name), ""),
        )

    def define(self, avro: dict[str, Any], kind: str, path: tuple[str, ...], namespace: str) -> Type:
        name = avro.get("name")
        if not isinstance(name, str) or not name:
            raise _Fault(path, f'{kind} needs a "name"')
        space, _, short = name.rpartition(".")
        space = space or str(avro.get("namespace", namespace))
        full = f"{space}.{short}" if space else short
        if full in self.named or short in PRIMITIVES:
            raise _Fault(path, f"there is a type {full} already; write its name to use it again, or take another name")
        self.named[full] = None
        if kind == "fixed":
            made = Type(frozenset({"bytes"}), logical=str(avro.get("logicalType", "")), name=short)
        elif kind == "enum":
            symbols = avro.get("symbols")
            if not isinstance(symbols, list) or not symbols or not all(isinstance(one, str) for one in symbols):
                raise _Fault(path, 'enum needs "symbols": a list of texts')
            made = Type(frozenset({"enum"}), symbols=tuple(symbols), name=short)
        else:
            made = Type(frozenset({"record"}), fields=self.fields(avro, path, space), name=short)
        self.named[full] = made
        return made

    def fields(self, avro: dict[str, Any], path: tuple[str, ...], namespace: str) -> dict[str, Field]:
        listed = avro.get("fields")
        if not isinstance(listed, list):
            raise _Fault(path, 'record needs "fields": a list')
        found: dict[str, Field] = {}
        for one in listed:
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or not name or not name.isprintable():
                raise _Fault(path, f'a field must be an object with a "name", not {_brief(one)}')
            if name in found:
                raise _Fault((*path, name), "the field is there twice")
            if "type" not in one:
                raise _Fault((*path, name), 'the field needs a "type"')
            found[name] = self.field(one, name, (*path, name), namespace)
        return found

    def field(self, avro: dict[str, Any], name: str, path: tuple[str, ...], namespace: str) -> Field:
        type = self.type(avro["type"], path, namespace)
        if avro.get("json") is True:
            type = JSON
        aliases = avro.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise _Fault(path, "aliases must be a list of names")
        required = "default" not in avro and not type.nullable
        if self.written:
            return Field(name, type, required, aliases=tuple(aliases))
        rules, default = _rules(avro, path), avro.get("default")
        if "bytes" in type.kinds and isinstance(default, str):
            default = default.encode("latin-1", "replace")  # how Avro writes bytes in JSON
        if "default" in avro and (fault := fits(type, default, rules)):
            raise _Fault(path, f"default {_brief(avro['default'])} does not fit: {fault}")
        return Field(name, type, required, default, str(avro.get("doc", "")), rules, tuple(aliases))


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _rules(avro: Mapping[str, Any], path: tuple[str, ...]) -> Rules:
    given: dict[str, Any] = {}
    for attribute, name in _RULES.items():
        if attribute not in avro:
            continue
        value = given[name] = avro[attribute]
        if name == "pattern":
            try:
                re.compile(value)
            except (re.error, TypeError) as error:
                raise _Fault(path, f"pattern {_brief(value)} is no regular expression: {error}") from None
        elif name == "one_of":
            if not isinstance(value, list) or not value or not all(isinstance(one, str | int | float) for one in value):
                raise _Fault(path, "oneOf must be a list of texts or numbers")
            given[name] = tuple(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise _Fault(path, f"{attribute} must be a number, not {_brief(value)}")
    return Rules(**given, source=str(avro.get("source", ""))) if given else Rules()


def _presence(avro: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[Presence, ...]:
    listed = avro.get("presence", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _Fault((), "presence must be a list of objects")
    found = []
    for one in listed:
        rule, named, field = one.get("rule"), one.get("fields"), one.get("field", "")
        if rule not in PRESENCE_RULES:
            raise _Fault((), f"presence: rule must be one of {', '.join(PRESENCE_RULES)}, not {_brief(rule)}")
        if not isinstance(named, list) or not named or (rule == "required_when") != (field in fields):
            raise _Fault((), f'presence: {rule} needs "fields", and required_when a "field" of the record')
        for name in named:
            if name not in fields:
                raise _Fault((), f"presence: unknown field {_brief(name)}{_nearest(str(name), fields)}")
        values = one.get("values", [])
        if not isinstance(values, list):
            raise _Fault((), "presence: values must be a list")
        found.append(Presence(rule, tuple(named), str(one.get("source", "")), field, tuple(values)))
    return tuple(found)
