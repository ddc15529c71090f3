"""Conditions to code: True or False when that is known already, else a Python expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from transforms.located import suggestion
from transforms.mapping import language as l
from transforms.mapping.conversions import empty, key_text
from transforms.mapping.convert import as_text
from transforms.mapping.emitter import Block, Emitter, Operand
from transforms.mapping.parse import plain_text

Truth = bool | str

_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def condition(em: Emitter, what: l.Condition, block: Block) -> Truth:
    """The truth of a condition; lines that it needs go into the block."""
    if isinstance(what, l.Always):
        return what.value
    if isinstance(what, l.Not):
        inner = condition(em, what.item, block)
        if isinstance(inner, bool):
            return not inner
        null = re.fullmatch(r"(\w+) is (not )?None", inner)
        return f"{null[1]} is {'' if null[2] else 'not '}None" if null else f"not ({inner})"
    if isinstance(what, l.All | l.AnyOf):
        return _several(em, what.items, isinstance(what, l.All), block)
    assert isinstance(what, l.Test)
    operand = em.path(what.path, block)
    if operand.type.unknown:
        return True
    if em.checking:
        _check(em, what, operand)
    if operand.known:
        return _known(what, operand.value)
    if what.op == "exists":
        if not operand.type.nullable:
            return bool(what.argument)
        return f"{operand.code} is not None" if what.argument else f"{operand.code} is None"
    if what.op == "empty":
        return f"empty({operand.code})" if what.argument else f"not empty({operand.code})"
    if what.op in ("is", "in"):
        return _among(em, what, operand)
    return _match(em, what, operand, block) if what.op == "matches" else _compare(what, operand)


def _several(em: Emitter, items: Sequence[l.Condition], every: bool, block: Block) -> Truth:
    """All or any of the conditions, the later ones evaluated only when it still depends on them."""
    if em.checking:
        for item in items:
            condition(em, item, block)
        return "True"
    codes: list[str] = []
    for number, item in enumerate(items):
        later = block.child()
        found = condition(em, item, later)
        if found is (not every):
            return found
        if found is every:
            continue
        if codes and later.fallible:  # what may reject must not run before the conditions ahead of it
            rest = _several(em, items[number:], every, later_block := block.child())
            name = em.fresh("holds")
            later_block.line(f"{name} = {rest}")
            block.line(f"{name} = {_joined(codes, every)}")
            block.nest(f"if {name}:" if every else f"if not {name}:", later_block)
            return name
        block.absorb(later)
        codes.append(str(found))
    return _joined(codes, every) if codes else every


def _joined(codes: list[str], every: bool) -> str:
    if len(codes) == 1:
        return codes[0]
    return f" {'and' if every else 'or'} ".join(f"({code})" if " " in code else code for code in codes)


def narrow(em: Emitter, what: l.Condition, holds: bool, inner: Block) -> None:
    """Notes in a block what is known there as a condition holds, or does not: which fields have values, of which form."""
    if isinstance(what, l.Not):
        narrow(em, what.item, not holds, inner)
    elif isinstance(what, l.All | l.AnyOf):
        if isinstance(what, l.All) is holds:
            for item in what.items:
                narrow(em, item, holds, inner)
    elif isinstance(what, l.Test) and _tells_a_value(what, holds):
        operand = em.path(what.path, probe := inner.child())
        if probe.lines or operand.known or operand.type.unknown:
            return  # not computed before this block, or no name of a value
        inner.known.update(_without_null(inner, operand.code))
        if what.op == "matches":
            name = em.module.constant("pattern", f"Matches({what.argument!r})")
            inner.known["checked", f"not {name}[{operand.code}]"] = operand


def _tells_a_value(test: l.Test, holds: bool) -> bool:
    """Whether the field has a value when the test holds, or does not."""
    if test.op == "exists":
        return bool(test.argument) is holds
    return bool(test.argument) is not holds if test.op == "empty" else holds


def _without_null(block: Block | None, code: str) -> dict[Any, Operand]:
    """All under which a value is known, and its text, as never null."""
    blocks = []
    while block is not None:
        blocks.append(block)
        block = block.parent
    codes = {code, *(one.known[code, "as text"].code for one in blocks if (code, "as text") in one.known)}
    found: dict[Any, Operand] = {}
    for one in blocks:
        for key, there in one.known.items():
            if there.code in codes and key not in found:
                found[key] = replace(there, type=there.type.with_null(False))
    return found


def _arguments(test: l.Test) -> list[tuple[Any, str]]:
    values = test.argument if test.op == "in" else (test.argument,)
    return list(zip(values, test.texts, strict=True))


def _check(em: Emitter, test: l.Test, operand: Operand) -> None:
    """Problems of a test: constants that a field of this type can never be."""
    solid = operand.type.solid
    words, told = operand.type.words(), test.path.text[1:]
    if test.op == "matches" and not solid & {"string", "json"}:
        em.problem(test.node, f"matches is for text, and {told} is {words}")
    if test.op == "empty" and not solid & {"map", "array", "json"}:
        em.problem(test.node, f"empty is for lists and maps, and {told} is {words}")
    if test.op in ("exists", "empty", "matches") or "json" in solid:
        return
    for value, text in _arguments(test):
        kind = _kind(value)
        if test.op in _SIGNS and kind in solid | _wider(solid):
            continue
        if test.op in ("is", "in") and (kind in solid | _wider(solid) or ("string" in solid and kind != "boolean")):
            symbols = operand.type.symbols
            if symbols is not None and plain_text(value, text) not in symbols:
                em.problem(
                    test.node,
                    f"{told} is never {plain_text(value, text)}{suggestion(plain_text(value, text), sorted(symbols))}",
                )
            continue
        got = {"string": "text", "boolean": "true or false"}.get(kind, "a number")
        em.problem(test.node, f"{told} is {words}, so it cannot be compared with {got}: {plain_text(value, text)}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "double" if isinstance(value, float) else "long"


def _wider(solid: frozenset[str]) -> frozenset[str]:
    return frozenset({"long", "double"}) if solid & {"long", "double"} else frozenset()


def _known(test: l.Test, value: Any) -> bool:
    """The truth of a test of a value that is known now."""
    if test.op == "exists":
        return (value is not None) is test.argument
    if test.op == "empty":
        return empty(value) is test.argument
    if value is None:
        return False
    if test.op == "matches":
        text = key_text(value)
        return text is not None and not isinstance(value, bool) and re.fullmatch(test.argument, text) is not None
    if test.op in _SIGNS:
        comparable = _kind(value) == _kind(test.argument) or {_kind(value), _kind(test.argument)} == {"long", "double"}
        return comparable and _COMPARE[test.op](value, test.argument)
    for one, text in _arguments(test):
        if isinstance(value, str) and not isinstance(one, bool) and value == plain_text(one, text):
            return True
        if isinstance(value, bool) == isinstance(one, bool) and not isinstance(value, str) and value == one:
            return True
    return False


def _among(em: Emitter, test: l.Test, operand: Operand) -> Truth:
    """`is` and `in`: text by text, numbers by value; true is no 1."""
    solid, code = operand.type.solid, operand.code
    texts: list[str] = []
    numbers: list[int | float] = []
    flags: list[bool] = []
    for value, text in _arguments(test):
        if isinstance(value, bool):
            flags.append(value)
        elif isinstance(value, str):
            texts.append(value)
            if "long" in solid and re.fullmatch(r"-?[1-9]\d{0,18}|0", value):  # an id, as number or as text
                numbers.append(int(value))
        else:
            numbers.append(value)
            if "string" in solid:
                texts.append(plain_text(value, text))
    texts = [text for text in texts if text not in operand.never]
    tests: list[str] = []
    if texts and solid & {"string", "json"}:
        tests.append(_equal(em, code, texts, solid <= {"string", "long", "boolean"}, "str"))
    if numbers and solid & {"long", "double", "json"}:
        sure = not solid & {"json", "boolean"}
        tests.append(_equal(em, code, numbers, sure, "bool", negate=True))
    if flags and solid & {"boolean", "json"}:
        tests.append(" or ".join(f"{code} is {flag}" for flag in dict.fromkeys(flags)))
    return " or ".join(f"({one})" if len(tests) > 1 else one for one in tests) if tests else False


def _equal(em: Emitter, code: str, values: Sequence[Any], hashable: bool, kind: str, negate: bool = False) -> str:
    values = list(dict.fromkeys(values))
    if len(values) == 1:
        test = f"{code} == {values[0]!r}"
    elif hashable:
        test = f"{code} in {em.module.constant('words', 'frozenset({' + ', '.join(map(repr, values)) + '})')}"
    else:
        test = f"{code} in ({', '.join(map(repr, values))})"  # a free value may be a list, which no set takes
    if hashable or (kind == "str" and not negate):
        return test
    return f"{code}.__class__ is not {kind} and {test}"


def _match(em: Emitter, test: l.Test, operand: Operand, block: Block) -> Truth:
    if operand.type.solid <= {"string", "long"}:
        operand = as_text(em, operand, block)
    solid, code = operand.type.solid, operand.code
    if not solid & {"string", "json"}:
        return False
    name = em.module.constant("pattern", f"Matches({test.argument!r})")
    if solid == {"string"}:
        return f"{code} is not None and {name}[{code}]" if operand.type.nullable else f"{name}[{code}]"
    return f"matches({name}, {code})"


def _compare(test: l.Test, operand: Operand) -> Truth:
    solid, code = operand.type.solid, operand.code
    numeric = not isinstance(test.argument, str)
    test_code = f"{code} {_SIGNS[test.op]} {test.argument!r}"
    if (numeric and solid <= {"long", "double"}) or (not numeric and solid == {"string"}):
        return f"{code} is not None and {test_code}" if operand.type.nullable else test_code
    if not solid & ({"long", "double", "json"} if numeric else {"string", "json"}):
        return False
    classes = "(int, float)" if numeric else "(str,)"
    return f"{code}.__class__ in {classes} and {test_code}"
