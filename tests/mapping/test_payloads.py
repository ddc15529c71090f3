"""Whatever a canonical event holds, a shipped mapping makes payloads that its schemas allow, or says why it does not."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shipped import OPTIONS, shipped

import schemas
from transforms import vendors
from transforms.mapping import Mapper, MapTally

TYPES = [
    "login",
    "session_start",
    "logout",
    "session_end",
    "sign_up",
    "level_start",
    "level_end",
    "level_up",
    "post_score",
    "purchase",
    "refund",
    "identify",
    "spend_virtual_currency",
    "earn_virtual_currency",
    "alias",
    "device",
    "kpi",
    "item",
    "social",
    "boss",
]
SOME_TEXTS = [
    "",
    "u1",
    "a@b.de",
    "DE",
    "Germany",
    "EUR",
    "gold",
    "friend",
    "unlinked",
    "ARPU",
    "2024-02-03",
    "x" * 300,
    "ü\n",
]
texts = st.one_of(st.sampled_from(SOME_TEXTS), st.text(max_size=6))
wholes = st.one_of(st.integers(-2, 12), st.integers(-(2**63), 2**63 - 1))
doubles = st.one_of(st.sampled_from([0.0, 1.0, 2.5, -3.0]), st.floats())
free: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), wholes, doubles, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)
SIMPLE: dict[str, Any] = {"string": texts, "long": wholes, "double": doubles, "boolean": st.booleans(), "json": free}


def values(type_: schemas.Type) -> Any:
    """Values of a schema's type, decoded."""
    options = [SIMPLE[kind] for kind in sorted(type_.kinds - {"null"}) if kind in SIMPLE]
    if "map" in type_.kinds:
        assert type_.items is not None
        options.append(st.dictionaries(texts, values(type_.items), max_size=3))
    if "record" in type_.kinds:
        assert type_.fields is not None
        parts = {name: values(field.type) for name, field in type_.fields.items()}
        needed = {name: parts.pop(name) for name, field in type_.fields.items() if field.required}
        struct: Any = schemas.struct_type(type_)
        options.append(st.fixed_dictionaries(needed, optional=parts).map(lambda given: struct(**given)))
    return st.one_of([st.none(), *options] if "null" in type_.kinds else options)


CANONICAL = schemas.load("telemetry/event")
EVENTS = values(CANONICAL.type)
typed = st.builds(
    lambda event, event_type, time, data: msgspec.structs.replace(
        event, event_type=event_type, event_timestamp=time, event_data=data or event.event_data
    ),
    EVENTS,
    st.sampled_from(TYPES),
    st.sampled_from([1_764_000_000_000, 0, -1, 2**62]),
    values(CANONICAL.fields["event_data"].type),
)


@functools.cache
def mapper(vendor: str, option: int) -> Mapper:
    return shipped(vendor, OPTIONS.get(vendor, [{}])[option])


@pytest.mark.parametrize(
    ("vendor", "option"),
    [(vendor, number) for vendor in vendors.slugs() for number in range(len(OPTIONS.get(vendor, [{}])))],
)
@settings(max_examples=80, deadline=None)
@given(events=st.lists(typed, min_size=1, max_size=4))
def test_payloads_are_what_the_schemas_allow(vendor: str, option: int, events: list[Any]) -> None:
    compiled = mapper(vendor, option)
    models = vendors.get(vendor).models_under(OPTIONS.get(vendor, [{}])[option])
    tally = MapTally()
    shards: list[list[Any]] = [[] for _ in range(4)]
    compiled.map_chunk(events, [b"{}"] * len(events), 0, shards, tally)
    items = [item for shard in shards for item in shard]
    assert tally.records == len(events) == tally.touched + sum(tally.filtered.values())
    assert tally.touched == len({item[4] for item in items} | {one.ref for one in tally.rejected})
    for payload, model, *_ in items:
        chosen = models[compiled.models[model]]
        if chosen.passthrough:
            continue
        schema = schemas.load(chosen.schema)
        msgspec.json.decode(payload, type=schemas.struct_type(schema, forbid_unknown=True))
        plain = msgspec.json.decode(payload)
        assert [rule.fault(plain) for rule in schema.presence] == [None] * len(schema.presence)
    assert all(one.reason for one in tally.rejected)
