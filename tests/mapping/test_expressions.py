"""Each form of a value expression: what it gives, and when it rejects."""

from __future__ import annotations

from typing import Any

import pytest
from mapping_cases import CANONICAL, TIME, compiled, event, run, value_of

import schemas
from transforms.mapping import MapTally

FREE = {
    "s": "x",
    "i": 7,
    "f": 2.5,
    "w": 3.0,
    "t": True,
    "n": None,
    "l": [1, "a"],
    "m": {"a": 1, "b": None},
    "num": "12",
}

CASES: list[tuple[str, str, Any]] = [
    # constants and paths
    ("text", "hello", "hello"),
    ("text", "$$5", "$5"),
    ("text", '{const: "$x"}', "$x"),
    ("whole", "5", 5),
    ("number", "5", 5),
    ("flag", "true", True),
    ("any", "{const: {a: [1, null]}}", {"a": [1, None]}),
    ("text", "$event_type", "login"),
    ("text", "{path: event_type}", "login"),
    ("whole", "$event_timestamp", TIME),
    ("text", "$user_id", "u1"),
    ("text", "$event_data.currency", None),
    ("text", "$params.s", "x"),
    ("whole", "$params.i", 7),
    ("text", "$params.i", "7"),
    ("text", "$params.f", "2.5"),
    ("whole", "$params.w", 3),
    ("whole", "$params.nothing", None),
    ("whole", "$params.n", None),
    ("whole", "$params.m.a", 1),
    ("any", "$params.m.a.b.c", None),
    ("flag", "$params.t", True),
    ("any", "$params.l", [1, "a"]),
    # templates
    ("text", '{template: "{event_type}-{params.i}"}', "login-7"),
    ("text", '{template: "{event_type}-{params.n}"}', None),
    ("text", '{template: "{{{event_type}}}"}', "{login}"),
    # first, default
    ("text", "{first: [$params.n, $params.s, later]}", "x"),
    ("text", "{first: [$params.n, $params.nothing]}", None),
    ("text", "{value: $params.n, default: d}", "d"),
    ("text", "{value: $params.s, default: d}", "x"),
    # lookup
    ("text", "{lookup: $event_type, table: {login: in, logout: out}}", "in"),
    ("text", "{lookup: $params.s, table: {y: z}, default: other}", "other"),
    ("text", "{lookup: $params.s, table: {y: z}, default: $params.s}", "x"),
    ("text", "{lookup: $params.s, table: {y: z}}", None),
    ("text", "{lookup: $params.n, table: {y: z}, default: none}", "none"),
    ("whole", "{lookup: $params.i, table: {7: 70}}", 70),
    # conversions
    ("number", "{number: $params.num}", 12),
    ("number", "{number: $params.f}", 2.5),
    ("whole", "{integer: $params.num}", 12),
    ("whole", "{integer: $params.w}", 3),
    ("whole", "{integer: $params.f, round: true}", 3),
    ("whole", "{integer: $params.n}", None),
    ("text", "{text: $params.t}", "true"),
    ("text", "{text: $params.w}", "3"),
    ("text", "{text: $params.i}", "7"),
    ("text", "{text: $params.l}", '[1,"a"]'),
    ("text", "{text: $params.m}", '{"a":1}'),
    ("text", "{text: $params.n}", None),
    ("flag", "{boolean: $params.t}", True),
    ("flag", '{boolean: {const: "false"}}', False),
    ("text", "{json: $params.m}", '{"a":1}'),
    ("text", "{json: $params.s}", '"x"'),
    # time
    ("whole", "{time: $event_timestamp, unit: ms}", TIME),
    ("whole", "{time: $event_timestamp, unit: ms, to: s}", TIME // 1000),
    ("text", "{time: $event_timestamp, unit: ms, to: iso}", "2025-11-24T16:00:00.000Z"),
    ("text", '{time: $event_timestamp, unit: ms, to: "%Y-%m-%d %H:%M:%S"}', "2025-11-24 16:00:00"),
    ("whole", '{time: {const: "2016-03-07T00:00:00Z"}, format: iso}', 1457308800000),
    ("whole", '{time: {const: "2017-10-27T09:35:16.2946918Z"}, format: iso}', 1509096916294),
    ("whole", '{time: {const: "24.11.2025 17:00"}, format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}', TIME),
    ("whole", "{time: $params.f, unit: s}", 2500),
    ("whole", "{time: $params.n, unit: s}", None),
    # arithmetic
    ("whole", "{multiply: [$params_level, 3]}", 27),
    ("number", "{multiply: [2, 2.5]}", 5.0),
    ("number", "{multiply: [$event_data.level, 2.5]}", 22.5),
    ("number", "{divide: [$event_data.level, 2]}", 4.5),
    ("whole", "{integer: {divide: [$event_data.level, 3]}}", 3),
    ("number", "{divide: [$event_data.score, 2]}", None),
    # lists and maps
    ("texts", "{list: [a, $event_type, $params.n]}", ["a", "login"]),
    ("any", "{list: $params.m, each: {key: $key, value: {text: $value}}}", [{"key": "a", "value": "1"}]),
    ("texts", "{list: $params.l, each: {text: $value}}", ["1", "a"]),
    ("pairs", "{map: {a: $event_type, b: $params.n}}", {"a": "login"}),
    ("pairs", "{merge: [{map: {a: 1, b: 2}}, $params.m]}", {"a": 1, "b": 2}),
    ("pairs", "{merge: [{map: {a: 5}}, $params.m]}", {"a": 1}),
    (
        "flat",
        "{flat: $params}",
        {"s": "x", "i": 7, "f": "2.5", "w": "3", "t": "true", "l": '[1,"a"]', "m": '{"a":1}', "num": "12"},
    ),
    # if
    ("text", "{if: {event_type: login}, then: yes, else: no}", "yes"),
    ("text", "{if: {event_data.level: {gt: 10}}, then: high, else: low}", "low"),
    ("text", "{if: {event_data.level: {gt: 10}}, then: high}", None),
    # replace
    ("text", '{replace: {const: "a b/c"}, pattern: "[^a-z]", with: "_"}', "a_b_c"),
    ("text", '{replace: $event_type, pattern: "o", with: "\\\\1"}', "l\\1gin"),
    ("text", '{replace: $params.n, pattern: "o", with: "0"}', None),
]  # fmt: skip


@pytest.mark.parametrize(("field", "expression", "expected"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_value(field: str, expression: str, expected: Any) -> None:
    expression = expression.replace("$params_level", "$event_data.level")
    got = value_of(field, expression, event(params=FREE, event_data={"level": 9}))
    assert got == expected
    assert type(got) is type(expected)


REJECTED = [
    ("whole", "$params.s"),
    ("whole", "$params.f"),
    ("whole", "$params.t"),
    ("whole", "$params.big"),
    ("text", "$params.t"),
    ("text", "$params.m"),
    ("number", "$params.t"),
    ("flag", "$params.i"),
    ("whole", "{integer: $params.s}"),
    ("whole", "{integer: $params.f}"),
    ("whole", "{integer: {divide: [$event_data.level, 2]}}"),
    ("number", "{divide: [$event_data.level, 0]}"),
    ("number", "{number: $params.s}"),
    ("flag", "{boolean: $params.s}"),
    ("whole", "{time: $params.s, format: iso}"),
    ("whole", "{time: $params.huge, unit: s}"),
    ("pairs", "{merge: [$params.m, $params.s]}"),
    ("texts", "{list: $params.i, each: {text: $value}}"),
]


@pytest.mark.parametrize(("field", "expression"), REJECTED)
def test_value_that_cannot_be(field: str, expression: str) -> None:
    mapper = compiled(f"thing: {{fields: {{{field}: {expression}}}}}")
    relayed = run(mapper, [event(params={**FREE, "big": 2**63, "huge": 1e300}, event_data={"level": 9})])
    (rejected,) = relayed.tally.rejected
    assert rejected[:3] == (0, "thing", field)
    assert (rejected.user, rejected.time_ms) == ("u1", TIME)
    assert rejected.reason
    assert not relayed.items


def test_half_a_surrogate_pair_is_rejected() -> None:
    """Text that Avro or a lenient decoder let in and UTF-8 cannot carry."""
    mapper = compiled("thing: {fields: {text: $city, any: $params}}")
    struct = schemas.struct_type(CANONICAL)
    records = [
        struct(event_type="a", event_timestamp=TIME, city="\ud800"),
        struct(event_type="a", event_timestamp=TIME, params={"k": ["\ud800"]}),
        struct(event_type="a", event_timestamp=TIME, user_id="\ud800"),
        struct(event_type="\ud800", event_timestamp=TIME),
    ]
    tally = MapTally()
    shards: list[list[Any]] = [[] for _ in range(4)]
    mapper.map_chunk(records, None, 0, shards, tally)
    assert [rejected.ref for rejected in tally.rejected] == [0, 1, 2]
    assert [item[4] for shard in shards for item in shard] == [3]
    assert all(rejected.reason for rejected in tally.rejected)


def test_nested_fields_make_one_record() -> None:
    mapping = "thing: {fields: {inner.kind: $event_type, inner.size: $event_data.level}}"
    relayed = run(compiled(mapping), [event(event_data={"level": 3}), event()])
    assert relayed.payloads == [{"inner": {"kind": "login", "size": 3}}, {"inner": {"kind": "login"}}]


def test_absent_values_are_never_sent() -> None:
    relayed = run(
        compiled("thing: {fields: {text: $city, whole: $event_data.level, number: 1}}"), [event(user_id=None)]
    )
    assert [item[0] for item in relayed.items] == [b'{"number":1}']
    assert relayed.items[0][2] == ""


def test_user_is_the_anonymous_id_where_there_is_no_other() -> None:
    records = [event(user_id=5), event(user_id=None, anonymous_id=6), event(user_id=None, anonymous_id="a")]
    assert [item[2] for item in run(compiled("thing: {fields: {text: x}}"), records).items] == ["5", "6", "a"]


def test_options_are_constants() -> None:
    mapping = "thing: {fields: {text: {if: {options.mode: a}, then: $options.word, else: other}}}"
    assert run(compiled(mapping, options={"mode": "a", "word": "w"}), [event()]).payloads == [{"text": "w"}]
    assert run(compiled(mapping, options={"mode": "b", "word": "w"}), [event()]).payloads == [{"text": "other"}]
