"""A checked mapping to one generated module: both hops in one loop, with a branch for each kind of event type."""

from __future__ import annotations

import hashlib
import json
import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transforms.located import Problem
from transforms.mapping import conversions, runtime, times
from transforms.mapping import language as l
from transforms.mapping.check import Parts, event_types, mentions_attributes
from transforms.mapping.conditions import condition
from transforms.mapping.convert import as_text, require
from transforms.mapping.emitter import Block, Emitter, Module, Operand, comment, wrapped
from transforms.mapping.hops import CanonicalFields
from transforms.mapping.model_code import ALWAYS, NEVER, ModelSpec, emit_model
from transforms.mapping.tree import Reasoned
from transforms.mapping.types import LONG, STRING

_UNTAKEN = ("count_untaken(filtered, event_type)",)
_COUNT = (
    "if reason:",
    "    filtered[reason] = filtered.get(reason, 0) + 1",
    "else:",
    "    count_untaken(filtered, event_type)",
)


class Program:
    """The text of the generated module."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.module = Module()
        self.fields = CanonicalFields(parts.canonical, parts.hop_one, parts.source, parts.access, parts.identity)
        self.needs_raw = any(spec.passthrough for spec in parts.on)
        self.needs_attributes = mentions_attributes(parts)
        self.certain: dict[str, l.Condition] = {}
        """Reason -> condition of drops that hold for every record, as hop one never gives what they ask for."""

    def text(self) -> str:
        """The module's code."""
        types = event_types(self.parts)
        self._common()
        bodies: dict[tuple[str, ...], list[str | None]] = {}
        for event_type in (*types, None):
            bodies.setdefault(tuple(self._take(event_type, frozenset(types))), []).append(event_type)
        dispatch: list[str] = []
        if len(bodies) > 1:
            entries = {
                text: number for number, names in enumerate(bodies.values()) for text in names
                if text is not None and None not in names
            }  # fmt: skip
            table = "{" + ", ".join(f"{text!r}: {number}" for text, number in entries.items()) + "}"
            dispatch = ["# Event type -> which of the branches below makes its items; every other type goes to the last.",
                        *wrapped(f"BRANCH = {table}"), ""]  # fmt: skip
        self.sends = any("out.append((" in line for lines in bodies for line in lines)
        loop = self._loop(bodies)
        return "\n".join([*self._head(loop), "", *dispatch, "", *loop, ""])

    def _common(self) -> None:
        """What every branch starts from: the event's type and time, then the user."""
        em = Emitter(self.module)
        self.prologue = Block()
        tried = self._prologue(em, self.prologue)
        self.user = Block(tried)
        self._user(em, self.user)
        self.names = em.count
        self.known = {**tried.known, **self.user.known}

    def _head(self, lines: Sequence[str]) -> list[str]:
        parts = self.parts
        code = "\n".join(line for line in (*lines, *self.module.lines) if not line.lstrip().startswith("#"))
        words = {"sharder", *re.findall(r"(\w+)\(", code), *re.findall(r"except (\w+) as", code)}
        imports = []
        for module in (runtime, conversions, times):
            names = sorted(words & set(module.__all__))
            if names:
                imports.append(f"from {module.__name__} import {', '.join(names)}")
        given = [
            f"# {name}: {'struct ' + value.__name__ if isinstance(value, type) else 'a record without any value'}"
            for name, value in self.module.values.items()
        ]
        models = ", ".join(comment(spec.schema.name) for spec in parts.on)
        return [
            f"# From records of {comment(parts.source.name)} to {models or 'no model'}.",
            "# A comment above a value says which line of which mapping it comes from.",
            *imports,
            "",
            f"SHARD_OF, shard_of = sharder({parts.shards})",
            *given,
            *self.module.lines,
        ]

    def _take(self, event_type: str | None, types: frozenset[str]) -> list[str]:
        """What is done with a record of one event type, or (None) of every type that is not in `types`."""
        em = Emitter(self.module)
        em.fields, em.options, em.count = self.fields, self.parts.options, self.names
        root = Block()
        root.known.update(self.known)
        known = event_type is not None
        root.known["canonical", "event_type"] = Operand(
            "event_type", STRING, known, event_type, "$event_type", frozenset() if known else types
        )
        root.known["canonical", "event_timestamp"] = Operand("time_ms", LONG, told="$event_timestamp")
        taken: list[tuple[ModelSpec, Block, str]] = []
        for index, spec in enumerate(self.parts.on):
            block = root.child()
            status = emit_model(em, spec, index, self.parts.maps[spec.name], block)
            if status != NEVER:
                taken.append((spec, block, status))
        self.certain.update(em.certain)
        return self._body(taken) if taken else [*_UNTAKEN]

    def _body(self, taken: Sequence[tuple[ModelSpec, Block, str]]) -> list[str]:
        """A record through its models, as the inside of the loop over a chunk's records."""
        always = any(status == ALWAYS for _, _, status in taken)
        lines: list[str] = []
        if not always:
            lines.append("made = False")
        if not always or any("reason = reason or " in line for _, block, _ in taken for line in block.lines):
            lines.append("reason = ''")
        for spec, block, _ in taken:
            model = self.parts.maps[spec.name]
            body = block.lines if not always else [line for line in block.lines if line.strip() != "made = True"]
            flag = [] if always else ["made = True"]
            lines.append(f"# {comment(spec.name)}: {comment(model.node.file)}:{model.node.key_line}")
            lines += _tried(
                body,
                [f"rejected.append(Rejected(ref, {spec.name!r}, bad.field, bad.reason, user, time_ms, None))", *flag],
                block.fallible,
                [
                    f"rejected.append(Rejected(ref, {spec.name!r}, '', encode_reason(error), user, time_ms, None))",
                    *flag,
                ],
            )
        return lines if always else [*lines, "if not made:", *("    " + line for line in _COUNT)]

    def _user(self, em: Emitter, block: Block) -> None:
        """Lines that put the user and the user's shard into `user` and `shard`."""
        em.field = "user_id"
        found = as_text(em, self.fields.leaf(em, "user_id", block), block)
        block.line(f"user = {found.code}")
        if found.type.nullable or not found.type.solid:
            inner = block.child()
            em.field = "anonymous_id"
            other = as_text(em, self.fields.leaf(em, "anonymous_id", inner), inner)
            if not other.type.solid:
                inner.line("user = ''")
            else:
                inner.line(
                    f"user = {other.code}" + (f" if {other.code} is not None else ''" if other.type.nullable else "")
                )
            block.nest("if user is None:", inner)
        block.lines += ["try:", "    shard = SHARD_OF[user]", "except KeyError:", "    shard = shard_of(user)"]

    def _loop(self, bodies: Mapping[tuple[str, ...], Sequence[str | None]]) -> list[str]:
        """The function that goes through a chunk's records."""
        each, given, missing = ["ref", "r"], ["refs", "records"], []
        if self.needs_raw:
            each.append("raw")
            given.append("raws")
        if self.needs_attributes:
            each.append("attributes")
            given.append("attributes_of")
            missing = ["    if attributes_of is None:", "        attributes_of = [None] * len(records)"]
        return [
            "def map_chunk(records, raws, refs, shards, tally, attributes_of=None):",
            "    filtered, rejected = tally.filtered, tally.rejected",
            "    before, held = sum(filtered.values()), sum(map(len, shards))",
            *missing,
            "    if refs.__class__ is int:",
            "        refs = range(refs, refs + len(records))",
            f"    for {', '.join(each)} in zip({', '.join(given)}):",
            *("        " + line for line in (*self.prologue.lines, *self._branches(bodies))),
            "    tally.records += len(records)",
            "    tally.touched += len(records) - (sum(filtered.values()) - before)",
            "    tally.items += sum(map(len, shards)) - held",
        ]

    def _branches(self, bodies: Mapping[tuple[str, ...], Sequence[str | None]]) -> list[str]:
        """What is done with a record, by the branch that its event type goes to."""
        user = [
            *_tried(
                self.user.lines,
                ["rejected.append(Rejected(ref, '', bad.field, bad.reason, '', time_ms, None))", "continue"],
            ),
            "out = shards[shard]",
        ]
        if len(bodies) == 1:
            (only,) = bodies
            return [*only] if only == _UNTAKEN else [*user, *only]
        numbers = {lines: number for number, lines in enumerate(bodies)}
        code = ["branch = BRANCH.get(event_type)"]
        if _UNTAKEN in bodies:
            test = "is None" if None in bodies[_UNTAKEN] else f"== {numbers[_UNTAKEN]}"
            code += [f"if branch {test}:", *("    " + line for line in (*_UNTAKEN, "continue"))]
        code += user
        taken = sorted((lines for lines in bodies if lines != _UNTAKEN), key=lambda lines: None in bodies[lines])
        for position, lines in enumerate(taken):
            shown = ["every other type" if name is None else comment(repr(name)[1:-1]) for name in bodies[lines]]
            inner = [f"# {', '.join(shown)}", *lines]
            if len(taken) > 1:
                word = "if" if position == 0 else "elif"
                code.append("else:" if lines is taken[-1] else f"{word} branch == {numbers[lines]}:")
                inner = ["    " + line for line in inner]
            code += inner
        return code

    def _prologue(self, em: Emitter, body: Block) -> Block:
        """What comes before the models: hop one's drops, the event's type and time. The block that knows of it."""
        em.fields = self.fields.source
        tried = body.child()
        for one in self.parts.hop_one.drop:
            self._drop(em, one, tried)
        em.fields = self.fields
        for name, type_, variable in (("event_type", STRING, "event_type"), ("event_timestamp", LONG, "time_ms")):
            em.field = name
            found = require(em, self.fields.leaf(em, name, tried), True, tried, self.fields.nowhere, name)
            assert found.type.solid <= type_.solid or found.known
            _name(tried, found, variable)
        for bound, test, reason in (
            (self.parts.since_ms, "<", "before --since"),
            (self.parts.until_ms, ">=", "after --until"),
        ):
            if bound is not None:
                tried.line(f"if time_ms {test} {bound:d}:")
                tried.line(f"    filtered[{reason!r}] = filtered.get({reason!r}, 0) + 1")
                tried.line("    continue")
        if tried.fallible:
            handler = ["rejected.append(Rejected(ref, '', bad.field, bad.reason, '', 0, None))", "continue"]
            body.lines += _tried(tried.lines, handler)
        else:
            body.lines += tried.lines
        return tried

    def _drop(self, em: Emitter, one: Reasoned, block: Block) -> None:
        test = condition(em, one.when, block)
        if test is False:
            return
        inner = block.child()
        inner.line(f"filtered[{one.reason!r}] = filtered.get({one.reason!r}, 0) + 1")
        inner.line("continue")
        block.nest(f"if {test}:", inner)


