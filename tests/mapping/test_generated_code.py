"""The generated code as people read it, and what may go into it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from mapping_cases import CANONICAL, MODEL, TIME, compiled, problems_of, run

import schemas
from transforms.located import Problems, parse
from transforms.mapping import MapTally, ModelSpec, compile_mapping

GOLDEN = Path(__file__).parent / "golden_mapping.txt"
SOURCE = schemas.parse(
    {
        "type": "record",
        "name": "Record",
        "fields": [
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
event_type: {lookup: $name, table: {in: login}, default: $name}
event_timestamp: {time: $at, unit: s}
user_id: $player
event_data.level: $data.level
params: $data
platform: $data.platform
drop:
  - {when: {bot: true}, reason: bot}
"""
HOP_TWO = """
thing:
  when: {event_type: {in: [login, level_up]}}
  drop: [{when: {platform: none}, reason: nowhere}]
  fields:
    text: {template: "{event_type}/{platform}"}
    whole: {if: {event_type: level_up}, then: $event_data.level}
    id: {integer: $params.id}
"""


def test_golden() -> None:
    """Conditions on the event type are gone, each value names its line, what cannot fail is not checked."""
    assert compiled(HOP_TWO, hop_one=HOP_ONE, source=SOURCE).code == GOLDEN.read_text()


def test_golden_does_what_it_says() -> None:
    record = {"name": "in", "at": TIME // 1000, "player": 5, "data": {"platform": "ios", "id": "12", "level": 3}}
    records = [record, {**record, "name": "level_up"}, {**record, "bot": True}, {**record, "name": "x"}]
    relayed = run(compiled(HOP_TWO, hop_one=HOP_ONE, source=SOURCE), records, SOURCE)
    assert relayed.payloads == [{"text": "login/ios", "id": 12}, {"text": "level_up/ios", "whole": 3, "id": 12}]
    assert relayed.tally.filtered == {"bot": 1, "no model takes x": 1}


def test_line_ends_in_names_of_files_stay_in_their_comments() -> None:
    mapper = compile_mapping(
        source_schema=CANONICAL,
        hop_one=None,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec("thing", MODEL)],
        hop_two=parse("thing: {fields: {text: x}}", "a\nraise SystemExit\u2028.yaml"),
        hop_two_override=None,
        shards=4,
    )
    assert "# text: a raise SystemExit .yaml:1" in mapper.code
    assert all(line.isprintable() for line in mapper.code.splitlines())


def test_attributes_of_messages() -> None:
    hop_one = "{event_type: $name, event_timestamp: $at, user_id: $attributes.player}"
    mapper = compiled("thing: {fields: {text: $user_id}}", hop_one=hop_one, source=SOURCE)
    assert mapper.needs_attributes
    struct = schemas.struct_type(SOURCE)
    records = [msgspec.json.decode(b'{"name":"a","at":1}', type=struct)] * 3
    tally, shards = MapTally(), [[], [], [], []]  # type: tuple[MapTally, list[list[object]]]
    mapper.map_chunk(records, None, 0, shards, tally, [{"player": "p"}, {}, None])  # type: ignore[arg-type]
    assert sorted(item[2] for shard in shards for item in shard) == ["", "", "p"]  # type: ignore[index]
    mapper.map_chunk(records, None, 3, shards, tally)  # type: ignore[arg-type]
    assert tally.items == 6
    assert not compiled("thing: {fields: {text: x}}").needs_attributes


def test_a_mapping_that_would_send_nothing_is_refused() -> None:
    """A source that never names the player, to a vendor that needs one."""
    hop_one = "{event_type: $name, event_timestamp: $at}"
    drop = "thing: {drop: [{when: {not: {user_id: {exists: true}}}, reason: no user_id}], fields: {text: x}}"
    assert problems_of(drop, hop_one=hop_one, source=SOURCE) == [
        'preset.yaml:1:1: nothing would be sent: every record would be dropped as "no user_id"; set source.event.user_id'
    ]
    assert problems_of(drop, hop_one="{event_type: $name, event_timestamp: $at, user_id: $player}", source=SOURCE) == []


EXACT = [
    (
        "thing: {fields: {text: $event_data.curency}}",
        "shipped.yaml:1:24: thing.fields.text: unknown field curency in event_data; did you mean currency?",
    ),
    (
        "thing: {fields: {whole: $event_type}}",
        "shipped.yaml:1:25: thing.fields.whole: expected a whole number, but $event_type is text; write {integer: …}",
    ),
    (
        "thing: {fields: {text: $params}}",
        "shipped.yaml:1:24: thing.fields.text: expected text, but $params is a map; write {json: …} for its JSON text",
    ),
    (
        "thing: {fields: {whole: $event_data.duration_s}}",
        "shipped.yaml:1:25: thing.fields.whole: expected a whole number, but $event_data.duration_s is a number;"
        " write {integer: …}, with round: true for the nearest",
    ),
    (
        "thing: {fields: {whole: five}}",
        'shipped.yaml:1:25: thing.fields.whole: expected a whole number, got the text "five"',
    ),
    (
        "thing: {fields: {textt: x}}",
        "shipped.yaml:1:18: thing.fields.textt: unknown field textt; did you mean text?",
    ),
    (
        "thing: {fields: {text: {tex: $event_type}}}",
        "shipped.yaml:1:24: thing.fields.text: unknown operator tex; did you mean text?",
    ),
    (
        "thing: {when: {event_data.level: high}, fields: {text: x}}",
        "shipped.yaml:1:34: thing.when.event_data.level: event_data.level is a whole number, so it cannot be compared with"
        " text: high",
    ),
    (
        "thing: {fields: {text: $key}}",
        "shipped.yaml:1:24: thing.fields.text: $key is known only inside each",
    ),
    (
        "thing: {fields: {whole: {time: $event_type, format: '%Y', zone: Europe/Berlim}}}",
        "shipped.yaml:1:65: thing.fields.whole.zone: unknown time zone Europe/Berlim; expected a name such as Europe/Berlin"
        " or UTC",
    ),
    (
        "thingg: {fields: {text: x}}",
        "shipped.yaml:1:1: thingg: unknown model thingg; did you mean thing?",
    ),
]


@pytest.mark.parametrize(("mapping", "message"), EXACT)
def test_messages_word_by_word(mapping: str, message: str) -> None:
    with pytest.raises(Problems) as raised:
        compiled(mapping)
    assert [str(problem) for problem in raised.value.problems] == [message]


def test_the_header() -> None:
    """The header says version and source."""
    mapper = compiled("thing: {fields: {text: x}}")
    assert mapper.code.splitlines()[0] == f"# Mapping version {mapper.version}"
    assert CANONICAL.name in mapper.code.splitlines()[1]
