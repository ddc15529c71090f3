"""Operators on values: conversions, replacing, times and arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from transforms.mapping import language as l
from transforms.mapping.containers import flat
from transforms.mapping.convert import (
    as_text,
    call,
)
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want
from transforms.mapping.runtime import LONG_MAX, LONG_MIN
from transforms.mapping.types import (
    BOOLEAN,
    DOUBLE,
    LONG,
    NUMBER,
    STRING,
)
from transforms.mapping.values import fitted, value


def text_of(em: Emitter, operand: Operand, block: Block) -> Operand:
    """The value as text, null staying null."""
    solid = operand.type.solid
    if operand.type.unknown or not solid:
        return operand
    if operand.known:
        return operand if isinstance(operand.value, str) else call(em, "text", operand, block, STRING, "text")
    if solid <= {"string", "long"}:
        return as_text(em, operand, block)
    if solid <= {"boolean"}:
        return call(em, "text", operand, block, STRING, "text")
    test = f"{operand.code}.__class__ is str" + (f" or {operand.code} is None" if operand.type.nullable else "")
    code = f"{operand.code} if {test} else text({operand.code}, {em.field!r})"
    return em.assign(block, "text", code, STRING.with_null(operand.type.nullable), operand.told, fallible=True)


def convert(em: Emitter, e: l.Convert, block: Block, want: Want | None) -> Operand:
    """`{number: e}`, `{integer: e}`, `{text: e}`, `{boolean: e}`, `{json: e}`, `{flat: e}`."""
    if e.to == "flat":
        return fitted(em, flat(em, e.item, block), e, block, want)
    operand = value(em, e.item, block)
    if operand.type.unknown or not operand.type.solid:
        return operand
    return fitted(em, _CONVERSIONS[e.to](em, e, operand, block), e, block, want)


def _to_number(em: Emitter, e: l.Convert, operand: Operand, block: Block) -> Operand:
    solid = operand.type.solid
    if "json" not in solid and solid & {"boolean", "map", "array", "record", "bytes"}:
        return em.problem(e.item.node, f"{operand.told or 'the value'} is {operand.type.words()}, which is no number")
    if e.to == "number":
        return operand if solid <= {"long", "double"} else call(em, "number", operand, block, NUMBER, "number")
    return (
        operand if solid == {"long"} else call(em, "rounded" if e.round else "integer", operand, block, LONG, "whole")
    )


def _to_text(em: Emitter, e: l.Convert, operand: Operand, block: Block) -> Operand:
    if "bytes" in operand.type.solid:
        return em.problem(e.item.node, "bytes have no text")
    return text_of(em, operand, block)


def _to_boolean(em: Emitter, e: l.Convert, operand: Operand, block: Block) -> Operand:
    solid = operand.type.solid
    if "json" not in solid and solid & {"map", "array", "record", "bytes"}:
        return em.problem(e.item.node, f"{operand.told or 'the value'} is {operand.type.words()}, not true or false")
    return operand if solid == {"boolean"} else call(em, "boolean", operand, block, BOOLEAN, "flag")


def _to_json(em: Emitter, e: l.Convert, operand: Operand, block: Block) -> Operand:
    return call(em, "json_text", operand, block, STRING, "json")


_CONVERSIONS: dict[str, Callable[[Emitter, l.Convert, Operand, Block], Operand]] = {
    "number": _to_number,
    "integer": _to_number,
    "text": _to_text,
    "boolean": _to_boolean,
    "json": _to_json,
}


def replace_text(em: Emitter, e: l.Replace, block: Block, want: Want | None) -> Operand:
    """`{replace: e, pattern: P, with: T}`."""
    operand = value(em, e.item, block, Want(STRING))
    if operand.type.unknown or not operand.type.solid:
        return operand
    name = em.module.constant("replace", f"replacer({e.pattern!r}, {e.by!r})")
    code = f"{name}({operand.code})" + (f" if {operand.code} is not None else None" if operand.type.nullable else "")
    return fitted(em, em.assign(block, "text", code, STRING.with_null(operand.type.nullable)), e, block, want)


def time(em: Emitter, e: l.Time, block: Block, want: Want | None) -> Operand:
    """`{time: e, …}`: ms since 1970, or the form that `to` says."""
    operand = value(em, e.item, block)
    solid = operand.type.solid
    if operand.type.unknown or not solid:
        return operand
    told = operand.told or "the value"
    if solid & {"map", "array", "record", "bytes", "boolean"} and "json" not in solid:
        return em.problem(e.item.node, f"{told} is {operand.type.words()}, which is no time")
    if e.format is not None:
        if not solid & {"string", "json"}:
            return em.problem(
                e.item.node, f"{told} is {operand.type.words()}; give its unit: s, ms, us or ns, not a format"
            )
        name = em.module.constant("time", f"time_from_text({e.format!r}, {e.zone!r})")
        operand = call(em, name, operand, block, LONG, "time")
    elif solid == {"string"}:
        return em.problem(e.item.node, f'{told} is text; give its format: iso, or one such as "%Y-%m-%d"')
    elif solid != {"long"} or (e.unit or "ms") != "ms":
        name = em.module.constant("time", f"time_from_number({e.unit or 'ms'!r})")
        operand = call(em, name, operand, block, LONG, "time")
    return fitted(em, _time_out(em, e.to, operand, block), e, block, want)


def _time_out(em: Emitter, to: str, operand: Operand, block: Block) -> Operand:
    if to == "ms":
        return operand
    known = block.recall((operand.code, "time to", to))
    if known is not None:
        return known
    if to == "s":
        code = f"{operand.code} // 1000" + (
            f" if {operand.code} is not None else None" if operand.type.nullable else ""
        )
        found = em.assign(block, "seconds", code, LONG.with_null(operand.type.nullable), operand.told)
    else:
        name = em.module.constant("time_text", f"time_to_text({to!r})")
        found = call(em, name, operand, block, STRING, "time")
    block.known[operand.code, "time to", to] = found
    return found


def arithmetic(em: Emitter, e: l.Arithmetic, block: Block, want: Want | None) -> Operand:
    """`{multiply: [e, e]}`, `{divide: [e, e]}`, from left to right."""
    operands = [value(em, item, block, Want(NUMBER)) for item in e.items]
    if any(one.type.unknown for one in operands):
        return next(one for one in operands if one.type.unknown)
    if any(not one.type.solid for one in operands):
        return NOTHING
    found = operands[0]
    for other in operands[1:]:
        found = _pair(em, e.op, found, other, block)
    return fitted(em, found, e, block, want)


def _pair(em: Emitter, op: str, one: Operand, other: Operand, block: Block) -> Operand:
    key = ("arithmetic", op, one.code, other.code)
    known = block.recall(key)
    if known is not None:
        return known
    nullable = [code for code in dict.fromkeys((one.code, other.code)) if _can_be_null(code, one, other)]
    whole = one.type.solid == other.type.solid == {"long"}
    if op == "multiply" and len(one.type.solid) == len(other.type.solid) == 1:
        code, fallible = f"{one.code} * {other.code}", False
    else:
        code, fallible = f"{op}({one.code}, {other.code}, {em.field!r})", True
    if nullable:
        code += " if " + " and ".join(f"{name} is not None" for name in nullable) + " else None"
    type_ = (LONG if whole and op == "multiply" else NUMBER if fallible else DOUBLE).with_null(bool(nullable))
    found = em.assign(block, "product" if op == "multiply" else "quotient", code, type_, fallible=fallible)
    if whole and op == "multiply":
        guard = f"{found.code} is not None and " if nullable else ""
        block.line(f"if {guard}not {LONG_MIN} <= {found.code} <= {LONG_MAX}:", fallible=True)
        block.line(f"    raise Bad({em.field!r}, 'a whole number beyond 64 bits')")
    block.known[key] = found
    return found


def _can_be_null(code: str, *operands: Operand) -> bool:
    return any(one.code == code and one.type.nullable for one in operands)
