"""Avro's binary records to Python values, by a function compiled for the file's schema.

fastavro interprets the schema for each value, which takes five to ten times as long as decoding the same record
from JSON. Here the schema becomes Python code once a file, and fields that nobody asks for are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, groupby
from typing import Any, Final, Protocol

from schemas import Field, Type

BAD_RECORD: Final = (ValueError, IndexError, KeyError, EOFError, OverflowError, RecursionError, struct.error)
"""What reading raises for bytes that are no records of the schema; UnicodeDecodeError is a ValueError."""


class ReadRecords(Protocol):
    """Reads `count` records from the start of `data`, appends them to `records` and returns where they end.
    Compiled with `ends`, it appends pairs: the record, and where it ends.

    Raises one of BAD_RECORD; the records before are in `records` then.
    """

    def __call__(self, data: bytes, count: int, records: list[Any], /) -> int: ...


def compile_records(
    schema: Any,
    reader: Type | None = None,
    decode: Callable[[bytes], str] = bytes.decode,
    ends: bool = False,
    seen: Collection[str] | None = None,
) -> ReadRecords:
    """A function that reads records written by a schema (parsed JSON, logical types not heeded), as dicts.

    reader: the type that is wanted; fields that it does not have are passed over, and so are nulls where null is the
    default. None: all fields.
    decode: makes text of bytes that are not ASCII. ends: tell where each record ends.
    seen: fields that are null seldom; where others follow each other, it is tried first whether all of them are null.
    None: nothing is known of that.
    Raises ValueError for a schema that is none.
    """
    code = _Code(seen)
    name = code.record(schema, "", reader, skip=False)
    source = "\n".join((*code.lines, _LOOP.format(name=name, found="(record, at)" if ends else "record")))
    scope: dict[str, Any] = {"_number": _number, "_length": _length, "_float": _FLOAT, "_double": _DOUBLE}
    scope |= {"_SIZES": _SIZES, "_decode": decode, **code.constants}
    # All of the source is written below: no name or text of the schema is in it, those are constants.
    try:
        exec(compile(source, "<avro schema>", "exec"), scope)  # noqa: S102
    except SyntaxError as error:  # Python's limit of 20 loops, or 100 conditions, in one another
        raise ValueError("the schema is nested too deeply") from error
    read: ReadRecords = scope["read"]
    return read


def fields_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the fields that records have, and the records in them."""
    found: set[str] = set()
    waiting = list(records)
    while waiting:
        record = waiting.pop()
        found |= record.keys()
        waiting += [value for value in record.values() if isinstance(value, dict)]
    return found


_LOOP: Final = """
def read(data, count, records):
    text, at, end, append = data.decode("latin-1"), 0, len(data), records.append
    for _ in range(count):
        record, at = {name}(data, text, at)
        if at > end:
            raise EOFError("it ends inside a record")
        append({found})
    return at
"""

_FLOAT: Final = struct.Struct("<f").unpack_from
_DOUBLE: Final = struct.Struct("<d").unpack_from


_SCALES: Final = tuple(128**place for place in range(1, 10))
"""What a number's second byte and those behind it count, up to 64 bits."""


def _number(first: int, data: bytes, at: int) -> tuple[int, int]:
    """The rest of a variable length number whose first byte was read: the number, zigzag, and where it ends."""
    value = first
    for scale in _SCALES:
        byte = data[at]
        at += 1
        value += (byte - 1) * scale  # less 1 for bit 7 of the byte before, which says that this one follows
        if byte < 128:
            return value, at
    raise ValueError("a number has more than 64 bits")


