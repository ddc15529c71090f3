"""Parking: a vendor that is down keeps its items, is asked by one request at a time, and gets them in order when it is
back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deliveries import KINDS, SOURCE, VENDORS, arrived, at, check_order, shard_of, some_items, traffic

from sandbox.server import Running
from transforms.deliver.gate import Gate, Halt
from transforms.deliver.parking import FIRST_PAUSE, LONGEST_PAUSE, Parking, words
from transforms.deliver.policy import Policy
from transforms.deliver.send import Send
from transforms.deliver.sender import Sender
from transforms.deliver.sink import packing_of, settings_of
from transforms.destination import Destination
from transforms.elements import Item
from transforms.pack import SourcedItem, pack
from transforms.vendors import get
from transforms.vendors.base import Answer, Batch

EACH = pytest.mark.parametrize("slug", VENDORS)


MARKS = {
    "12traits": '"action_id":"0"',
    "traitly": '"name":"spin 0"',
    "parcelvoy": '"data":{"n":0}',
    "swrve": '"payload":{"n":0}',
    "teak": '"object_instance_id":"0"',
}
"""What only item 0 has."""


class Sending:
    """Items on their way in a thread of their own, to a vendor that may be parked."""

    def __init__(self, to: Destination, items: list[Item], first_pause: float) -> None:
        self.told: list[tuple[float, str | None]] = []
        name = to.name

        def tell(halt: Halt | None) -> None:
            self.told.append((time.monotonic(), None if halt is None else words(name, halt)))

        settings = settings_of(to)
        self.gate = Gate(to.rate, to.shards)
        self.gate.enter(to.shards)
        self.gate.share(to.vendor, settings.url, settings.credentials)
        self.parking = Parking(tell, first_pause)
        models = (KINDS[to.vendor].model,)
        policy = Policy(to.retry_s, to.connect_timeout_s, to.timeout_s, to.gzip, min(to.shards, 64), 0.02)
        self.items = items
        self.sender = Sender(get(to.vendor), settings, models, policy, self.gate, None, self.parking)
        shards: dict[int, list[SourcedItem]] = {}
        for one in items:
            shards.setdefault(shard_of(one[2], to.shards), []).append((one, SOURCE))
        for shard, own in shards.items():
            self.sender.put(shard, pack(own, packing_of(to, settings, models)))
        self._thread = threading.Thread(target=self.sender.drain)

    def until(self, holds: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "not in time"
            time.sleep(0.01)

    def until_parked(self) -> None:
        self.until(lambda: self.parking.halt)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def sending(to: Destination, count: int, *, users: int = 40, first_pause: float = 0.1) -> Iterator[Sending]:
    one = Sending(to, some_items(to.vendor, count, users), first_pause)
    one._thread.start()
    try:
        yield one
    finally:
        one.gate.stop(Halt("the test is over"))
        one.join()
        one.sender.close()
        one.gate.close()


@EACH
def test_nothing_is_given_up_and_all_goes_out_in_order_when_it_is_back(sandbox: Running, slug: str) -> None:
    """Also what had failed while other requests were still on their way and then taken."""
    sandbox.fault(vendor=slug, delay_s=0.2, next=3)
    sandbox.fault(vendor=slug, status=503, next=None)
    to = at(sandbox, slug, shards=4, retry_s=0.5, batch={"items": 5})
    with sending(to, 120) as one:
        one.until_parked()
        halt = one.parking.halt
        assert halt is not None
        assert words(slug, halt).startswith("HTTP 503")
        assert words(slug, halt).endswith("; not taken within the 0.5 s of `retry: for`")
        one.until(lambda: not any(view["in_flight"] for view in (traffic(sandbox, slug),)))
        sandbox.clear_faults()
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (120, [])
        assert [reason is None for _, reason in one.told] == [False, True]
    found = arrived(sandbox, slug)
    assert sorted(number for _, number in found) == list(range(120))
    check_order(found)
    assert traffic(sandbox, slug)["overlaps"] == 0


@EACH
def test_an_item_that_the_vendor_chokes_on_is_not_taken_for_a_vendor_that_is_down(sandbox: Running, slug: str) -> None:
    """It is what the destination is parked for; then another user's is the probe, and it alone is given up."""
    sandbox.fault(vendor=slug, status=503, next=None)
    to = at(sandbox, slug, shards=4, retry_s=0.3, rate=40.0, batch={"items": 1})
    with sending(to, 40) as one:
        one.until_parked()
        sandbox.clear_faults()
        sandbox.fault(vendor=slug, status=500, containing=MARKS[slug], next=None)
        one.join()
        assert (one.sender.tally.delivered, one.sender.tally.undelivered) == (39, 1)
        assert [failed.ref for failed in one.sender.failed] == [0]
        assert one.sender.failed[0].reason.startswith("HTTP 500")
        assert one.sender.failed[0].reason.endswith("; not taken within the 0.3 s of `retry: for`")
    found = arrived(sandbox, slug)
    assert sorted(number for _, number in found) == list(range(1, 40))
    check_order(found)


