"""The code that makes one model's items: its conditions, fields, rules and payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import schemas
from transforms.located import Node, suggestion
from transforms.mapping import language as l
from transforms.mapping.conditions import condition, narrow
from transforms.mapping.convert import Make, build_map, build_record, fit, require
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want, comment
from transforms.mapping.tree import ModelMap, Reasoned
from transforms.mapping.types import FREE_MAP, JSON, MADE_MAP, Static, static
from transforms.mapping.values import value

NEVER, MAYBE, ALWAYS = "never", "maybe", "always"
"""Whether a model takes records of an event type: an item or a rejection comes of each that it takes."""


class ModelSpec(NamedTuple):
    """A model of the vendor."""

    name: str
    schema: schemas.Schema
    passthrough: bool = False
    """The payload is the record's original bytes."""


def emit_model(em: Emitter, spec: ModelSpec, index: int, model: ModelMap, block: Block) -> str:
    """Emits what makes an item of the model from a record, or none; tells which of the two it may be."""
    em.field = ""
    steps: list[tuple[str, l.Condition | Reasoned]] = []
    if model.when is not None:
        steps.append(("when", model.when))
    steps += [("drop", one) for one in model.drop]
    steps += [("reject", one) for one in model.reject]
    return _steps(em, spec, index, model, steps, block)


def _steps(
    em: Emitter,
    spec: ModelSpec,
    index: int,
    model: ModelMap,
    steps: list[tuple[str, l.Condition | Reasoned]],
    block: Block,
) -> str:
    if not steps:
        _emit_item(em, spec, index, model, block)
        return ALWAYS
    (kind, step), rest = steps[0], steps[1:]
    test = condition(em, step.when if isinstance(step, Reasoned) else step, block)
    if isinstance(test, bool) and not em.checking:
        return _known_step(em, spec, index, model, kind, step, test, rest, block)
    inner = block.child()
    if kind == "reject":
        assert isinstance(step, Reasoned)
        inner.line(f"raise Bad('', {step.reason!r})", fallible=True)
        block.nest(f"if {test}:", inner)
        return _steps(em, spec, index, model, rest, block)
    if kind == "drop":
        assert isinstance(step, Reasoned)
        inner.line(f"reason = reason or {step.reason!r}")
        block.nest(f"if {test}:", inner)
        inner = block.child()
    condition_of = step.when if isinstance(step, Reasoned) else step
    narrow(em, condition_of, kind == "when", inner)
    _steps(em, spec, index, model, rest, inner)
    block.nest(f"if {test}:" if kind == "when" else "else:", inner)
    return MAYBE


def _known_step(
    em: Emitter,
    spec: ModelSpec,
    index: int,
    model: ModelMap,
    kind: str,
    step: l.Condition | Reasoned,
    test: bool,
    rest: list[tuple[str, l.Condition | Reasoned]],
    block: Block,
) -> str:
    """A step whose condition is known already."""
    if test is (kind == "when"):
        return _steps(em, spec, index, model, rest, block)
    if kind == "drop":
        assert isinstance(step, Reasoned)
        em.certain.append((step.reason, step.when))
        block.line(f"reason = reason or {step.reason!r}")
        return MAYBE
    if kind == "reject":
        assert isinstance(step, Reasoned)
        block.line(f"raise Bad('', {step.reason!r})", fallible=True)
        return ALWAYS
    return NEVER


def _emit_item(em: Emitter, spec: ModelSpec, index: int, model: ModelMap, block: Block) -> None:
    payload = "raw" if spec.passthrough else f"encode({_struct(em, spec, _values(em, spec, model, block), block)})"
    block.line(f"out.append(({payload}, {index}, user, time_ms, ref))")
    block.line("made = True")


def check_fields(em: Emitter, spec: ModelSpec, model: ModelMap) -> ModelMap:
    """Notes fields that the model does not have; the model without them."""
    good: dict[str, l.Expression] = {}
    known = static(spec.schema.type, "item")
    for name, expression in model.fields.items():
        before = len(em.problems)
        node = _field_node(model, name) or expression.node
        type_: Static | None = known
        for number, part in enumerate(name.split(".")):
            if type_ is None or type_.solid & {"map", "json"}:
                break
            if type_.members is None:
                holder = ".".join(name.split(".")[:number])
                em.problems.append(node.key_problem(f"{holder} is {type_.words()}, which has no fields"))
                break
            member = type_.members.get(part)
            if member is None:
                em.problems.append(node.key_problem(f"unknown field {name}{suggestion(part, type_.members)}"))
                break
            type_ = member.type
            whole = ".".join(name.split(".")[: number + 1])
            if whole != name and whole in model.fields and not type_.solid & {"map", "json"}:
                em.problems.append(node.key_problem(f"{whole} is given as a whole already; keep one of the two"))
        if len(em.problems) == before:
            good[name] = expression
    return model._replace(fields=good)


def _field_node(model: ModelMap, name: str) -> Node | None:
    value = model.fields_node.value
    return value.get(name) if isinstance(value, dict) else None


