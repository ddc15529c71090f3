"""What a compiled mapping does with records: dropping, rejecting, several models, two hops, rules, sums."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from mapping_cases import CANONICAL, MODEL, TIME, compiled, event, run

import schemas
from transforms.located import parse
from transforms.mapping import MapTally, ModelSpec, merge

SOURCE = schemas.parse(
    {
        "type": "record",
        "name": "Record",
        "fields": [
            {"name": "id", "type": ["null", "string"], "default": None},
            {"name": "name", "type": "string"},
            {"name": "at", "type": "long"},
            {"name": "player", "type": ["null", "string", "long"], "default": None},
            {"name": "bot", "type": ["null", "boolean"], "default": None},
            {"name": "data", "type": {"type": "map", "values": "string", "json": True}, "default": {}},
        ],
    },
    "record.avsc",
)
HOP_ONE = """
event_type: {lookup: $name, table: {in: login, out: logout}, default: $name}
event_timestamp: {time: $at, unit: s}
user_id: $player
event_data.level: $data.level
params: $data
drop:
  - {when: {bot: true}, reason: bot}
"""


def record(name: str = "in", **fields: Any) -> dict[str, Any]:
    return {"name": name, "at": TIME // 1000, "player": "p1", **fields}


HOP_TWO = """
thing:
  when: {event_type: login}
  fields: {text: $event_type, whole: $event_data.level, pairs: $params, id: $user_id}
"""


def test_two_hops() -> None:
    records = [
        record(data={"level": 3}),
        record("out"),
        record(bot=True),
        record(data={"level": "x"}),
        record(player=9),
    ]
    relayed = run(compiled(HOP_TWO, hop_one=HOP_ONE, source=SOURCE), records, SOURCE)
    assert relayed.payloads == [
        {"text": "login", "whole": 3, "pairs": {"level": 3}, "id": "p1"},
        {"text": "login", "pairs": {}, "id": 9},
    ]
    assert [item[1:] for item in relayed.items] == [(0, "p1", TIME, 0), (0, "9", TIME, 4)]
    assert relayed.tally.filtered == {"no model takes logout": 1, "bot": 1}
    (rejected,) = relayed.tally.rejected
    assert (rejected.ref, rejected.model, rejected.user) == (3, "thing", "p1")


def test_item_access_gives_the_same() -> None:
    records = [record(data={"level": 3}, bot=None), record("out"), {"name": "in", "at": 1}]
    attribute = run(compiled(HOP_TWO, hop_one=HOP_ONE, source=SOURCE), records, SOURCE)
    item = run(compiled(HOP_TWO, hop_one=HOP_ONE, source=SOURCE, access="item"), records, SOURCE, access="item")
    assert [one[1:] for one in item.items] == [one[1:] for one in attribute.items]
    assert item.tally.filtered == attribute.tally.filtered
    assert [payload.get("whole") for payload in item.payloads] == [3, None]


def test_canonical_records_by_item() -> None:
    mapping = "thing: {fields: {text: $event_type, whole: $event_data.level, number: $event_data.amount}}"
    relayed = run(
        compiled(mapping, access="item"), [event(event_data={"level": 3, "amount": 2}), event()], access="item"
    )
    assert relayed.payloads == [{"text": "login", "whole": 3, "number": 2}, {"text": "login"}]


def test_hop_one_overrides_the_preset_piece_by_piece() -> None:
    override = "{user_id: $data.uid, event_data.level: null, drop: [{when: {name: gone}, reason: gone}]}"
    mapping = "thing: {fields: {text: $event_type, whole: $event_data.level, id: $user_id}}"
    mapper = compiled(mapping, hop_one=HOP_ONE, source=SOURCE, hop_one_override=override)
    relayed = run(mapper, [record(data={"uid": "q", "level": 1}, bot=True), record("gone")], SOURCE)
    assert relayed.payloads == [{"text": "login", "id": "q"}]
    assert relayed.tally.filtered == {"gone": 1}


def test_drop_and_reject() -> None:
    mapping = """
