"""A mapping as a tree of hops: shipped mappings with their overrides, read into models, fields, drops and rejections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import schemas
from transforms.located import Node, Problem, nearest, suggestion
from transforms.mapping import language as l
from transforms.mapping.parse import Parser

MODEL_KEYS = ("when", "drop", "reject", "fields")


class Reasoned(NamedTuple):
    """An entry of `drop:` or `reject:`."""

    when: l.Condition
    reason: str


class ModelMap(NamedTuple):
    """How a model's items are made."""

    name: str
    node: Node
    when: l.Condition | None
    drop: tuple[Reasoned, ...]
    reject: tuple[Reasoned, ...]
    fields: dict[str, l.Expression]
    """By dotted name; a null constant is a field that was removed."""
    fields_node: Node


class HopOne(NamedTuple):
    """How a record becomes a canonical event."""

    node: Node | None
    drop: tuple[Reasoned, ...]
    fields: dict[str, l.Expression]


def merge(shipped: Node | None, override: Node | None) -> Node | None:
    """A mapping with what overrides it, piece by piece, each keeping its file and line.

    Of hop one the pieces are the fields and `drop`; of hop two, in each model, `when`, `drop`, `reject` and each field.
    """
    if shipped is None or override is None:
        return shipped if override is None else override
    if not isinstance(shipped.value, dict) or not isinstance(override.value, dict):
        return override
    pieces = dict(shipped.value)
    for name, piece in override.value.items():
        own = pieces.get(name)
        if own is not None and _is_model(own) and isinstance(piece.value, dict):
            pieces[name] = _merge_model(own, piece)
        else:
            _put(pieces, name, piece)
    return _like(shipped, pieces)


def _is_model(node: Node) -> bool:
    return isinstance(node.value, dict) and bool(node.value) and set(node.value) <= set(MODEL_KEYS)


def _merge_model(shipped: Node, override: Node) -> Node:
    assert isinstance(shipped.value, dict)
    assert isinstance(override.value, dict)
    parts = {**shipped.value, **override.value}
    own, new = shipped.value.get("fields"), override.value.get("fields")
    if own is not None and new is not None and isinstance(own.value, dict) and isinstance(new.value, dict):
        fields = dict(own.value)
        for name, field in new.value.items():
            _put(fields, name, field)
        parts["fields"] = _like(own, fields)
    return _like(shipped, parts)


def _put(fields: dict[str, Node], name: str, node: Node) -> None:
    """Puts a field; one that holds others (`data`) takes the place of all that were said about them (`data.x`)."""
    for other in [other for other in fields if other.startswith(name + ".")]:
        del fields[other]
    fields[name] = node


def _like(node: Node, value: dict[str, Node]) -> Node:
    return Node(value, node.file, node.line, node.column, node.key, node.key_line, node.key_column, node.text)


def parse_hop_one(node: Node | None, canonical: schemas.Schema, problems: list[Problem]) -> HopOne:
    """Hop one of a merged tree."""
    if node is None:
        return HopOne(None, (), {})
    if not isinstance(node.value, dict):
        problems.append(node.problem(f"expected a map of canonical field: value, got {node.kind}"))
        return HopOne(node, (), {})
    parser = Parser(problems)
    known = dict(leaves(canonical.type))
    drop: tuple[Reasoned, ...] = ()
    fields: dict[str, l.Expression] = {}
    for name, item in node.value.items():
        if name == "drop":
            drop = _reasoned(parser, item, "drop")
        elif name in known:
            fields[name] = parser.expression(item)
        elif any(leaf.startswith(name + ".") for leaf in known):
            problems.append(
                item.key_problem(
                    f"{name} is a record: give its fields one by one, such as {name}.{_first_leaf(known, name)}"
                )
            )
        elif name.partition(".")[0] in known:
            holder = name.partition(".")[0]
            problems.append(
                item.key_problem(
                    f"unknown canonical field {name}; {holder} is given as a whole, such as {{map: {{…}}}}"
                )
            )
        else:
            near = nearest(name, known)
            hint = (
                f"did you mean {near}?" if near else "the canonical event's fields are in schemas/telemetry/event.avsc"
            )
            problems.append(item.key_problem(f"unknown canonical field {name}; {hint}"))
    return HopOne(node, drop, fields)


