"""Each static problem: found before anything runs, with its place and the nearest right word."""

from __future__ import annotations

import pytest
from mapping_cases import MODEL, problems_of

import schemas

STRICT = schemas.parse(
    {
        "type": "record",
        "name": "Strict",
        "fields": [
            {"name": "user", "type": "string", "minLength": 1},
            {"name": "kind", "type": ["null", "string"], "default": None, "oneOf": ["friend", "party"]},
            {"name": "code", "type": ["null", "string"], "default": None, "pattern": "[A-Z]{2}", "maxLength": 2},
            {"name": "count", "type": ["null", "long"], "default": None, "minimum": 1, "maximum": 9},
            {"name": "small", "type": ["null", "int"], "default": None},
        ],
    },
    "strict",
)
MODELS = {"thing": MODEL, "strict": STRICT}

# (mapping, place of the problem, words that the message holds)
CASES = [
    # fields
    (
        "thing: {fields: {text: $user_idd}}",
        "1:24",
        ["thing.fields.text", "unknown field user_idd", "did you mean user_id?"],
    ),
    ("thing: {fields: {text: $event_data.curency}}", "1:24", ["curency", "did you mean currency?"]),
    ("thing: {fields: {text: $event_type.x}}", "1:24", ["event_type", "text"]),
    ("thing: {fields: {textt: x}}", "1:18", ["textt", "did you mean text?"]),
    ("thing: {fields: {inner.kindd: x}}", "1:18", ["kindd", "did you mean kind?"]),
    ("thing: {fields: {text.x: x}}", "1:18", ["text"]),
    # types
    ("thing: {fields: {whole: $event_type}}", "1:25", ["text", "a whole number", "{integer: "]),
    ("thing: {fields: {whole: $event_data.duration_s}}", "1:25", ["a whole number", "{integer: ", "round"]),
    ("thing: {fields: {flag: $event_type}}", "1:24", ["true or false", "{boolean: "]),
    ("thing: {fields: {text: $event_data.success}}", "1:24", ["text", "{text: "]),
    ("thing: {fields: {text: $params}}", "1:24", ["a map", "text", "{json: "]),
    ("thing: {fields: {number: $event_type}}", "1:26", ["a number", "{number: "]),
    ("thing: {fields: {whole: five}}", "1:25", ["five", "a whole number"]),
    ("thing: {fields: {whole: 1.5}}", "1:25", ["1.5", "a whole number"]),
    ("thing: {fields: {text: true}}", "1:24", ["true", "text"]),
    ("thing: {fields: {texts: $event_type}}", "1:25", ["a list"]),
    ("thing: {fields: {pairs: $event_type}}", "1:25", ["a map"]),
    ("thing: {fields: {number: {multiply: [$event_type, 2]}}}", "1:38", ["text"]),
    ("thing: {fields: {text: {time: $event_type, unit: s}}}", "1:31", ["format"]),
    # required
    ("strict: {fields: {kind: friend}}", "1:9", ["user", "required"]),
    ("thing: {fields: {inner.size: 1}}", "1:", ["inner.kind", "required"]),
    ("strict: {fields: {user: null}}", "1:", ["user", "required"]),
    # constants and rules
    ("strict: {fields: {user: u, kind: freind}}", "1:34", ["freind", "friend"]),
    ("strict: {fields: {user: u, code: Ger}}", "1:34", ["Ger"]),
    ("strict: {fields: {user: u, code: de}}", "1:34", ["de", "[A-Z]{2}"]),
    ("strict: {fields: {user: u, count: 0}}", "1:35", ["0", "1"]),
    ("strict: {fields: {user: u, count: 10}}", "1:35", ["10", "9"]),
    ('strict: {fields: {user: ""}}', "1:25", ["user"]),
    ("strict: {fields: {user: u, small: 3000000000}}", "1:35", ["3000000000"]),
    ("strict: {fields: {user: u, kind: {if: {event_type: a}, then: foe}}}", "1:62", ["foe"]),
    ("strict: {fields: {user: u, kind: {lookup: $event_type, table: {a: foe}}}}", "1:67", ["foe"]),
    # operators
    ("thing: {fields: {text: {tex: $event_type}}}", "1:24", ["unknown operator tex", "did you mean text?"]),
    ("thing: {fields: {text: {text: $event_type, number: 1}}}", "1:24", ["text and number"]),
    ("thing: {fields: {text: {lookup: $event_type, tabel: {a: b}}}}", "1:24", ["tabel", "did you mean table?"]),
    ("thing: {fields: {text: {lookup: $event_type}}}", "1:24", ["table"]),
    ("thing: {fields: {text: {lookup: $event_type, table: {a: [1]}}}}", "1:57", ["constant"]),
    ("thing: {fields: {whole: {lookup: $event_type, table: {a: b}}}}", "1:58", ["a whole number"]),
    ("thing: {fields: {text: {if: {event_type: a}}}}", "1:24", ["then"]),
    ("thing: {fields: {text: [a]}}", "1:24", ["list"]),
    ("thing: {fields: {text: {}}}", "1:24", ["empty map"]),
    ('thing: {fields: {text: {template: "a{b"}}}', "1:35", ["{"]),
    ('thing: {fields: {text: {template: "a{nope}"}}}', "1:35", ["nope"]),
    ("thing: {fields: {text: $}}", "1:24", ["path"]),
    ("thing: {fields: {text: $a..b}}", "1:24", ["path"]),
    # patterns, formats, zones
    ('thing: {when: {event_type: {matches: "["}}, fields: {text: x}}', "1:38", ["regular expression"]),
    ('thing: {fields: {text: {replace: $event_type, pattern: "(", with: ""}}}', "1:56", ["regular expression"]),
    ("thing: {fields: {text: {time: {text: $event_type}, format: '%Q'}}}", "1:60", ["%Q"]),
    ("thing: {fields: {whole: {time: $event_type, format: '%Y', zone: Europe/Berlim}}}", "1:65", ["Europe/Berlim"]),
    ("thing: {fields: {whole: {time: $event_timestamp, unit: h}}}", "1:56", ["s, ms, us, ns"]),
    # models
    ("thingg: {fields: {text: x}}", "1:1", ["thingg", "did you mean thing?"]),
    ("thing: {field: {text: x}}", "1:9", ["field", "did you mean fields?"]),
    ("thing: 5", "1:8", []),
    # conditions
    ("thing: {when: {event_typ: a}, fields: {text: x}}", "1:", ["event_typ", "did you mean event_type?"]),
    ("thing: {when: {event_data.level: high}, fields: {text: x}}", "1:34", ["a whole number", "text"]),
    ("thing: {when: {event_type: {gt: 5}}, fields: {text: x}}", "1:33", ["text"]),
    ("thing: {when: {event_type: {iss: a}}, fields: {text: x}}", "1:29", ["iss", "did you mean is?"]),
    ("thing: {when: {event_type: [a]}, fields: {text: x}}", "1:28", ["{in: "]),
    ("thing: {when: {$event_type: a}, fields: {text: x}}", "1:16", ["without $"]),
    ("thing: {when: {event_data.level: {matches: x}}, fields: {text: x}}", "1:44", ["text"]),
    ("thing: {when: {event_data.level: {empty: true}}, fields: {text: x}}", "1:42", ["lists and maps", "whole number"]),
    ("thing: {when: {params: {empty: 3}}, fields: {text: x}}", "1:32", ["true or false"]),
    ("thing: {when: login, fields: {text: x}}", "1:15", ["condition"]),
    ("thing: {drop: [{reason: x}], fields: {text: x}}", "1:16", ["when"]),
    ("thing: {drop: [{when: true}], fields: {text: x}}", "1:16", ["reason"]),
    # scopes
    ("thing: {fields: {text: $key}}", "1:24", ["each"]),
    ("thing: {fields: {any: {list: [a], each: $key}}}", "1:41", ["$key"]),
    ("thing: {fields: {text: $options.nope}}", "1:24", ["option"]),
    ("thing: {fields: $record}", "1:17", ["pass"]),
    ("thing: {fields: {text: $record}}", "1:24", ["pass"]),
]


