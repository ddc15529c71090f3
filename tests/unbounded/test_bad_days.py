"""A vendor's bad day in a job: state, not a stuck bundle, and everything arrives, in order, when it is over."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from deliveries import VENDORS, arrived, at, check_order, item, shard_of, some_items, traffic
from unbounded_streams import Stream, elements

from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.deliver import courier, gate, policy, visit
from transforms.deliver.visit import Patience

AGE = {"age_ms": 1000}
MANY = 40
"""Steps of processing time in which even 120 requests of one item go out."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are real time, which these tests have less of than a vendor's bad day."""
    monkeypatch.setattr(policy, "FIRST_PAUSE", 0.05)


def check(sandbox: Running, slug: str, numbers: Sequence[int], duplicates: int = 0) -> None:
    """All items arrived, each user's in order, never two requests of a shard at a time."""
    found = arrived(sandbox, slug)
    assert {number for _, number in found} == set(numbers)
    assert len(found) - len(numbers) <= duplicates
    check_order(found)
    assert traffic(sandbox, slug)["overlaps"] == 0


@pytest.mark.parametrize(
    ("slug", "fault"),
    [
        *((slug, fault) for fault in ({"status": 503}, {"reset": "before"}) for slug in VENDORS),
        ("teak", {"status": 429}),
        ("swrve", {"status": 500, "body": "<html>"}),
    ],
)
def test_down_for_a_while(sandbox: Running, slug: str, fault: dict[str, Any]) -> None:
    to = at(sandbox, slug, shards=3, batch=AGE)
    items = some_items(slug, 90)
    waited: list[int] = []

    def down() -> None:
        sandbox.fault(vendor=slug, next=None, **fault)

    def back() -> None:
        waited.append(traffic(sandbox, slug)["requests"])
        assert arrived(sandbox, slug) == []
        sandbox.clear_faults()

    stream = Stream(to).does(down).comes(*items[:30]).passes(5, 3).comes(*items[30:60]).passes(1, 3).does(back)
    outcome = stream.passes(2, MANY).comes(*items[60:]).passes(5, MANY).run()
    assert outcome.tally.delivered == 90
    assert outcome.failed == []
    assert 1 <= waited[0] <= 12, "one shard at a time tries, with pauses"
    check(sandbox, slug, range(90))


