"""Generated code in the making: blocks of lines, operands, and how paths are walked.

Checking and generating are one thing: the emitter goes through a mapping once with nothing known, to find its problems,
and then once for each event type, with that type known, so that conditions on it fold away. No text of a mapping gets into
the code other than through `repr` or inside a comment without line ends.
"""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import schemas
from transforms.located import Node, Problem, suggestion
from transforms.mapping import language as l
from transforms.mapping.types import JSON, NULL, UNKNOWN, Static, of_value, static

_PIECES = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|, |[^'",]+|,""")
"""Texts, commas, and what stands between them in code."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A value in generated code. `code` costs next to nothing to repeat: a name or a small literal."""

    code: str
    type: Static
    known: bool = False
    """The value is known now: `value`."""
    value: Any = None
    told: str = ""
    """How the mapping calls it, for messages."""
    never: frozenset[Any] = frozenset()
    """Texts that it is known not to be."""


NOTHING = Operand("None", NULL, known=True)


class Want(NamedTuple):
    """What a value is to become: a field's type and rules."""

    type: Static
    rules: schemas.Rules | None = None
    required: bool = False
    """Null rejects the item."""
    final: bool = True
    """It is sent as it then is. A canonical field's value is not: it may hold nulls and infinite numbers still."""


class Block:
    """Lines at one indent. What an enclosing block has computed is known in here too, not the other way round."""

    def __init__(self, parent: Block | None = None) -> None:
        self.lines: list[str] = []
        self.parent = parent
        self.known: dict[Any, Operand] = {}
        self.fallible = False
        """A line may raise Bad, so it must not run earlier than the mapping says."""

    def line(self, text: str, fallible: bool = False) -> None:
        """Adds a line."""
        self.lines.append(text)
        self.fallible |= fallible

    def child(self) -> Block:
        """A block to be nested in this one."""
        return Block(self)

    def nest(self, header: str, child: Block) -> None:
        """Adds a child under a header such as `if x:`."""
        self.lines.append(header)
        self.lines.extend("    " + line for line in child.lines or ["pass"])
        self.fallible |= child.fallible

    def absorb(self, child: Block) -> None:
        """Takes over a child's lines as this block's own."""
        self.lines.extend(child.lines)
        self.known.update(child.known)
        self.fallible |= child.fallible

    def recall(self, key: Any) -> Operand | None:
        """What is known under the key here or in an enclosing block."""
        block: Block | None = self
        while block is not None:
            if key in block.known:
                return block.known[key]
            block = block.parent
        return None


class Fields(Protocol):
    """Where the paths of a mapping lead."""

    def resolve(self, emitter: Emitter, path: l.Path, block: Block) -> Operand:
        """The value that a path names."""


class Module:
    """The generated module's head: constants that functions share, each with a name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.values: dict[str, Any] = {}
        """Names that cannot be written as code, such as structs."""
        self._names: dict[str, str] = {}

    def constant(self, hint: str, code: str) -> str:
        """The name of a constant made by this code."""
        if code not in self._names:
            self._names[code] = self._name(hint)
            self.lines.extend(wrapped(f"{self._names[code]} = {code}"))
        return self._names[code]

    def value(self, hint: str, value: Any) -> str:
        """The name of a value that has no code."""
        for name, there in self.values.items():
            if there is value:
                return name
        name = self._name(hint)
        self.values[name] = value
        return name

    def _name(self, hint: str) -> str:
        return f"{identifier(hint).upper()}_{len(self._names) + len(self.values) + 1}"


class Emitter:
    """Emits one function's code. `checking`: nothing is known, and problems are noted."""

    def __init__(self, module: Module, problems: list[Problem] | None = None) -> None:
        self.module = module
        self.checking = problems is not None
        self.problems: list[Problem] = [] if problems is None else problems
        self.fields: Fields | None = None
        self.options: Mapping[str, Any] = {}
        self.field = ""
        """The field being made, for reasons of rejections."""
        self.entry: list[tuple[Operand | None, Operand]] = []
        """($key, $value) of the `each` being in, innermost last."""
        self.stand_ins: set[str] = set()
        """Names of records that are empty ones where the record's own is null."""
        self.certain: list[tuple[str, l.Condition]] = []
        """(reason, condition) of drops that were found to hold for every record."""
        self.count = 0
        """Names given so far."""

    def fresh(self, hint: str) -> str:
        """A name not used in this function yet."""
        self.count += 1
        return f"{identifier(hint)}_{self.count}"

    def problem(self, node: Node, message: str) -> Operand:
        """Notes a problem; an operand to go on with."""
        if self.checking:
            self.problems.append(node.problem(message))
        return Operand("None", UNKNOWN)

    def assign(
        self, block: Block, hint: str, code: str, type_: Static, told: str = "", fallible: bool = False
    ) -> Operand:
        """A new name for what the code gives."""
        name = self.fresh(hint)
        block.line(f"{name} = {code}", fallible)
        return Operand(name, type_, told=told)

    def constant(self, value: Any, type_: Static, told: str = "") -> Operand:
        """An operand of a known value."""
        if value is None:
            return NOTHING
        code = self.module.constant("const", repr(value)) if isinstance(value, dict | list) else repr(value)
        return Operand(code, type_, known=True, value=value, told=told)

    def raise_bad(self, block: Block, reason: str) -> None:
        """A line that rejects the item."""
        block.line(f"raise Bad({self.field!r}, {reason!r})", fallible=True)

    # Paths ----------------------------------------------------------------------------------------

    def path(self, path: l.Path, block: Block) -> Operand:
        """The value of a path: an entry's `$key` and `$value` inside `each`, else a field of the record."""
        if self.entry and path.parts[0] in ("key", "value"):
            key, value = self.entry[-1]
            if path.parts[0] == "value":
                return self.walk(replace(value, told="$value"), path.parts[1:], path, block)
            if key is None:
                return self.problem(path.node, "a list's elements have no $key; $value is the element")
            return self.walk(replace(key, told="$key"), path.parts[1:], path, block)
        if path.parts[0] == "options" and self.options:
            return self._option(path)
        assert self.fields is not None
        return self.fields.resolve(self, path, block)

    def _option(self, path: l.Path) -> Operand:
        name = ".".join(path.parts[1:])
        if name not in self.options:
            return self.problem(path.node, f"unknown option {name}{suggestion(name, self.options)}")
        value = self.options[name]
        if value is not None and not isinstance(value, str | int | float | bool):
            return self.problem(path.node, f"option {name} is not a text or number")
        return self.constant(value, of_value(value), path.text)

    def walk(self, operand: Operand, parts: tuple[str, ...], path: l.Path, block: Block) -> Operand:
        """The value at `parts` inside an operand."""
        for index, part in enumerate(parts):
            if operand.type.unknown or (operand.known and operand.value is None):
                return operand
            operand = self._step(operand, part, path, block, last=index == len(parts) - 1)
        return replace(operand, told=path.text)

    def _step(self, operand: Operand, part: str, path: l.Path, block: Block, last: bool) -> Operand:
        known = block.recall((operand.code, part, last)) or block.recall((operand.code, part, True))
        if known is not None:
            return known
        type_, solid = operand.type, operand.type.solid
        if solid == {"record"}:
            found = self._member(operand, part, path, block, last)
        elif solid == {"map"}:
            assert type_.items is not None
            code = f"{operand.code}.get({part!r})"
            if type_.nullable:
                code += f" if {operand.code} is not None else None"
            found = self.assign(block, part, code, type_.items.with_null())
        elif "json" in solid or "map" in solid:
            code = f"{operand.code}.get({part!r}) if {operand.code}.__class__ is dict else None"
            found = self.assign(block, part, code, JSON)
        else:
            return self.problem(path.node, f"{operand.told or path.text} is {type_.words()}, which has no {part} in it")
        if found.type.unknown:
            return found  # told again wherever the path is used
        block.known[operand.code, part, last] = found
        if found.code not in self.stand_ins:
            block.known[operand.code, part, True] = found
        return found

    def _member(self, operand: Operand, part: str, path: l.Path, block: Block, last: bool) -> Operand:
        type_ = operand.type
        assert type_.members is not None
        member = type_.members.get(part)
        if member is None:
            return self.problem(path.node, self._unknown_field(part, path, type_.members))
        if type_.access == "attribute":
            name = attribute(type_, part)
            code = f"{operand.code}.{name}" if _plain(name) else f"getattr({operand.code}, {name!r})"
            found = member.type
        else:
            code = f"{operand.code}.get({part!r})"
            found = member.type.with_null(member.type.nullable or not member.required)
        if type_.nullable:
            code += f" if {operand.code} is not None else None"
            found = found.with_null()
        elif not last and found.nullable:
            empty = self._empty(found)
            if empty:  # one `or` here spares a test for None at each field inside
                made = self.assign(block, part, f"{code} or {empty}", found.with_null(False))
                self.stand_ins.add(made.code)
                return made
        return self.assign(block, part, code, found)

    def _empty(self, type_: Static) -> str | None:
        """A record of which no field has a value, where there can be such a one."""
        if type_.solid == {"map"}:
            return "EMPTY"
        if type_.solid != {"record"} or type_.members is None:
            return None
        if not all(member.type.nullable for member in type_.members.values()):
            return None
        if type_.access == "item":
            return "EMPTY"
        assert type_.origin is not None
        return self.module.value("no_" + (type_.origin.name or "record"), empty_record(type_.origin))

    def _unknown_field(self, part: str, path: l.Path, members: Mapping[str, Any]) -> str:
        if path.parts[0] in ("key", "value") and len(path.parts) == 1:
            return f"{path.text} is known only inside each"
        if path.parts[0] == "record" and len(path.parts) == 1:
            return "$record is the payload of a pass-through model only: write fields: $record there"
        if path.parts[0] == "options":
            return f"this destination has no option {'.'.join(path.parts[1:])}"
        before = ".".join(path.parts[: path.parts.index(part)])
        where = f" in {before}" if before else ""
        return f"unknown field {part}{where}{suggestion(part, members)}"


def identifier(text: str) -> str:
    """A Python name like the text."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_").lower()[:40]
    return name if name and not name[0].isdigit() else f"v_{name}"


def wrapped(code: str, width: int = 110) -> list[str]:
    """A statement over several lines when it is long: broken only behind commas that stand outside of texts."""
    lines, line = [], ""
    for piece in _PIECES.findall(code):
        if line and len(line) + len(piece) > width and line.endswith(", "):
            lines.append(line.rstrip())
            line = "    "
        line += piece
    return [*lines, line]


def comment(text: str) -> str:
    """Text that cannot leave its comment line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _plain(name: str) -> bool:
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name)


@functools.cache
def empty_record(origin: schemas.Type) -> Any:
    """A struct of this type, which has no required field, without any value."""
    return schemas.struct_type(origin)()


def attribute(type_: Static, name: str) -> str:
    """The attribute of a decoded record that holds the field."""
    assert type_.origin is not None
    assert type_.origin.fields is not None
    return schemas.attribute_names(type_.origin.fields)[name]


def record_operand(schema: schemas.Schema, access: str) -> Operand:
    """The record itself, as `r`."""
    return Operand("r", static(schema.type, access))
