"""The unbounded batcher: when a shard's items go out, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from deliveries import START_MS, VENDORS, arrived, at, check_order, item, shard_of, some_items, traffic
from unbounded_streams import Stream, by_request

from sandbox.server import Running
from transforms.deliver import waiting
from transforms.deliver.visit import Patience

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
START = START_MS // HOUR_MS * HOUR_MS - START_MS
"""Number of an item whose time is a full hour."""


def requests_of(slug: str, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The requests that hold these groups of items. Traitly takes one item a request."""
    return [[number] for group in groups for number in group] if slug == "traitly" else [*map(list, groups)]


@pytest.mark.parametrize("slug", VENDORS)
def test_age_sends_what_waits(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=3, batch={"age_ms": 60_000})

    def nothing_yet() -> None:
        assert arrived(sandbox, slug) == []

    def all_there() -> None:
        assert len(arrived(sandbox, slug)) == 42

    stream = Stream(to).comes(*some_items(slug, 21)).passes(20).does(nothing_yet)
    stream.comes(*(item(slug, n, f"u{n % 7}") for n in range(21, 42))).passes(20).does(nothing_yet)
    outcome = stream.passes(30, 5).does(all_there).run()
    assert outcome.tally.delivered == 42
    assert outcome.failed == []
    check_order(arrived(sandbox, slug))
    assert traffic(sandbox, slug)["overlaps"] == 0
    assert sandbox.violations() == []


@pytest.mark.parametrize("slug", VENDORS)
def test_a_key_that_ends_is_sent_when_the_job_drains(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, batch={"age_ms": None})
    outcome = Stream(to).comes(item(slug, 0, "last")).passes(HOUR_MS / 1000).run()
    assert outcome.tally.delivered == 1
    assert arrived(sandbox, slug) == [("last", 0)]


