"""Mappings made at random: one mapping in several shapes, each of which must do the same with the same records.

Naming event types makes the compiler fold conditions and branch by type; a pattern in place of the name does not. Records
may be structs or dicts. Hop one may be absent or say the same field by field. None of that may be seen in what is sent.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapping_cases import CANONICAL, MODEL, Relayed, event, run

from transforms.located import parse
from transforms.mapping import ModelSpec, compile_mapping

TYPES = ["a", "b", "c"]
texts = st.sampled_from(["$country", "$event_type", "$platform", "$event_data.currency", "$params.a", "x", "", "$$y"])
wholes = st.sampled_from(
    ["$event_data.level", "$event_timestamp", "$event_data.score", "$params.a", "$params.b", 7, -1]
)
anything = (
    texts | wholes | st.sampled_from(["$params", "$event_data.success", "$event_data.amount", "$params.m.k", None])
)
maps = st.sampled_from(["$params", "$user_properties", {"map": {}}])

tests: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(TYPES).map(lambda name: {"event_type": name}),
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True).map(
        lambda names: {"event_type": {"in": names}}
    ),
    st.sampled_from(
        [
            {"country": "DE"},
            {"country": {"exists": True}},
            {"country": {"matches": "[A-Z]{2}"}},
            {"event_data.level": {"gt": 5}},
            {"event_data.level": {"exists": False}},
            {"params.a": {"in": ["x", 5]}},
            {"params.a": {"exists": True}, "params.b": {"lt": 3}},
            {"params.b": True},
            {"params.m.k": {"matches": ".*"}},
        ]
    ),
)
conditions: st.SearchStrategy[Any] = st.recursive(
    tests,
    lambda inner: st.one_of(
        inner.map(lambda one: {"not": one}),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: {"all": many}),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: {"any": many}),
    ),
    max_leaves=4,
)


def _with_branches(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"first": items}),
        st.builds(lambda test, then, other: {"if": test, "then": then, "else": other}, conditions, inner, inner),
        st.builds(lambda one, other: {"value": one, "default": other}, inner, inner),
    )


text_values = st.recursive(
    texts | anything.map(lambda one: {"text": one}) | anything.map(lambda one: {"json": one}),
    lambda inner: st.one_of(
        _with_branches(inner),
        st.builds(
            lambda key, other: {"lookup": key, "table": {"x": "one", "DE": "two"}, "default": other}, inner, inner
        ),
        inner.map(lambda one: {"replace": one, "pattern": "[^a-z]", "with": "_"}),
        st.just({"template": "{event_type}-{params.a}"}),
        wholes.map(lambda one: {"time": {"integer": one}, "unit": "s", "to": "iso"}),
    ),
    max_leaves=5,
)
whole_values = st.recursive(
    wholes | texts.map(lambda one: {"integer": one}),
    lambda inner: st.one_of(
        _with_branches(inner),
        st.builds(lambda one, other: {"integer": {"multiply": [one, other]}, "round": True}, inner, inner),
        st.builds(lambda one, other: {"integer": {"divide": [one, other]}, "round": True}, inner, inner),
    ),
    max_leaves=4,
)
map_values = st.recursive(
    maps | st.builds(lambda one, other: {"map": {"one": one, "other": other}}, anything, text_values),
    lambda inner: _with_branches(inner) | st.lists(inner, min_size=1, max_size=3).map(lambda items: {"merge": items}),
    max_leaves=3,
)
list_values = st.one_of(
    st.lists(text_values, max_size=3).map(lambda items: {"list": items}),
    map_values.map(lambda one: {"list": one, "each": {"text": "$value"}}),
    map_values.map(lambda one: {"list": one, "each": {"template": "{key}={value}"}}),
)
reasoned = st.lists(
    st.builds(lambda test, reason: {"when": test, "reason": reason}, conditions, st.sampled_from(["r1", "r2"])),
    max_size=2,
)
models = st.fixed_dictionaries(
    {
        "fields": st.fixed_dictionaries(
            {},
            optional={
                "text": text_values,
                "whole": whole_values,
                "number": whole_values,
                "any": anything,
                "id": text_values,
                "pairs": map_values,
                "flat": map_values.map(lambda one: {"flat": one}),
                "texts": list_values,
                "inner.kind": text_values.map(lambda one: {"first": [one, "always"]}),  # it is required
            },
        )
    },
    optional={"when": conditions, "drop": reasoned, "reject": reasoned},
)
FREE = ["x", "12", 5, 0, 2.5, 3.0, True, None, [1, "a", None], {"k": None, "v": 1}, 2**70]
records = st.builds(
    event,
    st.sampled_from(TYPES),
    country=st.sampled_from([None, "DE", "x", ""]),
    platform=st.sampled_from([None, "ios"]),
    user_id=st.sampled_from([None, "u", 5]),
    event_data=st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "level": st.sampled_from([0, 5, 50]),
            "score": st.just(2**62),
            "currency": st.just("gold"),
            "success": st.booleans(),
            "amount": st.sampled_from([1.5, 1e308]),
        },
    ),
    params=st.none()
    | st.fixed_dictionaries(
        {}, optional={"a": st.sampled_from(FREE), "b": st.sampled_from(FREE), "m": st.just({"k": "v"})}
    ),
    user_properties=st.none() | st.just({"p": 1, "q": None}),
)


def unnamed(part: Any) -> Any:
    """The same with event types as patterns, so that none gets a branch of its own."""
    if isinstance(part, dict):
        test = part.get("event_type")
        if test is not None:
            names = test["in"] if isinstance(test, dict) else [test]
            return {"event_type": {"matches": "|".join(map(re.escape, names))}}
        return {key: unnamed(one) for key, one in part.items()}
    return [unnamed(one) for one in part] if isinstance(part, list) else part


HOP_ONE = {
    f"{name}.{inner}" if field.type.fields else name: f"${name}.{inner}" if field.type.fields else f"${name}"
    for name, field in CANONICAL.fields.items()
    for inner in (field.type.fields or [""])
}


def relay(mapping: Any, given: list[Any], *, hop_one: bool = False, access: Any = "attribute") -> Relayed:
    mapper = compile_mapping(
        source_schema=CANONICAL,
        hop_one=parse(json.dumps(HOP_ONE), "hop.yaml") if hop_one else None,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec("one", MODEL), ModelSpec("two", MODEL)],
        hop_two=parse(json.dumps(mapping), "mapping.yaml"),
        hop_two_override=None,
        shards=4,
        access=access,
    )
    return run(mapper, given, access=access)


def seen(relayed: Relayed) -> Any:
    """What can be seen from outside: items, filtered, and what was rejected."""
    rejected = [(one.ref, one.model, one.user) for one in relayed.tally.rejected]
    return relayed.items, relayed.tally.filtered, rejected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(models, models, st.lists(records, min_size=1, max_size=5))
def test_the_same_in_every_shape(one: Any, two: Any, given_: list[Any]) -> None:
    mapping = {"one": one, "two": two}
    plain = seen(relay(mapping, given_))
    assert seen(relay(unnamed(mapping), given_)) == plain
    assert seen(relay(mapping, given_, access="item")) == plain
    assert seen(relay(mapping, given_, hop_one=True)) == plain
