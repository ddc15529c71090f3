"""Each form of a condition."""

from __future__ import annotations

from typing import Any

import pytest
from mapping_cases import compiled, event, run

RECORD = event(
    "login",
    country="DE",
    user_id=7,
    event_data={"level": 12, "success": True, "duration_s": 1.5},
    params={"s": "12", "i": 12, "l": [1], "b": False, "n": None, "m": {}, "o": {"x": None}, "e": []},
)

CASES = [
    ("{event_type: login}", True),
    ("{event_type: logout}", False),
    ("{event_type: {is: login}}", True),
    ("{event_type: {in: [login, logout]}}", True),
    ("{event_type: {in: [logout]}}", False),
    ("{country: {in: [DE, FR]}}", True),
    ("{city: Berlin}", False),
    ("{city: {exists: true}}", False),
    ("{city: {exists: false}}", True),
    ("{country: {exists: true}}", True),
    ('{country: {matches: "[A-Z]{2}"}}', True),
    ('{country: {matches: "[A-Z]"}}', False),
    ('{city: {matches: ".*"}}', False),
    ("{event_data.level: 12}", True),
    ("{event_data.level: {is: 13}}", False),
    ("{event_data.level: {gt: 12}}", False),
    ("{event_data.level: {gte: 12}}", True),
    ("{event_data.level: {lt: 12}}", False),
    ("{event_data.level: {lte: 12}}", True),
    ("{event_data.level: {gte: 10, lt: 20}}", True),
    ("{event_data.level: {gte: 10, lt: 12}}", False),
    ("{event_data.score: {gt: 0}}", False),
    ("{event_data.duration_s: {gt: 1}}", True),
    ("{event_data.success: true}", True),
    ("{event_data.success: false}", False),
    ("{user_id: 7}", True),
    ("{user_id: {exists: true}}", True),
    ("{params.s: {is: '12'}}", True),
    ("{params.i: 12}", True),
    ("{params.i: {gt: 3}}", True),
    ("{params.i: {gt: 30}}", False),
    ("{params.s: {gt: 3}}", False),
    ("{params.b: false}", True),
    ("{params.b: {is: 0}}", False),
    ("{params.n: {exists: true}}", False),
    ("{params.l: {exists: true}}", True),
    ("{params.none.deeper: {exists: true}}", False),
    ("{params: {empty: true}}", False),
    ("{params: {empty: false}}", True),
    ("{user_properties: {empty: true}}", True),
    ("{not: {user_properties: {empty: true}}}", False),
    ("{params.m: {empty: true}}", True),
    ("{params.o: {empty: true}}", True),
    ("{params.o: {empty: false}}", False),
    ("{params.e: {empty: true}}", True),
    ("{params.l: {empty: true}}", False),
    ("{params.s: {empty: true}}", False),
    ("{params.none: {empty: true}}", True),
    ("{all: [{params: {empty: false}}, {params.i: 12}]}", True),
    ('{params.s: {matches: "[0-9]+"}}', True),
    ('{params.i: {matches: "[0-9]+"}}', True),
    ('{params.l: {matches: ".*"}}', False),
    ("{event_type: login, country: DE}", True),
    ("{event_type: login, country: FR}", False),
    ("{all: [{event_type: login}, {country: DE}]}", True),
    ("{all: [{event_type: login}, {country: FR}]}", False),
    ("{any: [{event_type: logout}, {country: DE}]}", True),
    ("{any: [{event_type: logout}, {country: FR}]}", False),
    ("{not: {event_type: login}}", False),
    ("{not: {event_type: logout}}", True),
    ("{not: {event_type: {in: [logout, login]}}}", False),
    ("{not: {city: Berlin}}", True),
    ("{event_type: login, any: [{country: FR}, {country: DE}], not: {event_data.level: 1}}", True),
    ("true", True),
    ("false", False),
]


@pytest.mark.parametrize(("condition", "holds"), CASES)
def test_condition(condition: str, holds: bool) -> None:
    """As a value's `if` and as a model's `when`: the same answer."""
    relayed = run(compiled(f"thing: {{fields: {{text: {{if: {condition}, then: y, else: n}}}}}}"), [RECORD])
    assert relayed.payloads == [{"text": "y" if holds else "n"}]
    relayed = run(compiled(f"thing: {{when: {condition}, fields: {{text: x}}}}"), [RECORD])
    assert len(relayed.items) == holds
    assert relayed.tally.filtered == ({} if holds else {"no model takes login": 1})


MANY: list[Any] = [event(name, event_data={"level": level}) for name in ("login", "logout", "odd") for level in (1, 20)]


def test_a_type_that_is_named_and_one_that_is_not_go_the_same_way() -> None:
    """Functions are made for each event type that a mapping names: they must not differ from the one for all others."""
    named = "{any: [{event_type: {in: [login, odd]}, event_data.level: {gt: 5}}, {event_type: logout}]}"
    unnamed = (
        '{any: [{event_type: {matches: "login|odd"}, event_data.level: {gt: 5}}, {event_type: {matches: logout}}]}'
    )
    for when in (named, unnamed):
        relayed = run(compiled(f"thing: {{when: {when}, fields: {{text: x}}}}"), MANY)
        assert [item[4] for item in relayed.items] == [1, 2, 3, 5]