def _name(block: Block, operand: Operand, name: str) -> None:
    """Puts an operand into a name of its own; the operand's own name goes where the line before has just made it."""
    start = f"{operand.code} = "
    if not block.lines or not block.lines[-1].startswith(start):
        block.line(f"{name} = {operand.code}")
        return
    block.lines[-1] = f"{name} = {block.lines[-1].removeprefix(start)}"
    for key, known in block.known.items():
        if known.code == operand.code:
            block.known[key] = replace(known, code=name)


def nothing_sent(program: Program) -> list[Problem]:
    """The problem of a mapping that drops every record for want of a field that hop one never gives."""
    first = program.parts.hop_one
    if program.sends or first.node is None:
        return []
    found = []
    for reason, test in program.certain.items():
        paths = {part.path.parts: None for part in l.walk(test) if isinstance(part, l.Test)}
        missing = [
            f"source.event.{'.'.join(parts)}"
            for parts in paths
            if not any(".".join(parts[:length]) in first.fields for length in range(1, len(parts) + 1))
        ]
        if missing:  # without one, the mapping drops by event type what it takes: odd, but as it was asked to
            hint = f"set {' or '.join(missing)}"
            found.append(
                first.node.problem(f'nothing would be sent: every record would be dropped as "{reason}"; {hint}')
            )
    return found


def _tried(lines: Sequence[str], bad: Sequence[str], fallible: bool = True, encoding: Sequence[str] = ()) -> list[str]:
    tried = ["try:", *("    " + line for line in lines)]
    if fallible:
        tried += ["except Bad as bad:", *("    " + line for line in bad)]
    if encoding:
        tried += ["except ENCODE_ERRORS as error:", *("    " + line for line in encoding)]
    return tried


def compile_program(program: Program) -> tuple[str, str, Callable[..., None]]:
    """(code with its header, version, map_chunk) of a program."""
    text = program.text()
    hashed = [text, *(json.dumps(spec.schema.avro, sort_keys=True) for spec in program.parts.on)]
    version = hashlib.sha256("\n".join(hashed).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    code = f"# Mapping version {version}\n{text}"
    name = f"<mapping {version}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {**program.module.values, "EMPTY": {}}
    exec(compile(code, name, "exec"), namespace)  # noqa: S102  # generated above; holds texts of the mapping as literals only
    map_chunk: Callable[..., None] = namespace["map_chunk"]
    return code, version, map_chunk
