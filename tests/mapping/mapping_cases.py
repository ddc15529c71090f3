"""Compiles small mappings and runs records through them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

import schemas
from transforms.located import Problems, parse
from transforms.mapping import Mapper, MapTally, ModelSpec, compile_mapping

TIME = 1_764_000_000_000
MODEL = schemas.parse(
    {
        "type": "record",
        "name": "Thing",
        "fields": [
            {"name": "text", "type": ["null", "string"], "default": None},
            {"name": "whole", "type": ["null", "long"], "default": None},
            {"name": "number", "type": ["null", "double"], "default": None},
            {"name": "flag", "type": ["null", "boolean"], "default": None},
            {"name": "any", "type": ["null", "string"], "json": True, "default": None},
            {"name": "texts", "type": ["null", {"type": "array", "items": "string"}], "default": None},
            {"name": "pairs", "type": ["null", {"type": "map", "values": "string", "json": True}], "default": None},
            {"name": "flat", "type": ["null", {"type": "map", "values": ["string", "long"]}], "default": None},
            {"name": "id", "type": ["null", "string", "long"], "default": None},
            {
                "name": "inner",
                "type": ["null", {"type": "record", "name": "Inner", "fields": [
                    {"name": "kind", "type": "string"},
                    {"name": "size", "type": ["null", "long"], "default": None},
                ]}],
                "default": None,
            },
        ],
    },
    "thing",
)  # fmt: skip
CANONICAL = schemas.load("telemetry/event")


class Relayed(NamedTuple):
    """What records turned into."""

    payloads: list[Any]
    """Decoded, in the records' order."""
    items: list[tuple[Any, ...]]
    tally: MapTally
    mapper: Mapper


def compiled(
    hop_two: str,
    *,
    models: Mapping[str, schemas.Schema] | None = None,
    hop_one: str | None = None,
    source: schemas.Schema = CANONICAL,
    override: str | None = None,
    hop_one_override: str | None = None,
    shards: int = 4,
    **more: Any,
) -> Mapper:
    """The mapping in these YAML texts, of models that are all `thing` unless told otherwise."""
    return compile_mapping(
        source_schema=source,
        hop_one=parse(hop_one, "preset.yaml") if hop_one else None,
        hop_one_override=parse(hop_one_override, "relay.yaml") if hop_one_override else None,
        canonical=CANONICAL,
        models=more.pop("specs", None)
        or [ModelSpec(name, schema) for name, schema in (models or {"thing": MODEL}).items()],
        hop_two=parse(hop_two, "shipped.yaml"),
        hop_two_override=parse(override, "relay.yaml") if override else None,
        shards=shards,
        **more,
    )


def run(
    mapper: Mapper, records: Sequence[Any], source: schemas.Schema = CANONICAL, access: str = "attribute"
) -> Relayed:
    """Relays records (dicts, decoded as the pipeline decodes them) and checks the sums."""
    encoded = [msgspec.json.encode(record) for record in records]
    struct: Any = schemas.struct_type(source) if access == "attribute" else dict[str, Any]
    decoded = [msgspec.json.decode(one, type=struct) for one in encoded]
    shards: list[list[Any]] = [[] for _ in range(4)]
    tally = MapTally()
    mapper.map_chunk(decoded, encoded if mapper.needs_raw else None, 0, shards, tally)
    assert tally.records == len(records) == tally.touched + sum(tally.filtered.values())
    items = sorted((item for shard in shards for item in shard), key=lambda item: item[4])
    assert tally.items == len(items)
    for number, shard in enumerate(shards):
        assert all(zlib.crc32(item[2].encode()) % 4 == number for item in shard)
    return Relayed([msgspec.json.decode(item[0]) for item in items], items, tally, mapper)


def event(event_type: str = "login", **fields: Any) -> dict[str, Any]:
    """A canonical event."""
    return {"event_type": event_type, "event_timestamp": TIME, "user_id": "u1", **fields}


def value_of(field: str, expression: str, record: dict[str, Any]) -> Any:
    """What an expression gives a field: its value, None when it stays out, or the reason of the rejection."""
    relayed = run(compiled(f"thing: {{fields: {{{field}: {expression}}}}}"), [record])
    if relayed.tally.rejected:
        (rejected,) = relayed.tally.rejected
        assert (rejected.model, rejected.field) == ("thing", field)
        return f"rejected: {rejected.reason}"
    (payload,) = relayed.payloads
    return payload.get(field)


def problems_of(hop_two: str, **how: Any) -> list[str]:
    """The problems of a mapping, as they are printed; empty when it compiles."""
    try:
        compiled(hop_two, **how)
    except Problems as found:
        return [str(problem) for problem in found.problems]
    return []
