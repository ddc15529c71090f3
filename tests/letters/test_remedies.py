"""Letters of one cause count together, and each cause has what will likely mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.letter_shape import Letter
from transforms.remedies import REMEDIES, fold, group_letters, remedy

GOLDEN = Path(__file__).parents[1] / "golden"


def letter(reason: str, **fields: Any) -> Letter:
    status = fields.pop("status", None)
    made = {
        "id": "i", "destination": "my teak", "vendor": "teak", "model": "event", "outcome": "rejected", "reason": reason,
        "status": status, "answer": None, "user": "u1", "time": 1, "payload": None, "original": "{}",
        "source": {"name": "events.jsonl", "format": "json"}, "mapping": "m", "at": "2026-01-01T00:00:00.000+00:00",
        "failures": 1, "first": {"reason": reason, "at": "2026-01-01T00:00:00.000+00:00"},
    }  # fmt: skip
    return msgspec.json.decode(json.dumps(made | fields), type=Letter)


@pytest.mark.parametrize(
    ("reasons", "folded"),
    [
        (["HTTP 400: event 7 of u17 is odd", "HTTP 400: event 12 of u4 is odd"], "HTTP 400: event # of # is odd"),
        (["HTTP 400: a", "HTTP 500: a"], None),
        (["HTTP 422: /1/name is odd", "HTTP 422: /23/name is odd"], "HTTP 422: /#/name is odd"),
        (["the record has 12,345,678 bytes", "the record has 9 bytes"], "the record has # bytes"),
        (["no player 3f2504e0-4f89-11d3-9a0c-0305e82c3301.", "no player deadbeef00."], "no player #."),
        (["a.b+c@example.com is blocked", "x@example.org is blocked"], "# is blocked"),
        (['{"id": "p1", "n": 1.5e3}', '{"id": "p22", "n": 7}'], '{"id": "#", "n": #}'),
        (["not UTF-8: byte 0xff at byte 3", "not UTF-8: byte 0xfe at byte 99"], "not UTF-8: byte # at byte #"),
        (["level: required", "name: required"], None),
    ],
)
def test_reasons_that_differ_by_numbers_and_ids_only(reasons: list[str], folded: str | None) -> None:
    found = {fold(reason) for reason in reasons}
    assert found == ({folded} if folded else set(reasons))


def test_the_items_own_user_and_file_are_folded() -> None:
    assert fold("anna lee is not known", "anna lee", None) == "# is not known"
    assert fold("an event", "an") == "an event"  # too short to be meant


@given(st.text())
def test_any_reason_can_be_folded(reason: str) -> None:
    assert fold(fold(reason)) == fold(reason)


def test_folding_a_long_reason_is_quick() -> None:
    assert len(fold("a." * 500_000 + "a-" * 500_000)) <= 1_000


def test_groups() -> None:
    letters = [letter(f"HTTP 400: item {n} is odd", status=400, at=f"2026-01-{n + 1:02}") for n in range(5)]
    letters += [letter("name: empty")] * 7
    letters += [letter("HTTP 503", outcome="undelivered", destination="a")]
    letters += [letter("name: empty", model="other", failures=4)]
    groups = group_letters(letters, "dead")
    assert [(group.example.destination, group.example.model, group.letters, group.reason) for group in groups] == [
        ("a", "event", 1, "HTTP 503"),
        ("my teak", "event", 7, "name: empty"),
        ("my teak", "event", 5, "HTTP 400: item # is odd"),
        ("my teak", "other", 1, "name: empty"),
    ]
    assert (groups[2].since, groups[2].until) == ("2026-01-01", "2026-01-05")
    assert groups[2].example is letters[0]
    assert groups[3].failures == 4


REPLAY = "playrelay replay RELAY --from 'my dead' --only 'my teak'"


CASES = [
    (letter("HTTP 401: bad key", outcome="undelivered", status=401), "destinations.my teak.credentials"),
    (letter("not sent, as the destination stopped: HTTP 403: no", outcome="undelivered"), "--credentials"),
    (
        letter("HTTP 301: redirect, which is never followed", outcome="undelivered", status=301),
        "destinations.my teak.url",
    ),
    (letter("HTTP 404: not found", outcome="undelivered", status=404), "destinations.my teak.url"),
    (
        letter("network: the server's TLS certificate is not trusted; not taken", outcome="undelivered"),
        "SSL_CERT_FILE",
    ),
    (letter("network: the host's name is not known", outcome="undelivered"), "DNS"),
    (
        letter("HTTP 429; not taken within the 5 s of `retry: for`", outcome="undelivered", status=429),
        "my teak.rate",
    ),
    (
        letter("HTTP 503; not taken within the 5 s of `retry: for`", outcome="undelivered", status=503),
        "when it is back",
    ),
    (letter("not sent, as the destination stopped: interrupted", outcome="undelivered"), "when it is back"),
    (letter("undecodable: the record has 9 bytes, more than max_record (1)", model=None), "source.max_record"),
    (
        letter("undecodable: f, byte 7: the gzip data is damaged", source={"name": "f", "format": "unreadable"}),
        "get it again",
    ),
    (letter("undecodable: 2 fields, the header has 3", model=None), "source.delimiter"),
    (letter("undecodable: not JSON: it ends inside a value", model=None), "wrote no JSON"),
    (letter("undecodable: event_type: required, but absent", model=None), "records without event_type exist"),
    (letter("undecodable: level: expected whole number, got text", model=None), "correct that (source.schema)"),
    (letter("user_id could not be found", status=200), "does not know these users"),
    (letter("HTTP 403: No such external ID", status=403), "does not know these users"),
    (letter("too large: 9 bytes alone in a request, 8 are allowed"), "larger than a request"),
    (letter("level: required, but $event_data.level has no value"), "map.event.fields.level: {first: […]}"),
    (letter("name: longer than 255 characters"), "map.event.fields.name"),
    (letter("HTTP 400: odd", status=400), "its answer says why"),
    (letter("user_id is an e-mail address, which Swrve refuses"), "map.event.reject"),
]


@pytest.mark.parametrize(
    ("made", "says"),
    CASES,
    ids=lambda value: value.reason[:40] if isinstance(value, Letter) else "",
)
def test_remedies(made: Letter, says: str) -> None:
    text = remedy(made, "my dead")
    assert says in text
    relayed_anew = ("source.max_record", "get it again", "source.delimiter", "wrote no JSON")
    assert (REPLAY in text) == (says not in relayed_anew)


def test_every_row_of_the_table_is_one_that_something_comes_to() -> None:
    used = {next(row.text for row in REMEDIES if row.fits(made)) for made, _ in CASES}
    assert used == {row.text for row in REMEDIES}


def test_what_the_golden_cases_give_has_a_remedy_of_its_kind() -> None:
    """Nothing that a vendor's rule or answer says falls to the last row, which is for the mapping's own refusals."""
    letters = [
        msgspec.json.decode(json.dumps(one), type=Letter)
        for file in GOLDEN.glob("*/*/dead_letters.json")
        for one in json.loads(file.read_text(encoding="utf-8"))
    ]
    last = REMEDIES[-1]
    fallen = {one.reason for one in letters if next(row for row in REMEDIES if row.fits(one)) is last}
    assert fallen == {
        "user_id is an e-mail address, which Swrve refuses",
        "a user property has the name of a parameter of Swrve's own",
    }