@pytest.mark.parametrize("slug", VENDORS)
def test_a_secret_that_is_there_only_later(sandbox: Running, slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may start while it cannot be had: that is a bad day of one vendor, not the end of the job."""
    to = at(sandbox, slug, shards=2, batch=AGE)
    secrets = {f"PLAYRELAY_TEST_LATER_{number}": value for number, value in enumerate(to.credentials.values())}
    later = {name: f"env:{env}" for name, env in zip(to.credentials, secrets, strict=True)}
    to = dataclasses.replace(to, credentials=later)

    def there() -> None:
        assert traffic(sandbox, slug)["requests"] == 0
        for name, value in secrets.items():
            monkeypatch.setenv(name, value)

    stream = Stream(to).comes(*some_items(slug, 20)).passes(5, 3).does(there).passes(2, MANY)
    outcome = stream.run()
    assert (outcome.tally.delivered, outcome.failed) == (20, [])
    check(sandbox, slug, range(20))


def test_a_secret_that_is_never_there(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=2, batch=AGE)
    to = dataclasses.replace(to, credentials={**to.credentials, "secret_key": "env:PLAYRELAY_TEST_NOT_SET"})
    outcome = Stream(to).comes(*some_items("teak", 20)).passes(5, 20).run(Patience(hold_ms=20_000))
    assert outcome.tally.undelivered == len(outcome.failed) == 20
    assert "PLAYRELAY_TEST_NOT_SET" in outcome.failed[0].reason
    assert outcome.failed[0].reason.endswith("not taken within 20 s")


@pytest.mark.parametrize("slug", VENDORS)
@pytest.mark.parametrize("form", ["1", "date+2"])
def test_retry_after_is_waited_for(sandbox: Running, slug: str, form: str) -> None:
    to = at(sandbox, slug, shards=3, batch=AGE)
    sandbox.fault(vendor=slug, status=429, retry_after=form)
    asked: list[float] = []
    stream = Stream(to).does(lambda: asked.append(time.time())).comes(*some_items(slug, 60)).passes(2, 3)
    outcome = stream.run()
    assert outcome.tally.delivered == 60
    check(sandbox, slug, range(60))
    assert min(one["at"] for one in sandbox.items(slug)) - asked[0] >= 0.95


@pytest.mark.parametrize("slug", VENDORS)
def test_an_answer_that_was_lost_may_double_its_request_and_no_other(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=2, batch=AGE)
    sandbox.fault(vendor=slug, reset="after")
    outcome = Stream(to).comes(*some_items(slug, 60)).passes(2, MANY).run()
    assert outcome.tally.delivered == 60
    twice = [number for number, count in Counter(number for _, number in arrived(sandbox, slug)).items() if count > 1]
    check(sandbox, slug, range(60), duplicates=len(twice))
    assert 0 < len(twice) <= 60


def test_a_vendor_that_does_not_answer_keeps_no_bundle_waiting(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = at(sandbox, "teak", shards=2, batch=AGE, timeout_s=4.0)
    sandbox.fault(vendor="teak", delay_s=3.0, next=None)
    visits: list[float] = []
    go_on = visit.Visit.go_on

    def timed(one: visit.Visit) -> Iterator[Any]:
        started = time.monotonic()
        yield from go_on(one)
        if not one.held.note.ending:
            visits.append(time.monotonic() - started)

    monkeypatch.setattr(visit.Visit, "go_on", timed)
    slow = [item("teak", n, f"u{n % 7}") for n in range(800)]
    stream = Stream(to)
    for start in range(0, 800, 400):
        stream.comes(*slow[start : start + 400])
    stream.passes(0.5, 2).does(sandbox.clear_faults)
    outcome = stream.run()
    assert outcome.tally.delivered == 800
    check(sandbox, "teak", range(800))
    assert len(visits) > 1
    assert max(visits) < visit.WAIT + 0.5


def test_a_refused_key_is_looked_up_again(sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    key = RELAY_FILE["traitly"]["token"]
    monkeypatch.setenv("PLAYRELAY_TEST_TOKEN", "revoked")
    to = at(sandbox, "traitly", shards=2, batch=AGE, credentials={"token": "env:PLAYRELAY_TEST_TOKEN"})

    def renewed() -> None:
        assert arrived(sandbox, "traitly") == []
        monkeypatch.setenv("PLAYRELAY_TEST_TOKEN", key)

    outcome = Stream(to).comes(*some_items("traitly", 40)).passes(3, 4).does(renewed).passes(3, MANY).run()
    assert outcome.tally.delivered == 40
    assert outcome.failed == []
    check(sandbox, "traitly", range(40))


def test_what_is_held_for_too_long_is_undelivered_with_its_records(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=2, batch=AGE)
    sandbox.fault(vendor="teak", status=503, next=None)
    items = some_items("teak", 60)
    outcome = Stream(to).comes(*items[:30]).passes(5, 3).comes(*items[30:]).passes(100, 3).run(Patience(hold_ms=60_000))
    assert outcome.numbers("undelivered") == list(range(60))
    assert outcome.failed[0].reason == "HTTP 503; not taken within 60 s"
    assert outcome.failed[0].status == 503
    outcome.check_records()
    assert outcome.tally.undelivered == 60


def test_more_than_the_state_may_hold_is_undelivered(sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "MAX_WAITING", 3_000)
    to = at(sandbox, "teak", shards=1, batch=AGE)
    sandbox.fault(vendor="teak", status=503, next=None)
    items = some_items("teak", 900)
    stream = Stream(to).comes(*items[:100]).passes(5)
    for start in range(100, 900, 100):
        stream.comes(*items[start : start + 100])
    outcome = stream.does(sandbox.clear_faults).passes(10, MANY).run()
    lost = outcome.numbers("undelivered")
    assert 0 < len(lost) < 800
    assert lost == list(range(lost[0], 900)), "the oldest are kept, so that order is too"
    assert outcome.failed[0].reason.startswith("HTTP 503; not sent, as ")
    outcome.check_records()
    check(sandbox, "teak", range(lost[0]))


def test_a_batch_that_alone_is_never_taken_gives_way(sandbox: Running) -> None:
    """Others are taken meanwhile, so it is not the vendor that is down: it is given up after `retry: for`."""
    to = at(sandbox, "traitly", shards=4, batch=AGE, retry_s=0.3)
    other = next(user for user in ("u1", "u2", "u3", "u4") if shard_of(user, 4) != shard_of("u0", 4))
    sandbox.fault(vendor="traitly", path="/api/v1/customer", status=500, next=None)
    payload, _, user, at_ms, ref = item("traitly", 0, "u0")
    behind = [item("traitly", n, "u0") for n in (1, 2)]
    stream = Stream(to, ("event", "customer")).comes((payload, 1, user, at_ms, ref), *behind)
    for n in range(10, 40):
        stream.comes(item("traitly", n, other)).passes(2).does(lambda: time.sleep(0.05))
    outcome = stream.passes(2, 4).run()
    assert outcome.numbers("undelivered") == [0]
    reason = outcome.failed[0].reason
    assert reason.startswith("HTTP 500") and reason.endswith("; not taken within 0.3 s")
    outcome.check_records()
    check(sandbox, "traitly", [1, 2, *range(10, 40)])


def test_what_is_never_taken_waits_while_little_is_taken_of_others_too(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the vendor's fault, then, not the batch's."""
    monkeypatch.setattr(gate, "MEMORY", 4)
    to = at(sandbox, "traitly", shards=4, batch=AGE, retry_s=2.0)
    other = next(user for user in ("u1", "u2", "u3", "u4") if shard_of(user, 4) != shard_of("u0", 4))
    sandbox.fault(vendor="traitly", containing='"name":"spin 0"', status=500, next=None)
    for _ in range(2):  # each strikes half of what the ones before it let pass
        sandbox.fault(vendor="traitly", status=503, every=2)
    stream = Stream(to).comes(item("traitly", 0, "u0"))
    for n in range(10, 25):
        stream.comes(item("traitly", n, other)).passes(2).does(lambda: time.sleep(0.05))
    outcome = stream.does(sandbox.clear_faults).passes(10, MANY).run()
    assert (outcome.tally.delivered, outcome.failed) == (16, [])
    check(sandbox, "traitly", [0, *range(10, 25)])


def test_the_rate_is_kept(sandbox: Running) -> None:
    to = at(sandbox, "traitly", shards=3, batch=AGE, rate=25.0, retry_s=20.0)
    outcome = Stream(to).comes(*some_items("traitly", 60)).passes(2, 3).run()
    assert outcome.tally.delivered == 60
    assert traffic(sandbox, "traitly")["max_requests_per_second"] <= 25


def test_the_processes_of_one_machine_keep_the_rate_and_pauses_together(sandbox: Running) -> None:
    """As two couriers do that know nothing of each other."""
    to = at(sandbox, "traitly", rate=2.0)
    one, other = courier.Courier(to, ("event",)), courier.Courier(to, ("event",))
    try:
        while wait := one.gate.claim(time.monotonic()):  # a test before this may have used the rate
            time.sleep(wait)
        now = time.monotonic()
        assert 0.3 < other.gate.claim(now) <= 0.6
        one.gate.pause(now + 30)
        time.sleep(0.6)
        assert 20 < other.gate.claim(time.monotonic()) <= 30
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("slug", VENDORS)
def test_a_job_that_drains_while_the_vendor_is_down_keeps_everything(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=2, batch={"age_ms": 1000, "window_ms": 50}, retry_s=0.5)
    sandbox.fault(vendor=slug, status=503, next=None)
    outcome = Stream(to).comes(*some_items(slug, 100)).passes(2, 2).run()
    assert outcome.numbers("undelivered") == list(range(100))
    assert outcome.tally.undelivered == 100
    reason = outcome.failed[0].reason
    assert reason.startswith("HTTP 503") and reason.endswith("; not taken before the job ended")
    outcome.check_records()


def test_a_job_that_drains_waits_for_a_vendor_that_comes_back(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=2, batch=AGE, retry_s=20.0)
    sandbox.fault(vendor="teak", status=503, next=4)
    outcome = Stream(to).comes(*some_items("teak", 100)).run()
    assert outcome.tally.delivered == 100
    check(sandbox, "teak", range(100))


@pytest.mark.parametrize("slug", VENDORS)
@pytest.mark.parametrize("fault", [{}, {"delay_s": 1.5}])
def test_a_bundle_that_is_done_again_sends_nothing_again(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch, slug: str, fault: dict[str, Any]
) -> None:
    """As when what a bundle gave cannot be committed: the runner does it again, from the state before it."""
    go_on, failures = visit.Visit.go_on, []

    def fails(one: visit.Visit) -> Iterator[Any]:
        yield from go_on(one)
        if len(failures) < 2:
            failures.append(one)
            raise RuntimeError("not committed")

    monkeypatch.setattr(visit.Visit, "go_on", fails)
    if slug == "teak":
        sandbox.configure("teak", unknown_users=["u1"])
    if fault:
        sandbox.fault(vendor=slug, **fault)
    to = at(sandbox, slug, shards=1, batch=AGE)
    items = [item(slug, n, f"u{n % 7}") for n in range(420)]
    outcome = Stream(to).comes(*items).passes(2, MANY).run()
    rejected = [n for n in range(420) if slug == "teak" and n % 7 == 1]
    assert len(failures) == 2
    assert outcome.numbers("rejected") == rejected
    assert outcome.tally.delivered == 420 - len(rejected)
    check(sandbox, slug, sorted(set(range(420)) - set(rejected)))
    outcome.check_records()


@pytest.mark.parametrize("slug", VENDORS)
def test_a_bundle_of_two_elements_that_is_done_again_sends_nothing_again(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch, slug: str
) -> None:
    """When the first of them comes in once more, the flight has items that have not."""
    items = some_items(slug, 60)
    monkeypatch.setattr(visit, "FULL_BYTES", sum(len(one[0]) for one in items))
    go_on, visits = visit.Visit.go_on, []

    def fails(one: visit.Visit) -> Iterator[Any]:
        yield from go_on(one)
        visits.append(len(arrived(sandbox, slug)))
        if len(visits) == 2:
            raise RuntimeError("not committed")

    monkeypatch.setattr(visit.Visit, "go_on", fails)
    if slug == "teak":
        sandbox.configure("teak", unknown_users=["u1"])
    to = at(sandbox, slug, shards=1, batch=AGE)
    rejected = [n for n in range(60) if slug == "teak" and n % 7 == 1]
    stream = Stream(to).add([*elements(to, items[:30]), *elements(to, items[30:])]).passes(2, 5)
    outcome = stream.comes(item(slug, 60, "u0")).passes(2, 5).run()
    assert visits[:2] == [0, 60 - len(rejected)]
    assert outcome.numbers("rejected") == rejected
    assert outcome.tally.delivered == 61 - len(rejected)
    check(sandbox, slug, sorted(set(range(61)) - set(rejected)))
    outcome.check_records()


def test_a_machine_that_has_no_thread_to_give_has_nothing_under_way(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What never left would be waited for without end."""
    monkeypatch.setattr(courier, "MAX_UNDER_WAY", 1)
    one = courier.Courier(at(sandbox, "teak"), ("event",))
    before = threading.stack_size(1 << 46)  # more than any machine has
    try:
        with pytest.raises(RuntimeError, match="thread"):
            one.launch(0, [], courier.Flight({}, 0, lambda failed: failed))
    finally:
        threading.stack_size(before)
    assert one.flight(0) is None
    flight = one.launch(0, [], courier.Flight({}, 0, lambda failed: failed))
    assert flight is not None and flight.finished(5.0)
    one.close()


def test_what_was_under_way_when_a_worker_died_is_sent_again_and_nothing_else(sandbox: Running) -> None:
    to = at(sandbox, "teak", shards=1, batch=AGE)
    items = some_items("teak", 850)
    stream = Stream(to)

    def slow() -> None:
        sandbox.fault(vendor="teak", delay_s=2.0, next=1)

    def dies() -> None:
        courier.forget(stream.id)
        time.sleep(2.0)

    outcome = stream.comes(*items[:400]).passes(2).does(slow).comes(*items[400:]).does(dies).passes(2, 10).run()
    assert outcome.tally.delivered == 850
    counts = Counter(number for _, number in arrived(sandbox, "teak"))
    assert set(counts) == set(range(850))
    twice = [number for number, count in counts.items() if count > 1]
    assert 0 < len(twice) <= 400
    assert min(twice) >= 400
