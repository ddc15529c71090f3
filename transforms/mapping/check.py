"""A mapping read, merged and checked: everything that can be wrong with it is found here, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import schemas
from transforms.located import Node, Problem
from transforms.mapping import language as l
from transforms.mapping.conditions import condition
from transforms.mapping.emitter import Block, Emitter, Module, Want
from transforms.mapping.hops import SourceFields
from transforms.mapping.model_code import ModelSpec, check_fields, emit_model
from transforms.mapping.tree import HopOne, ModelMap, leaves, merge, parse_hop_one, parse_hop_two
from transforms.mapping.types import static
from transforms.mapping.values import value

MAX_SPECIALISED = 200
"""Event types that get a branch of their own; of more, the rest go the general way."""


class Parts(NamedTuple):
    """A mapping read and merged."""

    source: schemas.Schema
    canonical: schemas.Schema
    hop_one: HopOne
    identity: bool
    """Canonical fields that hop one does not name are those of the same name in the record."""
    models: Sequence[ModelSpec]
    maps: Mapping[str, ModelMap]
    options: Mapping[str, Any]
    access: str
    shards: int
    since_ms: int | None
    until_ms: int | None

    @property
    def on(self) -> list[ModelSpec]:
        """The models that have a mapping, in their order."""
        return [spec for spec in self.models if spec.name in self.maps]


def read(
    problems: list[Problem],
    source_schema: schemas.Schema,
    hop_one: Node | None,
    hop_one_override: Node | None,
    canonical: schemas.Schema,
    models: Sequence[ModelSpec],
    hop_two: Node,
    hop_two_override: Node | None,
    only_models: Sequence[str] | None,
    **rest: Any,
) -> Parts:
    """Merges and parses a mapping, and checks it with nothing known. What is wrong goes to `problems`."""
    same = source_schema.type is canonical.type
    identity = hop_one is None and (same or hop_one_override is None)
    first = parse_hop_one(merge(hop_one, hop_one_override), canonical, problems)
    shipped = hop_two.value if isinstance(hop_two.value, dict) else {}
    merged = merge(hop_two, hop_two_override)
    assert merged is not None
    names = [spec.name for spec in models]
    maps = parse_hop_two(merged, names, shipped, problems)
    idle = [name for name in only_models or () if name not in maps]
    problems += [
        merged.problem(f"model {name} has no mapping; give it one, or leave it out of models") for name in idle
    ]
    chosen = [spec for spec in models if only_models is None or spec.name in only_models]
    parts = Parts(source_schema, canonical, first, identity, chosen, maps, **rest)
    _check_hop_one(parts, problems)
    _check_hop_two(parts, problems)
    return parts


def _check_hop_one(parts: Parts, problems: list[Problem]) -> None:
    em = Emitter(Module(), problems)
    em.fields = SourceFields(parts.source, parts.access)
    for one in parts.hop_one.drop:
        condition(em, one.when, Block())
    known = dict(leaves(parts.canonical.type))
    for name, expression in parts.hop_one.fields.items():
        em.field = name
        value(em, expression, Block(), Want(static(known[name].type, "item"), known[name].rules, final=False))
    node = parts.hop_one.node
    for name, field in known.items():
        given = parts.hop_one.fields.get(name)
        removed = isinstance(given, l.Const) and given.value is None
        if field.required and (removed or (given is None and not parts.identity)):
            where = given.node if given is not None else node
            message = f"{name} is required, but has no source; give it one, such as {name}: $…"
            problems.append(where.problem(message) if where else Problem(parts.source.name, 0, 0, name, message))


def _check_hop_two(parts: Parts, problems: list[Problem]) -> None:
    for spec in parts.on:
        model = parts.maps[spec.name]
        em = Emitter(Module(), problems)
        em.fields = SourceFields(parts.canonical, "attribute")
        em.options = parts.options
        if spec.passthrough and model.fields:
            problems.append(
                model.fields_node.problem("a pass-through model sends the record as it is: write fields: $record")
            )
            continue
        if not spec.passthrough and model.fields_node.value == "$record":
            problems.append(model.fields_node.problem("$record is for pass-through models; give the fields one by one"))
            continue
        emit_model(em, spec, 0, check_fields(em, spec, model), Block())


def event_types(parts: Parts) -> tuple[str, ...]:
    """The event types that the models' mappings name."""
    found: dict[str, None] = {}
    for spec in parts.on:
        model = parts.maps[spec.name]
        roots = [model.when, *(one.when for one in (*model.drop, *model.reject)), *model.fields.values()]
        for part in (part for root in roots if root is not None for part in l.walk(root)):
            if isinstance(part, l.Test) and part.path.parts == ("event_type",) and part.op in ("is", "in"):
                values = part.argument if part.op == "in" else (part.argument,)
                found.update(dict.fromkeys(text for text in values if isinstance(text, str)))
    return tuple(found)[:MAX_SPECIALISED]


def mentions_attributes(parts: Parts) -> bool:
    """Whether the mapping reads the messages' attributes."""
    roots = [*parts.hop_one.fields.values(), *(one.when for one in parts.hop_one.drop)]
    return "attributes" not in parts.source.fields and any(
        isinstance(part, l.Path) and part.parts[0] == "attributes" for root in roots for part in l.walk(root)
    )