@EACH
def test_a_vendor_that_asks_for_patience_is_parked_whatever_it_takes_of_others(sandbox: Running, slug: str) -> None:
    """Its time is not the batch's to use up."""
    for fault in ({"status": 503}, {"status": 429, "retry_after": 3}):
        sandbox.fault(vendor=slug, containing=MARKS[slug], **fault)
    to = at(sandbox, slug, shards=4, retry_s=2.0, rate=40.0, batch={"items": 1})
    with sending(to, 40) as one:
        one.until_parked()
        assert one.parking.halt is not None
        assert one.parking.halt.reason.endswith("of `retry: for`, and the vendor asks for a longer pause")
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (40, [])
    check_order(arrived(sandbox, slug))


@EACH
def test_a_vendor_that_takes_little_of_all_it_is_asked_gets_it_all_in_the_end(sandbox: Running, slug: str) -> None:
    """That a batch is refused for all of its time is then no fault of its own."""
    for _ in range(3):  # each strikes half of what the ones before it let pass
        sandbox.fault(vendor=slug, status=503, every=2)
    # Teak itself answers 429 to more.
    to = at(sandbox, slug, shards=32, retry_s=1.0, batch={"items": 1}, rate=80.0 if slug == "teak" else None)
    with sending(to, 200) as one:
        for _ in range(40):  # it has gone on for a while, however slow this machine is
            one.gate.answered(False, time.monotonic())
        time.sleep(1.5)
        one.until(lambda: one.sender.tally.retries > 60)
        sandbox.clear_faults()
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (200, [])
    check_order(arrived(sandbox, slug))


def test_time_in_which_little_is_taken_is_not_held_against_a_batch() -> None:
    """It is refused since 1,000 and may be for 300 s, or for eight times as long in all."""
    gate = Gate(None, 1)
    for now, answers, left in (
        (1_010.0, [False] * 5, 290.0),
        (1_020.0, [True] * 50, 280.0),
        (1_100.0, [False] * 45, 2_300.0),
        (1_600.0, [True] * 35, 300.0),  # one that left in the brownout and comes back now is no reason to give up
        (1_700.0, [True] * 50, 200.0),
        (1_800.0, [False] * 45, 1_600.0),
        (3_300.0, [True] * 35, 100.0),
    ):
        for takes in answers:
            gate.answered(takes, now)
        assert gate.left(1_000.0, 300.0, now) == left


def test_a_batch_that_is_always_refused_does_not_tell_how_the_vendor_is(sandbox: Running) -> None:
    with sending(at(sandbox, "teak", shards=1), 1) as one:
        one.join()
        send = Send(Batch(get("teak").models_under({})["event"].route, "", [], []))
        for attempt in range(1, 61):
            send.started, send.attempts = time.monotonic(), attempt
            one.sender._queues[0] = deque()
            one.sender._finish(0, send, Answer(503, b""), None)
        one.sender._queues.clear()
        one.sender._later.clear()
        assert not one.gate.ailing


def test_a_lone_batch_of_a_vendor_that_takes_little_has_more_rounds(sandbox: Running) -> None:
    with sending(at(sandbox, "teak", shards=1), 1) as one:
        one.join()
        for _ in range(40):
            one.gate.answered(False, 0.0)
        send, found = Send(Batch(get("teak").models_under({})["event"].route, "", [], [])), []
        for _ in range(9):
            one.gate.last_success += 1
            found.append(one.sender._at_fault(send, Answer(500, b"")))
        assert found == [False] * 8 + [True]


