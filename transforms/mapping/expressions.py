"""Constants, paths and choices, and the table of what emits which expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transforms.mapping import language as l
from transforms.mapping.conditions import condition, narrow
from transforms.mapping.containers import each, list_of, map_of, merge
from transforms.mapping.convert import (
    known_value,
)
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want
from transforms.mapping.operators import arithmetic, convert, replace_text, text_of, time
from transforms.mapping.types import (
    STRING,
    Static,
    of_value,
    union,
)
from transforms.mapping.values import fitted, value


def _const(em: Emitter, e: l.Const, block: Block, want: Want | None) -> Operand:
    return fitted(em, em.constant(e.value, of_value(e.value)), e, block, want)


def _path(em: Emitter, e: l.Path, block: Block, want: Want | None) -> Operand:
    return fitted(em, em.path(e, block), e, block, want)


def _maybe(want: Want | None) -> Want | None:
    """The same, but null may come of it: another branch may have a value."""
    return want and want._replace(required=False)


def _branch(em: Emitter, name: str, e: l.Expression, block: Block, want: Want | None) -> Operand:
    """A value put into a name that several branches share."""
    found = value(em, e, block, _maybe(want))
    block.line(f"{name} = {found.code}")
    return found


def _first(em: Emitter, e: l.First, block: Block, want: Want | None) -> Operand:
    found: list[Operand] = []
    current = value(em, e.items[0], block, _maybe(want))
    name = ""
    inner = block
    for item in e.items[1:]:
        if not em.checking and not current.type.nullable and current.type.solid:
            break
        if not em.checking and current.known and current.value is None and not name:
            current = value(em, item, block, _maybe(want))
            continue
        if not name:
            name = em.fresh("first")
            block.line(f"{name} = {current.code}")
            found.append(current)
        body = inner.child()
        current = _branch(em, name, item, body, want)
        found.append(current)
        inner.nest(f"if {name} is None:", body)
    if not name:
        return current
    nullable = current.type.nullable or not current.type.solid
    return Operand(name, union(one.type for one in found).with_null(nullable))


def _if(em: Emitter, e: l.If, block: Block, want: Want | None) -> Operand:
    test = condition(em, e.condition, block)
    if isinstance(test, bool) and not em.checking:
        return value(em, e.then if test else e.other, block, want)
    name = em.fresh("chosen")
    then, other = block.child(), block.child()
    narrow(em, e.condition, True, then)
    narrow(em, e.condition, False, other)
    found = [_branch(em, name, e.then, then, want), _branch(em, name, e.other, other, want)]
    block.nest(f"if {test}:", then)
    block.nest("else:", other)
    return Operand(name, union(one.type for one in found))


def _template(em: Emitter, e: l.Template, block: Block, want: Want | None) -> Operand:
    pieces: list[str] = []
    nullable: list[str] = []
    for part in e.parts:
        if isinstance(part, str):
            pieces.append(repr(part))
            continue
        operand = em.path(part, block)
        if operand.known and operand.value is None:
            return NOTHING
        if operand.type.solid & {"map", "array", "record", "bytes"} and "json" not in operand.type.solid:
            return em.problem(e.node, f"{part.text} is {operand.type.words()}, which has no place in a text")
        made = text_of(em, operand, block)
        pieces.append(made.code)
        if made.type.nullable and made.code not in nullable:
            nullable.append(made.code)
    code = " + ".join(pieces) or "''"
    if nullable:
        code += " if " + " and ".join(f"{one} is not None" for one in nullable) + " else None"
    return fitted(em, em.assign(block, "text", code, STRING.with_null(bool(nullable))), e, block, want)


def _lookup(em: Emitter, e: l.Lookup, block: Block, want: Want | None) -> Operand:
    key = value(em, e.key, block)
    if key.type.solid & {"map", "array", "record", "bytes"} and "json" not in key.type.solid:
        em.problem(e.key.node, f"a lookup's key is a text or number; this is {key.type.words()}")
    table: dict[str, Any] = {}
    kinds: list[Static] = []
    for name, entry in e.table.items():
        found, wrong = (
            (entry.value, None)
            if want is None or entry.value is None
            else known_value(em, entry.value, want, entry.node)
        )
        if wrong is not None:
            em.problem(entry.node, wrong)
        table[name] = found
        kinds.append(of_value(found))
    name = em.module.constant("table", repr(table))
    if key.known and key.value is None:
        return NOTHING if e.default is None else value(em, e.default, block, want)
    code = f"{name}.get({key.code})" if key.type.solid == {"string"} else f"{name}.get(key_text({key.code}))"
    operand = em.assign(block, "found", code, union(kinds).with_null())
    if e.default is None:
        return operand
    inner = block.child()
    default = _branch(em, operand.code, e.default, inner, want)
    block.nest(f"if {operand.code} is None:", inner)
    nullable = default.type.nullable or not default.type.solid
    return Operand(operand.code, union([operand.type, default.type]).with_null(nullable))


EMITTERS: dict[type[l.Expression], Callable[[Emitter, Any, Block, Want | None], Operand]] = {
    l.Const: _const,
    l.Path: _path,
    l.Template: _template,
    l.First: _first,
    l.Lookup: _lookup,
    l.Convert: convert,
    l.Replace: replace_text,
    l.Time: time,
    l.Arithmetic: arithmetic,
    l.ListOf: list_of,
    l.Each: each,
    l.MapOf: map_of,
    l.Merge: merge,
    l.If: _if,
}
