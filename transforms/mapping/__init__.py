"""The mapping compiler: two hops of YAML, checked against the schemas on either side, to one Python module.

    mapper = compile_mapping(...)          # located.Problems with all that is wrong
    mapper.map_chunk(records, raws, ref, shards, tally)

docs/relay-file.md, The mapping language, says what a mapping may hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import schemas
from transforms.elements import Item
from transforms.located import Node, Problem, Problems
from transforms.mapping.check import read
from transforms.mapping.model_code import ModelSpec
from transforms.mapping.program import Program, compile_program, nothing_sent
from transforms.mapping.runtime import Rejected
from transforms.mapping.tree import merge

__all__ = ["MapTally", "Mapper", "ModelSpec", "Rejected", "compile_mapping", "merge"]


@dataclass
class MapTally:
    """What became of the records of one or more chunks: records = sum of `filtered` + touched."""

    records: int = 0
    touched: int = 0
    """Records of which an item or a rejection came."""
    items: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    """Reason -> records that gave neither."""
    rejected: list[Rejected] = field(default_factory=list)


class MapChunk(Protocol):
    """What a mapping is compiled to; see Mapper.map_chunk."""

    def __call__(
        self,
        records: Sequence[Any],
        raws: Sequence[bytes] | None,
        refs: int | Sequence[int],
        shards: list[list[Item]],
        tally: MapTally,
        attributes_of: Sequence[Mapping[str, str] | None] | None = None,
        /,
    ) -> None: ...


@dataclass(frozen=True)
class Mapper:
    """A compiled mapping of one source for one destination. Make it where it is used: it does not travel."""

    code: str
    """The generated Python."""
    models: tuple[str, ...]
    """An item's model is an index into these."""
    needs_raw: bool
    """A model passes records through, so their original bytes must be given."""
    needs_attributes: bool
    """The mapping reads `$attributes`: messages' attributes must be given."""
    sends: bool
    """There is a record that it makes an item of."""
    version: str
    """Names code and schemas; the same for the same mapping."""
    map_chunk: MapChunk
    """(decoded records, their bytes or None, first reference or all of them, items by shard, tally, attributes or None).

    Appends to shards and tally. Never raises for what is in a record.
    """


def compile_mapping(
    *,
    source_schema: schemas.Schema,
    hop_one: Node | None,
    hop_one_override: Node | None,
    canonical: schemas.Schema,
    models: Sequence[ModelSpec],
    hop_two: Node,
    hop_two_override: Node | None,
    shards: int,
    options: Mapping[str, Any] | None = None,
    only_models: Sequence[str] | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    access: str = "attribute",
) -> Mapper:
    """Compiles both hops. Raises located.Problems with everything that is wrong in them.

    hop_one: a preset's; with neither it nor its override, records are canonical events or have fields of their names.
    models: those that may be sent; of them, those with a mapping that is not off are. only_models: models that the
    relay file asks for by name, so that one without a mapping is a problem. options: the destination's, for
    `$options.NAME`. since_ms, until_ms: times of events, the first included, the second not. access: how records hold
    their fields, `attribute` (structs of schemas.struct_type) or `item` (dicts).
    """
    problems: list[Problem] = []
    parts = read(
        problems,
        source_schema,
        hop_one,
        hop_one_override,
        canonical,
        models,
        hop_two,
        hop_two_override,
        only_models,
        options=dict(options or {}),
        access=access,
        shards=shards,
        since_ms=since_ms,
        until_ms=until_ms,
    )
    if problems:
        raise Problems(problems)
    program = Program(parts)
    code, version, map_chunk = compile_program(program)
    problems = nothing_sent(program)
    if problems:
        raise Problems(problems)
    names = tuple(spec.name for spec in parts.on)
    return Mapper(code, names, program.needs_raw, program.needs_attributes, program.sends, version, map_chunk)