def _first_leaf(known: dict[str, schemas.Field], name: str) -> str:
    return next(leaf for leaf in known if leaf.startswith(name + "."))[len(name) + 1 :]


def leaves(type_: schemas.Type, before: str = "") -> Iterable[tuple[str, schemas.Field]]:
    """(dotted name, field) of all that can be given one by one: a record's fields stand for the record."""
    assert type_.fields is not None
    for name, field in type_.fields.items():
        if field.type.fields is not None and field.type.kinds <= {"record", "null"}:
            yield from leaves(field.type, f"{before}{name}.")
        else:
            yield before + name, field


def parse_hop_two(
    node: Node, models: Iterable[str], shipped: Iterable[str], problems: list[Problem]
) -> dict[str, ModelMap]:
    """The models of a merged tree that are on. `shipped`: the models that the vendor's own mapping knows, sent or not."""
    models, shipped = tuple(models), set(shipped)
    if not isinstance(node.value, dict):
        problems.append(node.problem(f"expected a map of model: mapping, got {node.kind}"))
        return {}
    found: dict[str, ModelMap] = {}
    parser = Parser(problems)
    idle = [model for model in models if model not in node.value]
    for name, item in node.value.items():
        if name in models:
            model = _model(parser, name, item)
            if model is not None:
                found[name] = model
        elif name not in shipped or nearest(name, idle):
            problems.append(item.key_problem(f"unknown model {name}{suggestion(name, idle or models)}"))
    return found


def _model(parser: Parser, name: str, node: Node) -> ModelMap | None:
    if node.value is False or node.value == "off":
        return None
    if not isinstance(node.value, dict):
        parser.wrong(node, f"expected {', '.join(MODEL_KEYS)}, or off; got {node.kind}")
        return None
    for key, item in node.value.items():
        if key not in MODEL_KEYS:
            parser.wrong(item, f"unknown key {key}{suggestion(key, MODEL_KEYS)}", at_key=True)
    when = node.value.get("when")
    fields: dict[str, l.Expression] = {}
    given = node.value.get("fields")
    if given is not None and isinstance(given.value, dict):
        fields = {field: parser.expression(item) for field, item in given.value.items()}
    elif given is not None and given.value != "$record":
        parser.wrong(given, f"expected a map of field: value, got {given.kind}")
    elif given is None and any(key not in MODEL_KEYS for key in node.value):
        return None  # `field:` for `fields:` is told already; every required field would be told again
    return ModelMap(
        name,
        node,
        parser.condition(when) if when is not None and when.value is not None else None,
        _reasoned(parser, node.value.get("drop"), "drop"),
        _reasoned(parser, node.value.get("reject"), "reject"),
        fields,
        given or node,
    )


def _reasoned(parser: Parser, node: Node | None, key: str) -> tuple[Reasoned, ...]:
    if node is None or node.value is None:
        return ()
    if not isinstance(node.value, list):
        parser.wrong(node, f"expected a list such as [{{when: …, reason: …}}], got {node.kind}")
        return ()
    found: list[Reasoned] = []
    for item in node.value:
        entry = item.value
        if not isinstance(entry, dict):
            parser.wrong(item, f"expected {{when: …, reason: …}}, got {item.kind}")
            continue
        odd = [name for name in entry if name not in ("when", "reason")]
        lacking = [name for name in ("when", "reason") if name not in entry]
        if odd:
            parser.wrong(entry[odd[0]], f"unknown key {odd[0]}{suggestion(odd[0], ('when', 'reason'))}", at_key=True)
        elif lacking:
            parser.wrong(item, f"an entry of {key} needs {lacking[0]}")
        elif not isinstance(entry["reason"].value, str) or not entry["reason"].value:
            parser.wrong(entry["reason"], f"expected a reason in words, got {entry['reason'].kind}")
        else:
            found.append(Reasoned(parser.condition(entry["when"]), entry["reason"].value))
    return tuple(found)