@pytest.mark.parametrize(("mapping", "place", "words"), CASES, ids=[case[0] for case in CASES])
def test_problem(mapping: str, place: str, words: list[str]) -> None:
    problems = problems_of(mapping, models=MODELS, options={"send": "batch"})
    assert len(problems) == 1, problems
    (problem,) = problems
    assert problem.startswith(f"shipped.yaml:{place}"), problem
    missing = [word for word in words if word not in problem]
    assert not missing, problem


HOP_ONE_CASES = [
    (
        "{event_type: $event_type, event_timestamp: $event_timestamp, usr_id: $user_id}",
        ["usr_id", "did you mean user_id?"],
    ),
    (
        "{event_type: $event_type, event_timestamp: $event_timestamp, event_data.levle: 1}",
        ["levle", "did you mean event_data.level?"],
    ),
    ("{event_type: $event_type, event_timestamp: $event_timestamp, event_data.level: $country}", ["{integer: "]),
    ("{event_type: $event_type}", ["event_timestamp", "required"]),
    ("{event_type: $event_typ, event_timestamp: $event_timestamp}", ["event_typ", "did you mean event_type?"]),
    ("{event_type: $event_type, event_timestamp: $event_timestamp, drop: [{when: {nope: 1}, reason: x}]}", ["nope"]),
]


@pytest.mark.parametrize(("hop_one", "words"), HOP_ONE_CASES)
def test_problem_of_hop_one(hop_one: str, words: list[str]) -> None:
    problems = problems_of("thing: {fields: {text: x}}", hop_one=hop_one)
    assert len(problems) == 1, problems
    assert problems[0].startswith("preset.yaml:1:")
    assert all(word in problems[0] for word in words), problems[0]


def test_all_problems_at_once_each_in_its_own_file() -> None:
    problems = problems_of(
        "thing:\n  fields:\n    text: $nope\n    whole: 1\n",
        override="thing:\n  fields:\n    whole: x\nnothing:\n  fields: {}\n",
        hop_one_override="user_id: $user_di",
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "relay.yaml:1:10",
        "relay.yaml:3:12",
        "relay.yaml:4:1",
        "shipped.yaml:3:11",
    ]


def test_a_wrong_name_is_told_wherever_it_stands() -> None:
    problems = problems_of(
        "thing: {when: {event_typ: a}, fields: {text: $event_typ, any: $event_data.levl, id: $event_data.levl}}"
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        f"shipped.yaml:1:{column}" for column in (27, 46, 63, 85)
    ]


def test_an_override_of_a_shipped_model_that_is_not_sent_is_no_problem() -> None:
    assert problems_of("thing: {fields: {text: x}}\nother: {fields: {text: x}}", override="other: off") == []