_SIZES: Final = tuple(-1 if byte & 129 else byte >> 1 for byte in range(256))
"""The length that a first byte says alone. -1: bit 7 says that more bytes follow, or bit 0 that it is negative."""


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length whose first byte, which was read, does not say it alone, and where it ends."""
    value, at = _number(data[at - 1], data, at) if data[at - 1] > 127 else (data[at - 1], at)
    if value & 1:
        raise ValueError("a length is negative")
    return value >> 1, at


class _Code:
    """The source of the functions that read a schema's records, and the constants they use."""

    def __init__(self, seen: Collection[str] | None) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._seen = seen
        self._types: dict[str, tuple[Any, str]] = {}
        """Named types by full name, with the namespace that holds inside."""
        self._functions: dict[tuple[str, int, bool], str] = {}
        self._names = 0

    def record(self, schema: Any, space: str, reader: Type | None, skip: bool) -> str:
        """Name of the function that reads a record: (data, its Latin-1 text, offset) -> (dict, offset behind)."""
        full, inner = _full_name(schema, space)
        key = (full, id(reader), skip)
        if key in self._functions:
            return self._functions[key]
        self._types[full] = (schema, inner)
        name = self._functions[key] = self._name("record")
        known = reader.fields if reader is not None else None
        fields: list[tuple[list[str], int | None]] = []
        for field in _list(schema, "fields"):
            field_name, wanted = _text(field, "name"), not skip
            field_reader = None
            if known is not None:
                wanted &= field_name in known
                field_reader = known[field_name].type if field_name in known else None
            elif reader is not None:
                field_reader = reader.items
            kind, store = _of(field, "type"), f"record[{self._constant(field_name)}] = value" if wanted else ""
            spared = not wanted or (known is not None and _null_by_default(known[field_name]))
            if wanted and spared and isinstance(kind, list):
                lines = self._union(kind, "value", inner, field_reader, "    ", store)
            else:
                lines = self._value(kind, "value" if wanted else None, inner, field_reader, "    ")
                lines += ["    " + store] if wanted else []
            rare = self._seen is not None and field_name not in self._seen
            null = 2 * kind.index("null") if spared and rare and isinstance(kind, list) and "null" in kind else None
            fields.append((lines, null))
        self.lines += [f"def {name}(data, text, at):", "    record = {}", *self._runs(fields), "    return record, at"]
        return name

    def _runs(self, fields: Iterable[tuple[list[str], int | None]]) -> list[str]:
        """Lines that read fields, of which each has its own and, when it is null mostly, the byte that says so."""
        lines: list[str] = []
        for rare, run in groupby(fields, lambda field: field[1] is not None):
            owns, nulls = zip(*run, strict=True)
            own = list(chain.from_iterable(owns))
            if rare and len(nulls) > 2:
                test = f"    if data.startswith({self._constant(bytes(nulls))}, at):"
                own = [test, f"        at += {len(nulls)}", "    else:", *("    " + line for line in own)]
            lines += own
        return lines

    def _value(self, schema: Any, target: str | None, space: str, reader: Type | None, pad: str) -> list[str]:
        """Lines that read a value into target, or pass over it when that is None."""
        if isinstance(schema, list):
            return self._union(schema, target, space, reader, pad)
        kind = _of(schema, "type") if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self._value(kind, target, space, reader, pad)
        if kind in _PLAIN:
            return [pad + line for line in _PLAIN[kind](target)]
        if kind == "fixed":
            self._types[_full_name(schema, space)[0]] = (schema, space)
            size = _of(schema, "size")
            if not isinstance(size, int) or size < 0:
                raise ValueError("a fixed without size")
            return [pad + line for line in (*([f"{target} = data[at:at + {size}]"] if target else ()), f"at += {size}")]
        if kind == "enum":
            self._types[_full_name(schema, space)[0]] = (schema, space)
            symbols = self._constant(tuple(_list(schema, "symbols")))
            return [pad + line for line in (*_read_length(), *([f"{target} = {symbols}[size]"] if target else ()))]
        if kind == "array":
            return self._collection(_of(schema, "items"), False, target, space, reader, pad)
        if kind == "map":
            return self._collection(_of(schema, "values"), True, target, space, reader, pad)
        if kind in ("record", "error"):
            name = self.record(schema, space, reader, skip=target is None)
            return [f"{pad}{target or '_'}, at = {name}(data, text, at)"]
        if isinstance(schema, str):
            found = self._types.get(f"{space}.{schema}" if space and "." not in schema else schema)
            found = found or self._types.get(schema)
            if found:
                return self._value(found[0], target, found[1], reader, pad)
        raise ValueError(f"unknown type {kind!r}")

    def _union(
        self, branches: list[Any], target: str | None, space: str, reader: Type | None, pad: str, store: str = ""
    ) -> list[str]:
        """Like `_value`, of a union. store: a line that keeps a value which is not null; null is left out then."""
        # An index of 64 or more, or a negative one, matches no branch.
        lines = [f"{pad}n = data[at]", f"{pad}at += 1"]
        if not branches or len(branches) > 64:
            raise ValueError("a union of no types, or of more than 64")
        # Null is asked for last: most values are there.
        order = sorted(range(len(branches)), key=lambda index: branches[index] == "null")
        for place, index in enumerate(order):
            branch = branches[index]
            lines.append(f"{pad}{'elif' if place else 'if'} n == {2 * index}:")
            own = self._value(branch, None if store and branch == "null" else target, space, reader, pad + "    ")
            own += [f"{pad}    {store}"] if store and branch != "null" else []
            lines += own or [pad + "    pass"]
        return [*lines, f"{pad}else:", f"{pad}    raise ValueError('a union has no such branch')"]

    def _collection(
        self, of: Any, keyed: bool, target: str | None, space: str, reader: Type | None, pad: str
    ) -> list[str]:
        name = self._name("c")
        count, item, key = f"{name}n", f"{name}v", f"{name}k"
        items = reader.items if reader is not None else None
        inner = pad + "        "
        value = self._value(of, item if target else None, space, items, inner)
        store = f"{name}[{key}] = {item}" if keyed else f"{name}.append({item})"
        keys = [inner + line for line in _PLAIN["string"](key if target else None)] if keyed else []
        return [
            *([f"{pad}{name} = {'{}' if keyed else '[]'}"] if target else ()),
            f"{pad}while True:",
            *(f"{pad}    {line}" for line in _PLAIN["long"](count)),
            f"{pad}    if {count} < 0:",  # the block's size in bytes follows
            f"{pad}        {count} = -{count}",
            *(f"{pad}        {line}" for line in _PLAIN["long"](None)),
            f"{pad}    if {count} > len(data) - at:",
            f"{pad}        raise ValueError('more elements than bytes')",
            f"{pad}    if not {count}:",
            f"{pad}        break",
            f"{pad}    for _ in range({count}):",
            *keys,
            *value,
            *([inner + store] if target else ()),
            *([] if keys or value or target else [inner + "pass"]),
            *([f"{pad}{target} = {name}"] if target else ()),
        ]

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def _constant(self, value: Any) -> str:
        name = self._name("k")
        self.constants[name] = value
        return name