thing:
  drop: [{when: {event_data.level: {lt: 0}}, reason: too low}]
  reject: [{when: {event_data.level: {gt: 99}}, reason: too high}]
  fields: {whole: $event_data.level}
"""
    relayed = run(compiled(mapping), [event(event_data={"level": level}) for level in (-1, 5, 100)] + [event()])
    assert relayed.payloads == [{"whole": 5}, {}]
    assert relayed.tally.filtered == {"too low": 1}
    (rejected,) = relayed.tally.rejected
    assert (rejected.ref, rejected.model, rejected.reason) == (2, "thing", "too high")


TWO = """
a: {when: {event_type: {in: [login, both]}}, drop: [{when: {event_data.level: 0}, reason: a zero}], fields: {whole: $params.x}}
b: {when: {event_type: {in: [logout, both]}}, drop: [{when: {event_data.level: 0}, reason: b zero}], fields: {text: b}}
"""


def test_one_record_for_several_models() -> None:
    records = [event("both", params={"x": 1}), event("both", params={"x": "bad"}), event("login"), event("none")]
    relayed = run(compiled(TWO, models={"a": MODEL, "b": MODEL}), records)
    assert [(item[1], item[4]) for item in relayed.items] == [(0, 0), (1, 0), (1, 1), (0, 2)]
    assert relayed.mapper.models == ("a", "b")
    assert [(rejected.ref, rejected.model, rejected.field) for rejected in relayed.tally.rejected] == [
        (1, "a", "whole")
    ]
    assert relayed.tally.filtered == {"no model takes none": 1}
    assert (relayed.tally.touched, relayed.tally.items) == (3, 4)


def test_a_record_that_every_model_drops_has_one_reason() -> None:
    relayed = run(compiled(TWO, models={"a": MODEL, "b": MODEL}), [event("both", event_data={"level": 0})])
    assert sum(relayed.tally.filtered.values()) == 1
    assert relayed.tally.filtered.keys() <= {"a zero", "b zero"}


def test_models_off_and_overridden() -> None:
    override = "{a: off, b: {when: true, drop: [], fields: {text: null, whole: 5}}}"
    mapper = compiled(TWO, models={"a": MODEL, "b": MODEL}, override=override)
    assert mapper.models == ("b",)
    relayed = run(mapper, [event("login", event_data={"level": 0})])
    assert relayed.payloads == [{"whole": 5}]
    assert relayed.items[0][1] == 0


def test_only_the_models_asked_for() -> None:
    mapper = compiled(TWO, models={"b": MODEL})
    assert mapper.models == ("b",)
    assert run(mapper, [event("login"), event("both")]).tally.filtered == {"no model takes login": 1}


def test_since_and_until() -> None:
    mapper = compiled("thing: {fields: {text: x}}", since_ms=TIME, until_ms=TIME + 10)
    records = [event(event_timestamp=TIME + add) for add in (-1, 0, 9, 10, 11)]
    relayed = run(mapper, records)
    assert [item[4] for item in relayed.items] == [1, 2]
    assert relayed.tally.filtered == {"before --since": 1, "after --until": 2}


def test_pass_through_keeps_the_bytes() -> None:
    mapper = compiled("raw: {when: {event_type: login}, fields: $record}", specs=[ModelSpec("raw", MODEL, True)])
    assert mapper.needs_raw
    struct = schemas.struct_type(CANONICAL)
    raw = b'{"event_type": "login",  "event_timestamp": 1, "user_id": "u", "odd": [1.0]}'
    tally, shards = MapTally(), [[], [], [], []]  # type: tuple[MapTally, list[list[Any]]]
    mapper.map_chunk([msgspec.json.decode(raw, type=struct)], [raw], [123], shards, tally)
    (item,) = [item for shard in shards for item in shard]
    assert item == (raw, 0, "u", 1, 123)
    assert not compiled("thing: {fields: {text: x}}").needs_raw


def test_references_may_have_gaps() -> None:
    struct = schemas.struct_type(CANONICAL)
    records = [msgspec.convert(event(), struct) for _ in range(3)]
    tally, shards = MapTally(), [[], [], [], []]  # type: tuple[MapTally, list[list[Any]]]
    compiled("thing: {fields: {text: x}}").map_chunk(records, None, [5, 9, 11], shards, tally)
    compiled("thing: {fields: {text: x}}").map_chunk(records, None, 100, shards, tally)
    assert [item[4] for shard in shards for item in shard] == [5, 9, 11, 100, 101, 102]
    assert (tally.records, tally.items) == (6, 6)


def ruled(**rules: Any) -> schemas.Schema:
    kinds = {"text": "string", "whole": "long", "number": "double"}
    fields = [{"name": name, "type": ["null", kinds[name]], "default": None, **rule} for name, rule in rules.items()]
    return schemas.parse({"type": "record", "name": "Ruled", "fields": fields}, "ruled")


RULES = [
    ("text", {"minLength": 2}, "$params.v", [("a", False), ("ab", True)]),
    ("text", {"maxLength": 2}, "$params.v", [("ab", True), ("äöü", False)]),
    ("text", {"pattern": "[a-z]+"}, "$params.v", [("abc", True), ("abc\n", False), ("aBc", False)]),
    ("text", {"oneOf": ["x", "y"]}, "$params.v", [("x", True), ("z", False)]),
    ("whole", {"minimum": 1}, "$params.v", [(1, True), (0, False)]),
    ("whole", {"maximum": 9}, "$event_data.level", [(9, True), (10, False)]),
    ("number", {"exclusiveMinimum": 0}, "$params.v", [(0.5, True), (0, False)]),
]


@pytest.mark.parametrize(("field", "rule", "expression", "cases"), RULES)
def test_rules(field: str, rule: dict[str, Any], expression: str, cases: list[tuple[Any, bool]]) -> None:
    mapper = compiled(f"m: {{fields: {{{field}: {expression}}}}}", models={"m": ruled(**{field: rule})})
    for value, taken in cases:
        data: dict[str, Any] = {"params": {"v": value}}
        if isinstance(value, int):
            data["event_data"] = {"level": value}
        relayed = run(mapper, [event(**data)])
        assert len(relayed.items) == taken, value
        if not taken:
            (rejected,) = relayed.tally.rejected
            assert rejected.field == field


def test_a_required_field_without_a_value_is_rejected() -> None:
    model = schemas.parse(
        {"type": "record", "name": "M", "fields": [{"name": "user", "type": "string"}, {"name": "n", "type": "long"}]},
        "m",
    )
    mapper = compiled("m: {fields: {user: {text: $user_id}, n: $event_timestamp}}", models={"m": model})
    relayed = run(mapper, [event(user_id=None, anonymous_id="a"), event()])
    assert relayed.payloads == [{"user": "u1", "n": TIME}]
    (rejected,) = relayed.tally.rejected
    assert rejected[:4] == (0, "m", "user", "required, but $user_id has no value")
    assert rejected.user == "a"


def test_many_types_that_no_model_takes_stay_countable() -> None:
    relayed = run(
        compiled("thing: {when: {event_type: x}, fields: {text: x}}"), [event(f"type{n}") for n in range(200)]
    )
    assert len(relayed.tally.filtered) <= 52
    assert sum(relayed.tally.filtered.values()) == 200


def test_merge_keeps_places() -> None:
    shipped = parse("thing:\n  when: {event_type: a}\n  fields:\n    text: x\n    whole: 1\n", "shipped.yaml")
    override = parse("thing:\n  fields:\n    whole: 2\n", "relay.yaml")
    merged = merge(shipped, override)
    assert merged is not None
    assert merged.plain() == {"thing": {"when": {"event_type": "a"}, "fields": {"text": "x", "whole": 2}}}
    fields: Any = merged.value["thing"].value["fields"].value  # type: ignore[index,call-overload,union-attr]
    assert [(fields[name].file, fields[name].line) for name in ("text", "whole")] == [
        ("shipped.yaml", 4),
        ("relay.yaml", 3),
    ]


def test_version_names_the_mapping() -> None:
    one, same, other = (compiled(f"thing: {{fields: {{text: {text}}}}}") for text in "aab")
    assert one.version == same.version != other.version
    assert 6 <= len(one.version) <= 16
