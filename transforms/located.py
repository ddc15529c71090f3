"""YAML whose every value knows its file, line and column, so that an error can point at it.

Built on PyYAML's event stream with the safe C loader: no tag is ever turned into a Python object. Plain scalars follow
YAML 1.2's core schema, as editors do: only `true` and `false` are booleans, so the country code `NO` and a model's `off`
stay text; `2024-01-31` and `1:30` stay text; `1e3` is a number. Keys are always the text as written. Anchors, aliases and
merge keys (`<<`) work, within bounds.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias, Union

import yaml

MAX_NODES = 100_000  # values after aliases are expanded: a whole relay file has a few hundred
MAX_DEPTH = 64
MAX_BYTES = 4_000_000
MAX_PROBLEMS = 100  # more than this helps nobody

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is absent from some builds of PyYAML
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

Value: TypeAlias = Union["dict[str, Node]", "list[Node]", str, int, float, bool, None]


class Problem(NamedTuple):
    """One thing wrong in a file. Line and column are 1-based, 0 when the whole file is meant; `key` is a dotted path."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        line = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)  # keys may hold anything


class Problems(Exception):
    """Every problem found in a file, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.column)))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))

    def __reduce__(self) -> tuple[type[Problems], tuple[tuple[Problem, ...]]]:
        return Problems, (self.problems,)


class Node:
    """A value of a YAML file with its place.

    `line`, `column`: 1-based, of the value. `key`: its dotted path from the top (`destinations.teak.batch.items`, list
    items as `models[0]`). `key_line`, `key_column`: of the key that holds it (of the value itself in a list). `text`: a
    scalar as written, so that the id 007 need not become 7.
    """

    __slots__ = ("column", "file", "key", "key_column", "key_line", "line", "text", "value")

    def __init__(
        self,
        value: Value,
        file: str,
        line: int,
        column: int,
        key: str = "",
        key_line: int = 0,
        key_column: int = 0,
        text: str = "",
    ) -> None:
        self.value = value
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.key_line = key_line or line
        self.key_column = key_column or column
        self.text = text

    def __repr__(self) -> str:
        return f"Node({self.key or 'top'} at {self.file}:{self.line}:{self.column}, {self.kind})"

    @property
    def kind(self) -> str:
        """What the value is, in words for a message: `a map`, `a list`, `text`, `a whole number`, ..."""
        return _KINDS[type(self.value)]

    def plain(self) -> Any:
        """The value as ordinary Python dicts, lists and scalars."""
        value = self.value
        if isinstance(value, dict):
            return {key: node.plain() for key, node in value.items()}
        if isinstance(value, list):
            return [node.plain() for node in value]
        return value

    def problem(self, message: str) -> Problem:
        """A problem at the value."""
        return Problem(self.file, self.line, self.column, self.key, message)

    def key_problem(self, message: str) -> Problem:
        """A problem at the key that holds the value (unknown key, key that should not be there)."""
        return Problem(self.file, self.key_line, self.key_column, self.key, message)


_KINDS: dict[type, str] = {
    dict: "a map", list: "a list", str: "text", int: "a whole number", float: "a number", bool: "true or false",
    type(None): "nothing",
}  # fmt: skip


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like the word, upper and lower case and `-`, `_` and spaces being alike; None when none is near."""
    plain: dict[str, str] = {}
    for choice in choices:
        plain.setdefault(_alike(choice), choice)
    found = difflib.get_close_matches(_alike(word[:100]), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or the list of what there is when nothing is near: the end of an unknown-word message."""
    choices = tuple(choices)
    near = nearest(word, choices)
    if near is not None:
        return f"; did you mean {near}?"
    return f"; expected one of {', '.join(choices)}" if choices else ""


def read(path: str | os.PathLike[str], name: str | None = None) -> Node:
    """Read and parse a YAML file; `name` stands for it in messages. Raises Problems, also when it cannot be read."""
    file = name or os.fspath(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Problems([Problem(file, 0, 0, "", f"cannot be read: {reason or error}")]) from None
    return parse_bytes(data, file)


def parse_bytes(data: bytes, file: str) -> Node:
    """Parse UTF-8 YAML, with or without a byte order mark. Raises Problems."""
    if len(data) > MAX_BYTES:
        raise Problems([Problem(file, 0, 0, "", f"larger than {MAX_BYTES:,} bytes; is it the right file?")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = _place(before, len(before))
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            message = "not UTF-8 (it looks like UTF-16); save the file as UTF-8"
        else:
            message = f"not UTF-8: byte 0x{data[error.start]:02x} here; is it a text file? Save it as UTF-8"
        raise Problems([Problem(file, line, column, "", message)]) from None
    return parse(text, file)


def parse(text: str, file: str) -> Node:
    """Parse one YAML document; an empty one is a Node of None.

    Raises Problems on bad YAML, a duplicate key, a tag other than YAML's own, a key that is no scalar, and on values that
    are nested or multiplied by aliases beyond MAX_DEPTH and MAX_NODES.
    """
    odd = _UNPRINTABLE.search(text)
    if odd is not None and not (odd.start() == 0 and odd.group() == "\ufeff"):
        line, column = _place(text, odd.start())
        message = f"character U+{ord(odd.group()):04X} is not allowed in YAML; is it a text file?"
        raise Problems([Problem(file, line, column, "", message)])
    builder = _Builder(file)
    try:
        top = builder.document(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_syntax(error, text, file))
        raise Problems(builder.problems) from None
    except yaml.YAMLError as error:
        raise Problems([*builder.problems, Problem(file, 0, 0, "", f"not YAML: {error}")]) from None
    if builder.problems:
        raise Problems(builder.problems[:MAX_PROBLEMS])
    return top


class _Raw:
    """A composed value before aliases are expanded: scalars are done, collections hold further raws."""

    __slots__ = ("column", "line", "open", "text", "value")

    def __init__(self, value: Any, mark: Any) -> None:
        self.value = value  # scalar | list[_Raw] | dict[str, tuple[_Raw of the key, _Raw]]
        self.line: int = mark.line + 1
        self.column: int = mark.column + 1
        self.text = ""
        self.open = True  # still being read: an alias to it would never end


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.anchors: dict[str, _Raw] = {}
        self.nodes = 0

    def document(self, events: Iterator[Any]) -> Node:
        top: _Raw | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    mark: Any = event.start_mark
                    message = "a second YAML document starts here; expected one document a file"
                    self.add(mark.line + 1, mark.column + 1, "", message)
                    break
                top = self.value(next(events), events, 0, "")
        if top is None:
            return Node(None, self.file, 1, 1)
        if self.problems:
            raise Problems(self.problems[:MAX_PROBLEMS])
        return self.node(top, "", top.line, top.column, 0)

    def add(self, line: int, column: int, key: str, message: str) -> None:
        self.problems.append(Problem(self.file, line, column, key, message))

    def fail(self, line: int, column: int, key: str, message: str) -> Problems:
        return Problems([*self.problems[:MAX_PROBLEMS], Problem(self.file, line, column, key, message)])

    def value(self, event: Any, events: Iterator[Any], depth: int, path: str) -> _Raw:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if depth > MAX_DEPTH:
            raise self.fail(line, column, path, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            name: Any = event.anchor
            target = self.anchors.get(name)
            if target is None:  # the name is not shown: an unquoted secret may start with *
                near = nearest(name, self.anchors)
                hint = f"did you mean *{near}?" if near else "quote the value if it is text"
                raise self.fail(line, column, path, f"an alias (*name) without an anchor (&name) before it; {hint}")
            if target.open:
                raise self.fail(line, column, path, "an alias inside its own anchor: the value would contain itself")
            return target
        raw = _Raw(None, event.start_mark)
        if event.anchor:
            self.anchors[event.anchor] = raw
        if isinstance(event, yaml.ScalarEvent):
            raw.value = self.scalar(event, line, column, path)
            raw.text = event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            self.tag(event, ("tag:yaml.org,2002:seq",))
            raw.value = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                raw.value.append(self.value(event, events, depth + 1, f"{path}[{len(raw.value)}]"))
        else:
            self.tag(event, ("tag:yaml.org,2002:map",))
            raw.value = {}
            while not isinstance(event := next(events), yaml.MappingEndEvent):
                self.pair(raw.value, event, events, depth, path)
        raw.open = False
        return raw

    def pair(
        self, pairs: dict[str, tuple[_Raw, _Raw]], event: Any, events: Iterator[Any], depth: int, path: str
    ) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            key, place = event.value, _Raw(None, event.start_mark)
            if event.anchor:
                place.value, place.open = event.value, False
                self.anchors[event.anchor] = place
            self.tag(event, ("tag:yaml.org,2002:str",))
        else:
            key, place = None, self.value(event, events, depth + 1, path)
            if isinstance(event, yaml.AliasEvent) and isinstance(place.value, str):
                key = place.value
            else:
                self.add(line, column, "", "a key must be plain text, not a list or map; quote it if it has { or [")
        where = f"{path}.{key}" if path else str(key)
        value = self.value(next(events), events, depth + 1, where)
        if key is None:
            return
        if key in pairs:
            first = pairs[key][0].line
            self.add(line, column, where, f"given twice; the first is on line {first}; keep one")
            return
        pairs[key] = (place, value)

    def tag(self, event: Any, allowed: tuple[str, ...]) -> None:
        if event.tag not in (None, "!", *allowed):
            message = "a tag (!name) is not supported; quote the value if it is text"
            self.add(event.start_mark.line + 1, event.start_mark.column + 1, "", message)

    def scalar(self, event: Any, line: int, column: int, path: str) -> str | int | float | bool | None:
        text: str = event.value
        self.tag(event, ("tag:yaml.org,2002:str",))
        if event.tag is not None or not event.implicit[0]:
            return text  # quoted, a block of text, or marked as text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.match(text) or _BASED.match(text):
            if len(text) > 40:  # int() itself refuses above 4,300 digits
                self.add(line, column, path, "a number of more than 40 digits; quote it if it is text")
                return 0
            return int(text, 0) if _BASED.match(text) else int(text)
        if _FLOAT.match(text):
            number = float(text)
            if math.isinf(number):
                self.add(line, column, path, "a number too large; quote it if it is text")
            return number
        return text

    def node(self, raw: _Raw, key: str, key_line: int, key_column: int, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(raw.line, raw.column, key, f"more than {MAX_NODES:,} values once aliases are expanded")
        if depth > MAX_DEPTH:
            raise self.fail(raw.line, raw.column, key, f"nested deeper than {MAX_DEPTH} levels")
        value: Value = raw.value
        if isinstance(raw.value, list):
            value = [
                self.node(item, f"{key}[{index}]", item.line, item.column, depth + 1)
                for index, item in enumerate(raw.value)
            ]
        elif isinstance(raw.value, dict):
            members: dict[str, Node] = {
                name: self.node(item, f"{key}.{name}" if key else name, place.line, place.column, depth + 1)
                for name, (place, item) in raw.value.items()
                if name != "<<"
            }
            if "<<" in raw.value:
                place, source = raw.value["<<"]
                self.merge(members, place, source, key, depth)
            value = members
        return Node(value, self.file, raw.line, raw.column, key, key_line, key_column, raw.text)

    def merge(self, into: dict[str, Node], place: _Raw, source: _Raw, key: str, depth: int) -> None:
        """`<<: *base` or `<<: [*a, *b]`: keys that are not there already, the first of a list winning."""
        maps = source.value if isinstance(source.value, list) else [source]
        for raw in maps:
            node = self.node(raw, key, place.line, place.column, depth + 1)
            if not isinstance(node.value, dict):
                self.add(
                    place.line, place.column, f"{key}.<<" if key else "<<", "expected a map, such as *name, to merge"
                )
                continue
            for name, item in node.value.items():
                into.setdefault(name, item)


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    said = error.problem or "cannot be understood"
    if "\t" in here[: len(here) - len(here.lstrip())] or here[column - 1 : column] == "\t":
        return Problem(
            file, line, max(here.find("\t"), 0) + 1, "", "a tab where YAML allows only spaces; indent with spaces"
        )
    message = f"not YAML: {said}"
    if error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f" ({error.context}, from line {error.context_mark.line + 1})"
    if "mapping values are not allowed" in said:
        message += '; a value with ": " in it must be quoted, and keys of one map must line up'
    elif "cannot start any token" in said:
        message += "; quote the value"
    elif "could not find expected ':'" in said or "expected ',' or" in said or "expected <block end>" in said:
        message += "; look for a missing ':', bracket or quote, or an indent that does not line up"
    return Problem(file, line, column, "", message)


def _place(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _alike(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")