def test_a_batch_is_at_fault_when_others_were_taken_each_time_its_own_was_over(sandbox: Running) -> None:
    """Not when nothing was, and not when the vendor asked for a pause: that goes for others too."""
    with sending(at(sandbox, "teak", shards=1), 1) as one:
        one.join()
        batch = Batch(get("teak").models_under({})["event"].route, "", [], [])
        refused, paused = Answer(500, b""), Answer(429, b"", 600.0)
        for answer, taken, expected in (
            (refused, True, [False, False, True]),
            (refused, False, [False] * 5),
            (paused, True, [False] * 5),
        ):
            send = Send(batch)
            found = []
            for _ in expected:
                one.gate.last_success += taken
                found.append(one.sender._at_fault(send, answer))
            assert found == expected


@pytest.mark.parametrize("slug", ["12traits", "teak"])
def test_the_time_in_which_it_was_parked_is_no_time_of_trying(sandbox: Running, slug: str) -> None:
    """Refused once more after it came back, what waited has its whole budget."""
    sandbox.fault(vendor=slug, status=503, next=None)
    # With a rate the shards begin one after the other, so when the first has used its budget the others have not.
    to = at(sandbox, slug, shards=16, retry_s=1.0, rate=25.0)
    with sending(to, 80) as one:
        one.until_parked()
        time.sleep(0.8)
        sandbox.clear_faults()
        sandbox.fault(vendor=slug, status=503, after=1, next=15)
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (80, [])


@EACH
def test_probes_go_one_at_a_time_with_growing_pauses(sandbox: Running, slug: str) -> None:
    """However many requests had failed when it was parked, the first probe comes after the first pause."""
    sandbox.fault(vendor=slug, status=503, next=None)
    to = at(sandbox, slug, shards=16, retry_s=0.3, batch={"items": 5})
    with sending(to, 200, first_pause=0.2) as one:
        one.until_parked()
        time.sleep(0.1)  # for the others that were on their way
        before = traffic(sandbox, slug)["requests"]
        parked = time.monotonic()
        one.until(lambda: traffic(sandbox, slug)["requests"] > before)
        assert time.monotonic() - parked < 0.6, "the pause grew before anything was asked"
        one.until(lambda: traffic(sandbox, slug)["requests"] > before + 2)
        # 0.2 s, 0.4 s and 0.8 s, of which up to a quarter is jitter, though the machine may be slow.
        assert time.monotonic() - parked > 0.6
        assert traffic(sandbox, slug)["requests"] <= before + 4


def test_probes_one_after_the_other_even_when_they_are_slow(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503, next=40)
    sandbox.fault(vendor="teak", status=503, delay_s=0.3, next=None)
    to = at(sandbox, "teak", shards=40, retry_s=0.0)
    with sending(to, 400, users=400, first_pause=0.05) as one:
        one.until_parked()
        one.until(lambda: traffic(sandbox, "teak")["in_flight"] <= 1)
        for _ in range(20):
            assert traffic(sandbox, "teak")["in_flight"] <= 1
            time.sleep(0.03)


@EACH
def test_a_wrong_key_parks_and_names_what_to_mend(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, status=401, next=None)
    with sending(at(sandbox, slug, shards=4, batch={"items": 5}), 60) as one:
        one.until_parked()
        assert one.parking.halt is not None
        assert one.parking.halt.key.split(".")[0] == "credentials"
        assert f"; check destinations.{slug}.credentials" in words(slug, one.parking.halt)
        assert one.gate.halt is None
        sandbox.clear_faults()
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (60, [])


def test_the_pause_that_the_vendor_asks_for_is_kept(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503, retry_after=2, next=None)
    with sending(at(sandbox, "teak", shards=1, retry_s=0.2), 10, first_pause=0.05) as one:
        one.until_parked()
        parked = time.monotonic()
        before = traffic(sandbox, "teak")["requests"]
        one.until(lambda: traffic(sandbox, "teak")["requests"] > before)
        assert time.monotonic() - parked > 1.7


