"""Where paths lead: into the source's record in hop one, through hop one into it in hop two."""

from __future__ import annotations

from dataclasses import replace

import schemas
from transforms.located import Node
from transforms.mapping import language as l
from transforms.mapping.convert import Make, build_record
from transforms.mapping.emitter import NOTHING, Block, Emitter, Operand, Want, record_operand
from transforms.mapping.tree import HopOne, leaves
from transforms.mapping.types import STRING, Static, of, static
from transforms.mapping.values import value

ATTRIBUTES = Operand("attributes", of("map", "null", items=STRING.with_null()))


class SourceFields:
    """Paths into the source's record `r`, and `$attributes` where the record has no field of that name."""

    def __init__(self, schema: schemas.Schema, access: str) -> None:
        self.record = record_operand(schema, access)

    def resolve(self, emitter: Emitter, path: l.Path, block: Block) -> Operand:
        """The value that a path names."""
        members = self.record.type.members
        assert members is not None
        if path.parts[0] == "attributes" and path.parts[0] not in members:
            return emitter.walk(ATTRIBUTES, path.parts[1:], path, block)
        return emitter.walk(self.record, path.parts, path, block)


class CanonicalFields:
    """Paths into the canonical event, each made by hop one from the source's record when it is first needed."""

    def __init__(
        self, canonical: schemas.Schema, hop_one: HopOne, source: schemas.Schema, access: str, identity: bool
    ) -> None:
        self.type = static(canonical.type, "item")
        self.leaves = dict(leaves(canonical.type))
        self.hop_one = hop_one
        self.source = SourceFields(source, access)
        self.source_schema = source
        self.same = canonical.type is source.type
        self.identity = identity
        self.nowhere = Node(None, source.name, 0, 0)

    def resolve(self, emitter: Emitter, path: l.Path, block: Block) -> Operand:
        """The value that a path names."""
        for length in range(1, len(path.parts) + 1):
            name = ".".join(path.parts[:length])
            if name in self.leaves:
                found = self.leaf(emitter, name, block)
                return replace(emitter.walk(found, path.parts[length:], path, block), told=path.text)
        return self._record(emitter, path, block)

    def leaf(self, emitter: Emitter, name: str, block: Block) -> Operand:
        """The value of a canonical field that is no record."""
        known = block.recall(("canonical", name))
        if known is None:
            outer = emitter.field, emitter.fields, emitter.entry, emitter.options
            emitter.field, emitter.fields, emitter.entry, emitter.options = name, self.source, [], {}
            known = replace(self._made(emitter, name, block), told=f"${name}")
            emitter.field, emitter.fields, emitter.entry, emitter.options = outer
            block.known["canonical", name] = known
        return known

    def _made(self, emitter: Emitter, name: str, block: Block) -> Operand:
        field = self.leaves[name]
        expression = self.hop_one.fields.get(name)
        want = Want(static(field.type, "item").with_null(), field.rules, final=False)
        if expression is not None:
            return value(emitter, expression, block, want)
        path = l.Path(self.nowhere, tuple(name.split(".")))
        if not self.identity or not self._there(path):
            return NOTHING
        if self.same:
            return self.source.resolve(emitter, path, block)
        return value(emitter, path, block, want)

    def _there(self, path: l.Path) -> bool:
        """Whether the source's record has a field of the same name."""
        if self.same:
            return True
        type_: Static | None = self.source.record.type
        for part in path.parts:
            if type_ is None or type_.members is None or part not in type_.members:
                return False
            type_ = type_.members[part].type
        return True

    def _record(self, emitter: Emitter, path: l.Path, block: Block) -> Operand:
        """A record of the canonical event as a whole, such as $event_data."""
        name = ".".join(path.parts)
        known = block.recall(("canonical", name))
        if known is not None:
            return known
        type_: Static = self.type
        for part in path.parts:
            if type_.members is None or part not in type_.members:
                return emitter.problem(path.node, f"unknown field {name}")
            type_ = type_.members[part].type

        def make(leaf: str) -> Make:
            return lambda inner: self.leaf(emitter, leaf, inner)

        makes = {leaf[len(name) + 1 :]: make(leaf) for leaf in self.leaves if leaf.startswith(name + ".")}
        outer = emitter.field
        emitter.field = name
        made = build_record(emitter, makes, Want(type_, final=False), block, path.node, dict.fromkeys(makes, path.node))
        emitter.field = outer
        whole = emitter.assign(block, path.parts[-1], f"{made.code} or None", made.type.with_null())
        found = replace(whole, told=path.text)
        block.known["canonical", name] = found
        return found
