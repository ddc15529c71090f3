"""What a canonical event becomes at a vendor under its shipped mapping."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

import schemas
from transforms import located
from transforms.elements import Item
from transforms.mapping import Mapper, MapTally, ModelSpec, compile_mapping
from transforms.vendors import get, mapping_file

CANONICAL = schemas.load("telemetry/event")


@dataclass
class Outcome:
    """What became of one event."""

    raw: dict[str, bytes] = field(default_factory=dict)
    """Model -> payload."""
    dropped: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    """"field: reason" of each."""

    @property
    def payloads(self) -> dict[str, Any]:
        """Model -> payload as JSON values."""
        return {model: json.loads(payload) for model, payload in self.raw.items()}


def mapped(
    slug: str,
    event: Mapping[str, Any],
    options: Mapping[str, Any],
    models: Sequence[str] = (),
    original: bytes | None = None,
) -> Outcome:
    """The event through the shipped mapping, with the vendor's default options but for these."""
    vendor = get(slug)
    every = {**{option.name: option.default for option in vendor.options}, **options}
    chosen = tuple(models) or tuple(name for name, model in vendor.models.items() if model.by_default)
    mapper = _compiled(slug, chosen, json.dumps(every))
    data = msgspec.json.encode(event)
    record = msgspec.json.decode(data, type=schemas.struct_type(CANONICAL))
    tally, shards = MapTally(), [list[Item]()]
    mapper.map_chunk([record], [original or data], 0, shards, tally)
    outcome = Outcome(dropped=list(tally.filtered), rejected=[f"{one.field}: {one.reason}" for one in tally.rejected])
    for payload, index, *_ in shards[0]:
        assert mapper.models[index] not in outcome.raw, "one item of a model for an event"
        outcome.raw[mapper.models[index]] = payload
    return outcome


@functools.cache
def _compiled(slug: str, models: tuple[str, ...], options: str) -> Mapper:
    every = json.loads(options)
    known = get(slug).models_under(every)
    return compile_mapping(
        source_schema=CANONICAL,
        hop_one=None,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec(name, schemas.load(known[name].schema), known[name].passthrough) for name in models],
        hop_two=located.read(mapping_file(slug, every)),
        hop_two_override=None,
        shards=1,
        options=every,
    )