def test_a_pause_beyond_the_budget_is_kept_by_other_processes_too(
    sandbox: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sandbox.fault(vendor="teak", status=429, retry_after=20, next=None)
    to = at(sandbox, "teak", shards=1, retry_s=0.2, rate=50.0)
    with sending(to, 10) as one:
        one.until_parked()
    other = Gate(to.rate, to.shards)
    other.share(to.vendor, settings_of(to).url, settings_of(to).credentials)
    try:
        assert 15 < other.claim(time.monotonic()) <= 20
    finally:
        other.close()


@pytest.mark.parametrize("results", [[], [{"status": "rate_limit"}] * 5], ids=["none", "rate limit"])
def test_answers_in_which_nothing_is_taken_are_no_sign_of_life(sandbox: Running, results: list[Any]) -> None:
    sandbox.fault(vendor="teak", status=200, body={"status": "ok", "results": results}, next=None)
    with sending(at(sandbox, "teak", shards=4, retry_s=0.2, batch={"items": 5}), 60, first_pause=0.1) as one:
        one.until_parked()
        time.sleep(1.5)
        assert one.told[1:] == []
        before = traffic(sandbox, "teak")["requests"]
        assert before < 40, "each shard's tries within the budget, and probes with growing pauses"
        sandbox.clear_faults()
        one.join()
        assert (one.sender.tally.delivered, one.sender.failed) == (60, [])
    assert {number for _, number in arrived(sandbox, "teak")} == set(range(60))


def test_another_reason_is_told_once(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503, next=3)
    sandbox.fault(vendor="teak", status=401, next=2)
    with sending(at(sandbox, "teak", shards=1, retry_s=0.0), 10, first_pause=0.02) as one:
        one.join()
        assert one.sender.tally.delivered == 10
        reasons = [reason for _, reason in one.told]
    assert len(reasons) == 3
    assert reasons[0] is not None and "503" in reasons[0]
    assert reasons[1] is not None and "401" in reasons[1] and "credentials" in reasons[1]
    assert reasons[2] is None


def test_an_item_that_is_refused_says_that_the_vendor_answers(sandbox: Running) -> None:
    """A probe that the vendor understood and rejected: it is not down."""
    sandbox.fault(vendor="traitly", status=503, next=2)
    sandbox.fault(vendor="traitly", status=422, body={"message": "no"})
    with sending(at(sandbox, "traitly", shards=1, retry_s=0.0), 10, users=1, first_pause=0.02) as one:
        one.join()
        assert one.sender.tally.delivered == 9
        assert len(one.sender.failed) == 1


def test_a_stop_while_it_is_parked_ends_at_once(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503, next=None)
    with sending(at(sandbox, "teak", shards=4, retry_s=0.0), 100, first_pause=30.0) as one:
        one.until_parked()
        started = time.monotonic()
        one.gate.stop(Halt("stopped"))
        one.join()
        assert time.monotonic() - started < 3


def test_pauses_are_bounded() -> None:
    parking = Parking(lambda _: None)
    now = 100.0
    for _ in range(20):
        parking.park(Halt("down"), now)
        wait = parking.wait(now, 0)
        assert 0 < wait <= LONGEST_PAUSE
        now += wait
        assert parking.wait(now, 0) == 0
    parking.release()
    assert parking.wait(now, 5) == 0
    parking.park(Halt("down again"), now)
    assert 0 < parking.wait(now, 0) <= FIRST_PAUSE


def test_the_key_to_mend_is_named_as_the_relay_file_has_it() -> None:
    halt = Halt("HTTP 401: who?", "credentials.api_key")
    assert words("crm", halt) == "HTTP 401: who?; check destinations.crm.credentials.api_key in the relay file"
    assert words("crm", Halt("HTTP 503")) == "HTTP 503"


def test_changes_are_told_once_and_each_probe_waits_longer() -> None:
    told: list[Halt | None] = []
    parking = Parking(told.append)
    down = Halt("HTTP 503")
    assert parking.wait(0.0, 9) == 0.0
    parking.park(down, 10.0)
    first = parking.wait(10.0, 0)
    assert 0.75 <= first <= 1.0
    assert parking.wait(10.0, 1) == 1.0, "while a probe is on its way there is no other"
    parking.park(down, 10.2)
    assert parking.wait(10.2, 0) == pytest.approx(first - 0.2), "what was on its way when it was parked is no probe"
    parking.park(down, 11.0)
    assert 1.5 <= parking.wait(11.0, 0) <= 2.0
    parking.park(down, 13.0, retry_after=30.0)
    assert parking.wait(13.0, 0) == 30.0
    parking.release()
    assert parking.wait(13.0, 0) == 0.0
    assert told == [down, None]