def _values(em: Emitter, spec: ModelSpec, model: ModelMap, block: Block) -> dict[str, Operand]:
    """The values of a model's fields, fitted; required ones are there or the item is rejected."""
    members = static(spec.schema.type, "item").members
    assert members is not None
    values: dict[str, Operand] = {}
    for name, member in members.items():
        base = model.fields.get(name)
        parts = {key[len(name) + 1 :]: one for key, one in model.fields.items() if key.startswith(name + ".")}
        if base is None and not parts:
            if member.required:
                require(em, NOTHING, True, block, model.node, name)
            continue
        em.field = name
        node = (base or next(iter(parts.values()))).node
        block.line(f"# {name}: {comment(node.file)}:{node.line}")
        want = Want(member.type, member.rules, member.required)
        if not parts:
            assert base is not None
            made = value(em, base, block, want)
        else:
            nested = _nested(em, base, parts, want, block, node)
            if base is None and member.type.nullable and not nested.type.unknown:  # none of its parts has a value
                nested = em.assign(block, name, f"{nested.code} or None", nested.type.with_null())
            made = fit(em, nested, want, block, node)
        values[name] = require(em, made, member.required, block, node, name)
    _presence(em, spec.schema, values, block)
    em.field = ""
    return values


def _nested(
    em: Emitter, base: l.Expression | None, parts: Mapping[str, l.Expression], want: Want, block: Block, node: Node
) -> Operand:
    """A record or map whose parts are given one by one (`data.level`), on top of what is given as a whole."""
    groups: dict[str, dict[str, l.Expression]] = {}
    for key, one in parts.items():
        head, _, rest = key.partition(".")
        groups.setdefault(head, {})[rest] = one
    members = want.type.members if "record" in want.type.solid else None
    wants = {
        head: Want(members[head].type, members[head].rules, members[head].required) if members and head in members
        else Want(want.type.items or JSON if "map" in want.type.solid else JSON)
        for head in groups
    }  # fmt: skip

    def make(head: str) -> Make:
        group = groups[head]
        direct = group.pop("", None)
        if not group:
            assert direct is not None
            return lambda inner: value(em, direct, inner, wants[head])
        return lambda inner: _nested(em, direct, group, wants[head], inner, node)

    if members is not None:
        makes = {head: make(head) for head in list(groups) if head in members}
        return build_record(em, makes, want, block, node, dict.fromkeys(makes, node))
    made = build_map(em, {head: make(head)(block) for head in list(groups)}, block, MADE_MAP)
    if base is None:
        return made
    whole = value(em, base, block, Want(FREE_MAP))
    return (
        made
        if not whole.type.solid
        else em.assign(block, "merged", f"{{**({whole.code} or {{}}), **{made.code}}}", MADE_MAP)
    )


def _presence(em: Emitter, schema: schemas.Schema, values: Mapping[str, Operand], block: Block) -> None:
    """The schema's rules about which fields stand together."""
    for rule in schema.presence:
        there = [values.get(name, NOTHING) for name in rule.fields]
        sure = sum(1 for one in there if one.type.solid and not one.type.nullable)
        open_ = [one.code for one in there if one.type.solid and one.type.nullable]
        count = " + ".join([*(f"({code} is not None)" for code in open_), *([str(sure)] if sure else [])]) or "0"
        names = ", ".join(rule.fields)
        if rule.rule == "together" and len(open_) == len(there) == 2:
            test = f"({open_[0]} is None) is not ({open_[1]} is None)"
            reason = f"{names} must be there together or not at all"
        elif rule.rule == "exactly_one":
            test, reason = f"{count} != 1", f"exactly one of {names} must be there"
        elif rule.rule == "at_least_one":
            test, reason = f"{count} == 0", f"one of {names} must be there"
        elif rule.rule == "together":
            test, reason = f"{count} not in (0, {len(there)})", f"{names} must be there together or not at all"
        else:
            key = values.get(rule.field, NOTHING)
            if not key.type.solid:
                continue
            words = ", ".join(map(repr, rule.values))
            test = f"{key.code} in ({words},) and {count} < {len(there)}"
            reason = f"{names} must be there when {rule.field} is {' or '.join(map(str, rule.values))}"
        if not open_ and _settled(rule.rule, sure, len(there)):
            continue
        block.line(f"if {test}:", fallible=True)
        block.line(f"    raise Bad('', {reason!r})")


def _settled(rule: str, sure: int, fields: int) -> bool:
    """Whether a rule holds of every item already."""
    return {
        "exactly_one": sure == 1,
        "at_least_one": sure > 0,
        "together": sure in (0, fields),
        "required_when": sure == fields,
    }[rule]


def _struct(em: Emitter, spec: ModelSpec, values: Mapping[str, Operand], block: Block) -> str:
    """Code that makes the model's struct."""
    fields = spec.schema.fields
    names = schemas.attribute_names(fields)
    struct = em.module.value(spec.name, schemas.struct_type(spec.schema))
    arguments: list[str] = []
    last = max((number for number, name in enumerate(fields) if name in values), default=-1)
    by_name = _by_name(fields)
    for number, (name, field) in enumerate(fields.items()):
        operand = values.get(name)
        if number > last:
            break
        if operand is not None and not field.type.nullable and field.default is not None and operand.type.nullable:
            code = em.module.constant("default", repr(field.default))
            operand = em.assign(
                block, name, f"{operand.code} if {operand.code} is not None else {code}", operand.type.with_null(False)
            )
        if operand is None and (field.default is not None or by_name):
            by_name = True  # the struct's own default stands; what follows must be named
            continue
        code = "None" if operand is None else operand.code
        arguments.append(f"{names[name]}={code}" if by_name else code)
    return f"{struct}({', '.join(arguments)})"


def _by_name(fields: Mapping[str, schemas.Field]) -> bool:
    """Whether a required field follows an optional one: such structs take no arguments by position."""
    optional = False
    for field in fields.values():
        if field.required and optional:
            return True
        optional = optional or not field.required
    return False
