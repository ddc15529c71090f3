"""Lists and maps: made of values, gone through, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transforms.located import suggestion
from transforms.mapping import language as l
from transforms.mapping.convert import (
    Make,
    build_map,
    build_record,
    call,
    fit,
)
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want
from transforms.mapping.types import (
    FLAT_MAP,
    FREE_MAP,
    JSON,
    MADE_MAP,
    STRING,
    Static,
    of,
)
from transforms.mapping.values import fitted, value

ANY_LIST = of("array", items=JSON)


def list_of(em: Emitter, e: l.ListOf, block: Block, want: Want | None) -> Operand:
    """`{list: [e, e]}`: the values that are there."""
    if want is not None and not want.type.solid & {"array", "json"}:
        return fitted(em, Operand("None", ANY_LIST), e, block, want)
    items = want.type.items if want is not None and "array" in want.type.solid else None
    inner = Want((items or JSON).with_null(False), final=want.final if want else True)
    found = [value(em, item, block, inner) for item in e.items]
    there = [one for one in found if not (one.known and one.value is None)]
    type_ = Static(frozenset({"array"}), items or of("json"), sent=inner.final)
    if not any(one.type.nullable for one in there):
        return em.assign(block, "list", "[" + ", ".join(one.code for one in there) + "]", type_)
    made = em.assign(block, "list", "[]", type_)
    for one in there:
        guard = one.type.nullable
        if guard:
            block.line(f"if {one.code} is not None:")
        block.line(f"{'    ' if guard else ''}{made.code}.append({one.code})")
    return made


def each(em: Emitter, e: l.Each, block: Block, want: Want | None) -> Operand:
    """`{list: e, each: body}`: one element for each entry that has a value."""
    over = value(em, e.over, block)
    if over.type.unknown or not over.type.solid:
        return over
    if want is not None and not want.type.solid & {"array", "json"}:
        return fitted(em, Operand("None", ANY_LIST), e, block, want)
    if not over.type.solid & {"map", "array", "json", "record"}:
        return em.problem(e.over.node, f"each goes through a map or list; this is {over.type.words()}")
    if "record" in over.type.solid:
        over = fit(em, over, Want(FREE_MAP, final=False), block, e.over.node)
    if not over.type.nullable:
        return _each_of(em, e, over, block, want)
    name = em.fresh("made")
    inner = block.child()
    found = _each_of(em, e, replace(over, type=over.type.with_null(False)), inner, want)
    inner.line(f"{name} = {found.code}")
    block.line(f"{name} = None")
    block.nest(f"if {over.code} is not None:", inner)
    return Operand(name, found.type.with_null())


def _each_of(em: Emitter, e: l.Each, over: Operand, block: Block, want: Want | None) -> Operand:
    keyed = any(isinstance(part, l.Path) and part.parts[0] == "key" for part in l.walk(e.body))
    solid = over.type.solid
    if "json" in solid:
        function, kind = ("as_map", "map") if keyed else ("entries", "array")
        over = call(em, function, over, block, Static(frozenset({kind}), JSON), "entries")
    source = over.type.items or JSON
    out, name = em.fresh("list"), em.fresh("value")
    is_map = "map" in over.type.solid
    key = Operand(em.fresh("key"), STRING) if is_map else None
    items = want.type.items if want is not None and "array" in want.type.solid else None
    body = block.child()
    em.entry.append((key, Operand(name, source.with_null(False))))
    inner = Want((items or JSON).with_null(False), final=want.final if want else True)
    made = value(em, e.body, body, inner)
    em.entry.pop()
    if made.type.nullable:
        body.line(f"if {made.code} is not None:")
    body.line(f"{'    ' if made.type.nullable else ''}{out}.append({made.code})")
    if source.nullable:
        checked = block.child()
        checked.nest(f"if {name} is not None:", body)
        body = checked
    block.line(f"{out} = []")
    if key is not None:
        block.nest(f"for {key.code}, {name} in {over.code}.items():", body)
    else:
        block.nest(f"for {name} in {over.code}:", body)
    return Operand(out, Static(frozenset({"array"}), items or of("json"), sent=inner.final))


def map_of(em: Emitter, e: l.MapOf, block: Block, want: Want | None) -> Operand:
    """`{map: {k: e}}`: the values that are there under their keys; a record where a record is wanted."""
    if want is not None and "record" in want.type.solid:
        return _record(em, e, block, want)
    if want is not None and not want.type.solid & {"map", "json"}:
        return fitted(em, Operand("None", FREE_MAP), e, block, want)
    items = want.type.items if want is not None and "map" in want.type.solid else None
    inner = Want((items or JSON).with_null(False), final=want.final if want else True)
    outer, values = em.field, {}
    for key, item in e.items.items():
        values[key] = value(em, item, block, inner)
    em.field = outer
    made = build_map(em, values, block, Static(frozenset({"map"}), items or of("json"), sent=inner.final))
    return fitted(em, made, e, block, want)


def _record(em: Emitter, e: l.MapOf, block: Block, want: Want) -> Operand:
    members = want.type.members
    assert members is not None
    for key, item in e.items.items():
        if key not in members:
            em.problem(item.node, f"unknown field {key}{suggestion(key, members)}")
    makes: dict[str, Make] = {}
    nodes = {}
    for name, item in e.items.items():
        if name in members:
            member = members[name]
            inner = Want(member.type, member.rules, member.required, want.final)
            makes[name], nodes[name] = _making(em, item, inner), item.node
    return build_record(em, makes, want, block, e.node, nodes)


def _making(em: Emitter, item: l.Expression, want: Want) -> Make:
    return lambda block: value(em, item, block, want)


def merge(em: Emitter, e: l.Merge, block: Block, want: Want | None) -> Operand:
    """`{merge: [e, e]}`: maps put together, the later winning; null when none is there."""
    if want is not None and not want.type.solid & {"map", "json"}:
        return fitted(em, Operand("None", FREE_MAP), e, block, want)
    maps = [value(em, item, block, Want(FREE_MAP)) for item in e.items]
    return fitted(em, _merged(em, maps, block, MADE_MAP), e, block, want)


def _merged(em: Emitter, maps: Sequence[Operand], block: Block, type_: Static) -> Operand:
    """Maps without nulls put together."""
    for one in maps:
        if one.type.unknown:
            return one
    there = [one for one in maps if one.type.solid]
    if not there:
        return NOTHING
    found = there[0]
    if found.type.nullable or found.known:
        found = em.assign(block, "merged", f"{found.code} or {{}}", type_)
    for other in there[1:]:
        code = f"{{**{found.code}, **{other.code}}} if {other.code} else {found.code}"
        found = em.assign(block, "merged", code, type_)
    return replace(found, type=type_)


def flat(em: Emitter, e: l.Expression, block: Block) -> Operand:
    """A map with texts and whole numbers as they are, all else as text; what is known of its values saves looking."""
    if isinstance(e, l.Merge):
        maps = [flat(em, item, block) for item in e.items]
        return _merged(em, maps, block, FLAT_MAP)
    if isinstance(e, l.MapOf):
        values: dict[str, Operand] = {}
        for key, item in e.items.items():
            found = value(em, item, block)
            if not found.type.unknown and found.type.solid - {"string", "long"}:
                found = call(em, "flat_value", found, block, of("string", "long"), "flat")
            values[key] = found
        return build_map(em, values, block, FLAT_MAP)
    found = value(em, e, block, Want(FREE_MAP, final=False))
    return found if found.type.unknown or not found.type.solid else call(em, "flat", found, block, FLAT_MAP, "flat")
