"""Fitting a value into a field: what goes by itself, what is checked when the value is there, what is a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import schemas
from transforms.located import Node, suggestion
from transforms.mapping import language as l
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want
from transforms.mapping.parse import plain_text
from transforms.mapping.rules import Check, checks
from transforms.mapping.runtime import DOUBLE_MAX, LONG_MAX, LONG_MIN
from transforms.mapping.types import MADE_MAP, Static, of_value

Make = Callable[[Block], Operand]
"""Emits a value into a block."""

_SCALARS = frozenset({"string", "long", "double", "boolean"})
_FROM_JSON = {
    frozenset({"string"}): "as_string",
    frozenset({"string", "long"}): "as_id",
    frozenset({"long"}): "as_long",
    frozenset({"double"}): "as_number",
    frozenset({"long", "double"}): "as_number",
    frozenset({"boolean"}): "as_boolean",
    frozenset({"map"}): "as_map",
    frozenset({"record"}): "as_map",
    frozenset({"array"}): "as_list",
}


def fit(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    """The operand as a value of the wanted type, converted and checked by code in the block. Null stays null."""
    if operand.type.unknown or (want.required and operand.known and operand.value is None):
        return operand
    if operand.known:
        return _fit_known(em, operand, want, block, node)
    message = mismatch(operand.type, want.type)
    if message is not None:
        return em.problem(
            node, f"expected {want.type.words()}, but {_told(operand)} is {operand.type.words()}; {message}"
        )
    if want.required and operand.type.solid:
        operand = require(em, operand, True, block, node, em.field)
    fitted = _convert(em, operand, want, block, node)
    for check in checks(want, em.module):
        _emit_check(em, fitted, check, block)
    return fitted


def _told(operand: Operand) -> str:
    return operand.told or "the value"


def mismatch(source: Static, target: Static) -> str | None:
    """What to do about a type that does not go into another; None when it does."""
    have, want = source.solid, target.solid
    if not have or "json" in want or "json" in have or have <= want:
        return None
    if "string" in want and have <= {"string", "long"}:
        return None
    if "double" in want and have <= {"long", "double"}:
        return None
    if have in ({"record"}, {"map"}) and want & {"record", "map"}:
        return None
    if "string" in want:
        return "write {json: …} for its JSON text" if have & {"map", "array", "record"} else "write {text: …}"
    if want & {"long", "double", "boolean"} and have & {"map", "array", "record", "bytes"}:
        return "name a value inside it"
    if "double" in want:
        return "write {number: …}"
    if "long" in want:
        return "write {integer: …}, with round: true for the nearest" if "double" in have else "write {integer: …}"
    if "boolean" in want:
        return "write {boolean: …}"
    if "array" in want:
        return "write {list: […]}, or {list: …, each: …} of a map"
    return "write {map: {…}}" if want & {"map", "record"} else "there is no conversion"


# Constants ----------------------------------------------------------------------------------------


def _fit_known(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    if operand.value is None:
        return NOTHING
    value, message = known_value(em, operand.value, want, node)
    if message is None:
        if isinstance(value, dict | list) or value is not operand.value:
            return replace(em.constant(value, of_value(value), operand.told), type=_made(want.type))
        return operand
    if em.checking:
        return em.problem(node, message)
    em.raise_bad(block, message)  # known only now that both hops are one; the mapping as written may be right
    return NOTHING


def known_value(em: Emitter, value: Any, want: Want, node: Node) -> tuple[Any, str | None]:
    """(a constant as the wanted type has it, None) or (anything, what is wrong with it)."""
    kinds = want.type.solid
    found = value
    if isinstance(value, dict | list):
        if want.type.origin is not None and "json" not in kinds:
            wrong = schemas.fits(want.type.origin, value)
            if wrong is not None:
                return value, f"expected {want.type.words()}: {wrong}"
        elif not kinds & {"json", "map" if isinstance(value, dict) else "array"}:
            return value, f"expected {want.type.words()}, got {of_value(value).words()}"
    elif "json" not in kinds:
        mine = of_value(value).solid
        if "string" in kinds and mine <= {"string", "long", "double"} and not mine <= kinds:
            found = plain_text(value, node.text)
        elif not (mine <= kinds or (mine == {"long"} and "double" in kinds)):
            return value, f"expected {want.type.words()}, got {_shown(value)}"
        if isinstance(found, int) and not LONG_MIN <= found <= LONG_MAX:
            return value, f"{found} is beyond 64 bits"
    kind = of_value(found).solid
    for check in checks(want, em.module):
        if kind & check.kinds and check.broken(found):
            near = suggestion(found, want_words(want)) if isinstance(found, str) and want_words(want) else ""
            return (
                found,
                f"{_shown(found)} is {check.reason}" if not near else f"{_shown(found)} is {check.reason}{near}",
            )
    return found, None


def want_words(want: Want) -> tuple[str, ...]:
    """The texts that a field may be, when they are listed."""
    words = want.type.symbols or (want.rules.one_of if want.rules and want.rules.one_of else ())
    return tuple(word for word in words if isinstance(word, str))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value[:60]}"'
    return str(value)


# Values ---------------------------------------------------------------------------------------------


def _emit_check(em: Emitter, operand: Operand, check: Check, block: Block) -> None:
    kinds = operand.type.solid & (check.kinds | {"json"})
    if not kinds or operand.known:
        return
    guards = [f"{operand.code} is not None"] if operand.type.nullable else []
    if kinds != operand.type.solid:
        classes = {"string": "str", "long": "int", "double": "float", "boolean": "bool", "map": "dict"}
        guards = [f"{operand.code}.__class__ in ({', '.join(classes[kind] for kind in sorted(kinds))},)"]
    test = check.code.format(operand.code)
    if block.recall(("checked", test)):
        return
    block.known["checked", test] = operand
    block.line(f"if {' and '.join([*guards, test])}:", fallible=True)
    block.line(f"    raise Bad({em.field!r}, {check.reason!r})")


def _made(type_: Static, final: bool = True) -> Static:
    """A type as generated code makes it: records as maps, and (`final`) ready to be sent."""
    return replace(type_, access="item", sent=final).with_null(False)


def _convert(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    have, target = operand.type.solid, want.type.solid
    if not have:
        return operand
    if "json" in target:
        return _free(em, operand, block) if want.final else operand
    if "json" in have:
        return _from_json(em, operand, want, block, node)
    if have <= {"string", "long"} and "string" in target and not have <= target:
        return as_text(em, operand, block)
    if have <= _SCALARS or have <= {"bytes"}:
        return _finite(em, operand, block) if "double" in have and want.final else operand
    return _compound(em, operand, want, block, node)


def as_text(em: Emitter, operand: Operand, block: Block) -> Operand:
    """Text or a whole number as text."""
    if operand.type.solid <= {"string"}:
        return operand
    known = block.recall((operand.code, "as text"))
    if known is not None:
        return replace(known, told=operand.told)
    code = operand.code
    if operand.type.solid == {"long"}:
        text = f"str({code}) if {code} is not None else None" if operand.type.nullable else f"str({code})"
    else:
        test = f"{code}.__class__ is str" + (f" or {code} is None" if operand.type.nullable else "")
        text = f"{code} if {test} else str({code})"
    nulls = frozenset({"null"}) if operand.type.nullable else frozenset()
    found = em.assign(block, "text", text, Static(frozenset({"string"}) | nulls), operand.told)
    block.known[operand.code, "as text"] = found
    return found


def _finite(em: Emitter, operand: Operand, block: Block) -> Operand:
    if block.recall(("checked", "finite", operand.code)):
        return operand
    block.known["checked", "finite", operand.code] = operand
    guard = f"{operand.code} is not None and " if operand.type.nullable else ""
    block.line(f"if {guard}not -{DOUBLE_MAX!r} <= {operand.code} <= {DOUBLE_MAX!r}:", fallible=True)
    block.line(f"    raise Bad({em.field!r}, 'not a finite number')")
    return operand


def _free(em: Emitter, operand: Operand, block: Block) -> Operand:
    """Any value as free JSON."""
    type_ = operand.type
    if type_.sent or type_.solid <= {"string", "long", "boolean", "bytes"}:
        return operand
    if type_.solid <= _SCALARS and type_.solid == {"double"}:
        return _finite(em, operand, block)
    made = (
        replace(type_, sent=True)
        if "record" not in type_.kinds
        else replace(MADE_MAP, kinds=type_.kinds - {"record"} | {"map"})
    )
    return call(em, "clean", operand, block, made, "free")


def call(em: Emitter, function: str, operand: Operand, block: Block, type_: Static, hint: str = "value") -> Operand:
    """`function(operand, field)`; null stays null."""
    code = f"{function}({operand.code}, {em.field!r})"
    if operand.type.nullable:
        code += f" if {operand.code} is not None else None"
    return em.assign(block, hint, code, type_.with_null(operand.type.nullable), operand.told, fallible=True)


def _from_json(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    target = want.type.solid
    function = _FROM_JSON.get(target)
    if function is None:
        kinds = tuple(sorted(target))
        function = em.module.constant("as_one", f"as_one_of({kinds!r})")
    type_ = Static(target, want.type.items)
    if target == {"map"} or target == {"record"}:
        type_ = Static(frozenset({"map"}), Static(frozenset({"json", "null"})))
    elif target == {"array"}:
        type_ = Static(frozenset({"array"}), Static(frozenset({"json", "null"})))
    found = call(em, function, operand, block, type_)
    return _compound(em, found, want, block, node) if target & {"map", "record", "array"} else found


def _compound(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    """A map, list or record into a map, list or record, its parts fitted one by one."""
    have, target = operand.type, want.type
    if "record" in target.solid:
        assert target.members is not None
        if not want.final and "record" in have.solid and have.origin is target.origin:
            return operand
        return _guarded(em, operand, block, lambda inner, solid: _record_from(em, solid, want, inner, node))
    items = target.items
    assert items is not None
    if "record" in have.solid:
        code = f"as_dict({operand.code})" if have.access == "attribute" else operand.code
        code += f" if {operand.code} is not None else None" if have.nullable else ""
        made = Static(frozenset({"map"}), Static(frozenset({"json", "null"}))).with_null(have.nullable)
        operand = em.assign(block, "map", code, made, operand.told)
        have = made
    assert have.items is not None
    if "json" in items.kinds:
        return _free(em, operand, block) if want.final and not _plain_items(have.items) else operand
    if have.sent or (have.items.solid <= items.solid and _plain_items(have.items)):
        return operand
    return _guarded(em, operand, block, lambda inner, solid: _each_fitted(em, solid, want, inner, node))


def _plain_items(items: Static) -> bool:
    return not items.nullable and items.solid <= {"string", "long", "boolean"}


def _guarded(em: Emitter, operand: Operand, block: Block, make: Callable[[Block, Operand], Operand]) -> Operand:
    """What `make` makes of the operand; null for null."""
    if not operand.type.nullable:
        return make(block, operand)
    name = em.fresh("made")
    inner = block.child()
    made = make(inner, replace(operand, type=operand.type.with_null(False)))
    inner.line(f"{name} = {made.code}")
    block.line(f"{name} = None")
    block.nest(f"if {operand.code} is not None:", inner)
    return Operand(name, made.type.with_null(), told=operand.told)


def _each_fitted(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    have, items = operand.type, want.type.items
    assert have.items is not None
    assert items is not None
    is_map = "map" in have.solid
    out, value = em.fresh("out"), em.fresh("value")
    body = block.child()
    entry = Operand(
        value, have.items.with_null(False), told=f"a value in {operand.told}" if operand.told else "a value"
    )
    fitted = fit(em, entry, Want(items.with_null(False), final=want.final), body, node)
    block.line(f"{out} = {'{}' if is_map else '[]'}")
    key = em.fresh("key") if is_map else ""
    body.line(f"{out}[{key}] = {fitted.code}" if is_map else f"{out}.append({fitted.code})")
    if have.items.nullable:
        checked = block.child()
        checked.nest(f"if {value} is not None:", body)
        body = checked
    block.nest(f"for {key}, {value} in {operand.code}.items():" if is_map else f"for {value} in {operand.code}:", body)
    return Operand(out, _made(want.type, want.final), told=operand.told)


def _record_from(em: Emitter, operand: Operand, want: Want, block: Block, node: Node) -> Operand:
    """A record made from the fields of the same names of a record or map."""
    members = want.type.members
    assert members is not None
    makes: dict[str, Make] = {}
    for name in members:
        if operand.type.members is not None and name not in operand.type.members:
            continue

        def make(inner: Block, name: str = name) -> Operand:
            return em.walk(operand, (name,), l.Path(node, (name,)), inner)

        makes[name] = make
    return build_record(em, makes, want, block, node, dict.fromkeys(makes, node))


def build_record(
    em: Emitter, makes: Mapping[str, Make], want: Want, block: Block, node: Node, nodes: Mapping[str, Node]
) -> Operand:
    """A map with the fields of the wanted record; `makes` emits each, not yet fitted or fitted already."""
    members = want.type.members
    assert members is not None
    outer, values = em.field, {}
    for name, member in members.items():
        em.field = f"{outer}.{name}" if outer else name
        value = NOTHING
        if name in makes:
            inner = Want(member.type, member.rules, member.required, want.final)
            value = fit(em, makes[name](block), inner, block, nodes[name])
        values[name] = require(em, value, member.required, block, nodes.get(name, node), em.field)
    em.field = outer
    return build_map(em, values, block, _made(want.type, want.final))


def require(em: Emitter, value: Operand, required: bool, block: Block, node: Node, field: str) -> Operand:
    """The value of a field; when the field is required and the value null, the item is rejected."""
    if not required or value.type.unknown or not (value.type.nullable or not value.type.solid):
        return value
    if value.known and em.checking:
        return em.problem(node, f"{field} is required, but has no source; give it one")
    if value.known:
        em.raise_bad(
            block, f"required, but {_told(value)} has no value" if value.told else "required, but has no value"
        )
        return value
    block.line(f"if {value.code} is None:", fallible=True)
    told = f"required, but {value.told} has no value" if value.told else "required, but has no value"
    block.line(f"    raise Bad({em.field!r}, {told!r})")
    return replace(value, type=value.type.with_null(False))


def build_map(em: Emitter, values: Mapping[str, Operand], block: Block, type_: Static) -> Operand:
    """A map of these values without the nulls, in their order."""
    there = [(key, value) for key, value in values.items() if not (value.known and value.value is None)]
    sure = 0
    while sure < len(there) and not there[sure][1].type.nullable:
        sure += 1
    head = ", ".join(f"{key!r}: {value.code}" for key, value in there[:sure])
    made = em.assign(block, "map", "{" + head + "}", type_)
    for key, value in there[sure:]:
        guard = f"if {value.code} is not None:" if value.type.nullable else ""
        if guard:
            block.line(guard)
        block.line(f"{'    ' if guard else ''}{made.code}[{key!r}] = {value.code}")
    return made