def _read_length() -> list[str]:
    return ["size = _SIZES[data[at]]", "at += 1", "if size < 0:", "    size, at = _length(data, at)"]


def _sized(target: str | None, value: list[str]) -> list[str]:
    if target is None:
        return [*_read_length(), "at += size"]
    return [*_read_length(), "end = at + size", *(line.format(target) for line in value), "at = end"]


def _long(target: str | None) -> list[str]:
    lines = [
        "n = data[at]",
        "at += 1",
        "if n > 127:",
        "    m = data[at]",
        "    if m < 128:",
        "        n += (m << 7) - 128",
        "        at += 1",
        "    else:",
        "        n, at = _number(n, data, at)",
    ]
    return [*lines, f"{target} = n >> 1 ^ -(n & 1)"] if target else lines


# A slice of the block's Latin-1 text is the string at once when it is ASCII, as most are.
_TEXT: Final = ["{0} = text[at:end]", "if not {0}.isascii():", "    {0} = _decode(data[at:end])"]

_PLAIN: Final[Mapping[str, Callable[[str | None], list[str]]]] = {
    "null": lambda target: [f"{target} = None"] if target else [],
    "boolean": lambda target: [*([f"{target} = data[at] != 0"] if target else ()), "at += 1"],
    "int": _long,
    "long": _long,
    "float": lambda target: [*([f"{target} = _float(data, at)[0]"] if target else ()), "at += 4"],
    "double": lambda target: [*([f"{target} = _double(data, at)[0]"] if target else ()), "at += 8"],
    "string": lambda target: _sized(target, _TEXT),
    "bytes": lambda target: _sized(target, ["{0} = data[at:end]"]),
}


def _null_by_default(field: Field) -> bool:
    """Whether a record without the field is one whose field is null."""
    return field.type.nullable and field.default is None


def _full_name(schema: Any, space: str) -> tuple[str, str]:
    """Full name of a named type, and the namespace that holds inside it."""
    name = _text(schema, "name")
    if "." in name:
        return name, name.rpartition(".")[0]
    inner = schema.get("namespace", space)
    return (f"{inner}.{name}" if inner else name), inner


def _of(schema: Any, key: str) -> Any:
    if not isinstance(schema, dict) or key not in schema:
        raise ValueError(f"a type without {key}")
    return schema[key]


def _text(schema: Any, key: str) -> str:
    value = _of(schema, key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _list(schema: Any, key: str) -> list[Any]:
    value = _of(schema, key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is no list")
    return value
