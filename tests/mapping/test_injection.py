"""No text of a mapping and no value of a record becomes code."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapping_cases import CANONICAL, MODEL, TIME, compiled, event, run

import schemas
from transforms.located import Node
from transforms.mapping import MapTally, ModelSpec, compile_mapping

EVIL = [
    "'",
    '"',
    "\\",
    "\n",
    '"""',
    "'''",
    "{x}",
    "%s",
    "\u2028",
    "\x00",
    "\\N{DIGIT ONE}",
    '"); raise SystemExit #',
    "\n    import os\n#",
]
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.sampled_from(EVIL))


def node(value: Any, key: str = "") -> Node:
    """A node of plain values, with texts that YAML could not even write."""
    if isinstance(value, dict):
        value = {name: node(item, f"{key}.{name}") for name, item in value.items()}
    elif isinstance(value, list):
        value = [node(item, f"{key}[]") for item in value]
    return Node(value, "evil\nimport os.yaml", 1, 1, key, text=str(value) if isinstance(value, str | int) else "")


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=3, max_size=3, unique=True))
@example(["'", '"', "\n    import os\n#"])
def test_texts_of_a_mapping_stay_texts(three_texts: list[str]) -> None:
    one, two, three = three_texts
    mapping = {
        "thing": {
            "when": {"any": [{"event_type": one}, {"country": {"in": [two, three]}}, {"params.x": three}]},
            "drop": [{"when": {"city": one}, "reason": two}],
            "reject": [{"when": {"region": one}, "reason": three}],
            "fields": {
                "text": {"const": one},
                "id": {
                    "lookup": {"path": "event_type"},
                    "table": {one: "$" + two if two[0] == "$" else two},
                    "default": {"const": three},
                },
                "pairs": {"map": {two: {"const": three}, one: {"path": ["params", three]}}},
                "texts": {"list": [{"const": one}, {"template": two.replace("{", "{{").replace("}", "}}")}]},
            },
        }
    }
    mapper = compile_mapping(
        source_schema=CANONICAL,
        hop_one=None,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec("thing", MODEL)],
        hop_two=node(mapping),
        hop_two_override=None,
        shards=4,
    )
    relayed = run(mapper, [event(one), event("z", city=one, country=two), event("z", region=one, country=two)])
    (payload,) = relayed.payloads
    assert payload == {"text": one, "id": two, "pairs": {two: three}, "texts": [one, two]}
    assert relayed.tally.filtered == {two: 1}
    assert [rejected.reason for rejected in relayed.tally.rejected] == [three]


json_values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
keys = st.sampled_from(["a", "b", "c"])
RICH = """
thing:
  when: {not: {event_type: skip}}
  drop: [{when: {params.a: {gt: 5}}, reason: large}]
  reject: [{when: {params.b: {matches: "x.*"}}, reason: an x}]
  fields:
    text: {first: [{text: $params.a}, $country]}
    whole: $params.b
    number: {multiply: [$params.c, $event_data.amount]}
    flag: {boolean: $params.a}
    any: $params.b
    texts: {list: $params, each: {template: "{key}={value}"}}
    pairs: {merge: [{map: {n: $name, c: $params.c}}, $params]}
    flat: {flat: $params}
    id: {lookup: $params.a, table: {x: y}, default: {time: $event_timestamp, unit: ms, to: iso}}
    inner.kind: $event_type
    inner.size: {integer: {divide: [$event_data.score, $event_data.level]}, round: true}
other:
  when: {event_type: {in: [a, b]}}
  fields:
    text: {replace: $event_type, pattern: "[^a-z]", with: "_"}
    whole: {time: $params.a, format: iso, to: s}
    number: {number: $params.b}
    pairs: {map: {j: {json: $params}}}
"""
MAPPER = compiled(RICH, models={"thing": MODEL, "other": MODEL})
STRUCT: Any = schemas.struct_type(CANONICAL)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            dict,
            event_type=st.one_of(st.sampled_from(["a", "b", "skip"]), st.text(max_size=5)),
            event_timestamp=st.integers(-(2**63), 2**63 - 1),
            user_id=st.one_of(st.none(), st.text(max_size=5), st.integers(-(2**63), 2**63 - 1)),
            country=st.one_of(st.none(), st.text(max_size=3)),
            params=st.one_of(st.none(), st.dictionaries(keys, json_values, max_size=3)),
            event_data=st.one_of(
                st.none(),
                st.fixed_dictionaries(
                    {},
                    optional={
                        "amount": st.floats(),
                        "score": st.integers(-(2**63), 2**63 - 1),
                        "level": st.sampled_from([0, 1, -3, 2**62]),
                    },
                ),
            ),
        ),
        max_size=6,
    )
)
def test_no_record_throws_and_the_sums_hold(records: list[dict[str, Any]]) -> None:
    decoded = [STRUCT(**{**record, "event_data": _data(record["event_data"])}) for record in records]
    shards: list[list[Any]] = [[] for _ in range(4)]
    tally = MapTally()
    MAPPER.map_chunk(decoded, None, 0, shards, tally)
    items = [item for shard in shards for item in shard]
    assert tally.records == len(records) == tally.touched + sum(tally.filtered.values())
    assert tally.items == len(items)
    assert {item[4] for item in items} | {rejected.ref for rejected in tally.rejected} <= set(range(len(records)))
    assert tally.touched == len({item[4] for item in items} | {rejected.ref for rejected in tally.rejected})
    for item in items:
        msgspec.json.decode(item[0], type=schemas.struct_type(MODEL))


def _data(plain: dict[str, Any] | None) -> Any:
    kind: Any = schemas.struct_type(CANONICAL.fields["event_data"].type)
    return None if plain is None else kind(**plain)


def test_time_is_the_records() -> None:
    assert run(MAPPER, [event("a", params={})]).items[0][3] == TIME