@pytest.mark.parametrize(("slug", "number"), [("teak", 400), ("12traits", 4000)])
def test_enough_items_go_at_once(sandbox: Running, slug: str, number: int) -> None:
    to = at(sandbox, slug, shards=1, batch={"age_ms": HOUR_MS})

    def nothing_yet() -> None:
        assert arrived(sandbox, slug) == []

    def all_there() -> None:
        assert len(arrived(sandbox, slug)) == number

    items = [item(slug, n, f"u{n % 7}") for n in range(number)]
    stream = Stream(to).comes(*items[: number // 2]).does(nothing_yet).comes(*items[number // 2 :])
    stream.does(all_there).run()
    assert [len(request) for request in by_request(sandbox, slug)] == [number // 4] * 4


def test_enough_bytes_go_at_once(sandbox: Running) -> None:
    to = at(sandbox, "parcelvoy", shards=1, batch={"age_ms": HOUR_MS})

    def all_there() -> None:
        assert len(arrived(sandbox, "parcelvoy")) == 50

    large = [item("parcelvoy", n, "u1", data={"n": n, "text": "x" * 100_000}) for n in range(50)]
    Stream(to).comes(*large).passes(1, 3).does(all_there).run()


def test_items_of_one_user_a_request_wait_for_more(sandbox: Running) -> None:
    """A shard holds many users, so many times a request's items are gathered before they go out for their number."""
    to = at(sandbox, "teak", shards=1, batch={"by": "user", "age_ms": HOUR_MS})

    def nothing_yet() -> None:
        assert arrived(sandbox, "teak") == []

    items = some_items("teak", 1599, users=16)
    Stream(to).comes(*items).does(nothing_yet).comes(item("teak", 1599, "u15")).passes(1, 6).run()
    assert [len(request) for request in by_request(sandbox, "teak")] == [100] * 16


@pytest.mark.parametrize("slug", VENDORS)
def test_a_window_goes_when_it_is_over(sandbox: Running, slug: str) -> None:
    """No age: event time alone sends. Two windows open at the same time are two batches."""
    to = at(sandbox, slug, shards=1, batch={"window_ms": MINUTE_MS, "age_ms": None})
    first = [item(slug, START + n, "u1") for n in (100, 30_000, 59_999)]
    second = [item(slug, START + MINUTE_MS + n, "u1") for n in (0, 30_000)]

    def first_there() -> None:
        assert [number for _, number in arrived(sandbox, slug)] == [one[4] for one in first]

    def nothing_yet() -> None:
        assert arrived(sandbox, slug) == []

    stream = Stream(to).comes(second[1], first[2]).comes(first[0], second[0]).comes(first[1])
    stream.watermark(START_MS + START + MINUTE_MS - 1).passes(3600).does(nothing_yet)
    stream.watermark(START_MS + START + MINUTE_MS).does(first_there)
    # Windows in which nothing came are nothing to send.
    stream.watermark(START_MS + START + 60 * MINUTE_MS).run()
    windows = [[one[4] for one in first], [one[4] for one in second]]
    assert by_request(sandbox, slug) == requests_of(slug, windows)


@pytest.mark.parametrize("slug", VENDORS)
def test_lateness_keeps_a_window_open_for_those_that_come_after_its_end(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=1, batch={"window_ms": MINUTE_MS, "age_ms": None})

    def nothing_yet() -> None:
        assert arrived(sandbox, slug) == []

    stream = Stream(to).comes(item(slug, START + 40_000, "u1"))
    stream.watermark(START_MS + START + MINUTE_MS + 9_999).does(nothing_yet)
    stream.comes(item(slug, START + 20_000, "u1")).does(nothing_yet)
    stream.watermark(START_MS + START + MINUTE_MS + 10_000).run(Patience(lateness_ms=10_000))
    assert by_request(sandbox, slug) == requests_of(slug, [[START + 20_000, START + 40_000]])


@pytest.mark.parametrize("slug", VENDORS)
def test_what_comes_after_its_window_is_sent_in_a_batch_of_its_own_and_counted(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=1, batch={"window_ms": MINUTE_MS, "age_ms": 5_000})
    now = START + 10 * MINUTE_MS
    stream = Stream(to).comes(item(slug, now, "u1")).watermark(START_MS + now + MINUTE_MS)
    stream.comes(item(slug, now + 7, "u1"), item(slug, now + 3, "u1"), item(slug, now + MINUTE_MS, "u1")).passes(10, 4)
    outcome = stream.run()
    assert by_request(sandbox, slug) == requests_of(slug, [[now], [now + 3, now + 7], [now + MINUTE_MS]])
    assert outcome.tally.delivered == 4
    assert outcome.tally.late == 2
    assert outcome.failed == []


def test_a_clock_far_ahead_or_behind_holds_up_nothing(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=1, batch={"window_ms": MINUTE_MS, "age_ms": 5_000})
    payload, model, user, _, _ = item("teak", 1, "u1")
    odd = [(payload, model, user, time, n) for n, time in enumerate((-60_000_000_000_000, -1, 0, 250_000_000_000_000))]
    outcome = Stream(to).comes(*odd, item("teak", 9, "u1")).watermark(START_MS).passes(10, 6).run()
    assert outcome.tally.delivered == 5
    assert len(by_request(sandbox, "teak")) == 5


@pytest.mark.parametrize("slug", VENDORS)
def test_items_of_several_bundles_leave_in_time_order(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=2, batch={"age_ms": 60_000})
    items = some_items(slug, 120)
    stream = Stream(to)
    for start in (80, 0, 40):
        stream.comes(*items[start : start + 40])
    stream.passes(100, 40 if slug == "traitly" else 8).run()
    check_order(arrived(sandbox, slug))
    assert len(arrived(sandbox, slug)) == 120


def test_more_than_a_flight_goes_in_several(sandbox: Running) -> None:
    """Outcomes are written down after at most four requests, or a hundred items where a request holds one."""
    to = at(sandbox, "teak", shards=1, batch={"age_ms": 1000})
    outcome = Stream(to).comes(*some_items("teak", 1_050)).passes(5, 6).run()
    assert [tally.delivered for tally in outcome.tallies] == [400, 400, 250]
    assert [len(request) for request in by_request(sandbox, "teak")] == [100] * 10 + [50]

    to = at(sandbox, "traitly", shards=1, batch={"age_ms": 1000})
    outcome = Stream(to).comes(*some_items("traitly", 250)).passes(5, 6).run()
    assert [tally.delivered for tally in outcome.tallies] == [100, 100, 50]


def test_a_large_backlog_is_taken_out_of_the_state_in_parts(sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TAKE_BYTES", 4_000)
    to = at(sandbox, "12traits", shards=2, batch={"age_ms": 60_000})
    items = some_items("12traits", 1_200)
    stream = Stream(to)
    for start in range(0, 1_200, 60):
        stream.comes(*items[start : start + 60])
    outcome = stream.passes(100, 30).run()
    assert outcome.tally.delivered == 1_200
    check_order(arrived(sandbox, "12traits"))
    assert max(len(request) for request in by_request(sandbox, "12traits")) < 400


def test_a_hot_user_is_sent_in_order_and_keeps_no_other_waiting(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=4, batch={"age_ms": 100})
    hot = [item("teak", n, "u1") for n in range(3_000)]
    others = [item("teak", 10_000 + n, f"u{n % 7}") for n in range(70) if shard_of(f"u{n % 7}", 4) != shard_of("u1", 4)]
    outcome = Stream(to).comes(*hot, *others).passes(5, 12).run()
    assert outcome.tally.delivered == 3_000 + len(others)
    found = arrived(sandbox, "teak")
    assert {number for _, number in found[:1_500] if number >= 10_000} == {one[4] for one in others}
    check_order(found)
    assert traffic(sandbox, "teak")["overlaps"] == 0


def test_what_no_request_can_hold_is_a_dead_letter_with_its_record(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=1, batch={"age_ms": 1000})
    outcome = (
        Stream(to)
        .comes(item("teak", 1, "u1"), item("teak", 2, "u1", action_type="x" * 1_100_000), item("teak", 3, "u1"))
        .passes(10, 4)
        .run()
    )
    assert (outcome.tally.delivered, outcome.tally.rejected) == (2, 1)
    assert outcome.numbers("rejected") == [2]
    outcome.check_records()


def test_each_rejected_item_is_a_dead_letter_with_its_record(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u1", "u5"])
    to = at(sandbox, "teak", shards=2, batch={"age_ms": 1000, "window_ms": 20})
    outcome = Stream(to).comes(*some_items("teak", 140)).passes(10, 30).run()
    lost = [number for number in range(140) if number % 7 in (1, 5)]
    assert (outcome.tally.delivered, outcome.tally.rejected) == (140 - len(lost), len(lost))
    assert outcome.numbers("rejected") == lost
    outcome.check_records()
