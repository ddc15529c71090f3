"""The faults of tests/delivery in a stream, at all vendors at once: afterwards the sums are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator
from streamed import Streamed, to, told
from streams import MEASURED, VENDORS, Command, Elsewhere, check_arrived, events, until

HTML = {"body": "<!doctype html><title>Sign in</title>", "content_type": "text/html"}

NOT_TAKEN: list[dict[str, Any]] = [
    *({"status": status} for status in (408, 429, 500, 502, 503, 504, 401, 403, 404, 410, 302)),
    {"retry_after": 1},
    {"retry_after": "date+2"},
    {"reset": "before"},
    {"drop": True},
    {"status": 503, **HTML},
]
"""Of a request that is struck the vendor takes nothing."""

ANSWER_LOST: list[dict[str, Any]] = [{"reset": "after"}, {"truncate": 5}, {"delay_s": 1.5}, {"status": 200, **HTML}]
"""The vendor takes the request, but nobody can know."""

EMPTY = {"status": 200, "body": ""}
"""At Teak an answer says what was taken; the others' status does."""

REFUSED: list[dict[str, Any]] = [{"status": 400}, {"status": 413}]
"""What is refused is halved until one item is left: that of a request of one item is a dead letter."""

RESULTS: list[dict[str, Any]] = [
    {"item_errors": "reorder"},
    {"status": 200, "body": {"status": "ok", "results": [{"status": "ok", "user_id": "u1"}]}},
]
"""Teak's results in another order, and too few: those without one are sent again."""

LASTING: list[dict[str, Any]] = [
    *({"status": status} for status in (429, 410, 302)),
    {"reset": "before"},
    {"drop": True},
]
"""Of each kind that parks a vendor when it lasts; 401 and 503 are in test_stream.py."""

ALTERED = {
    "transforms.deliver.policy.LONGEST_PAUSE": 0.3,
    "transforms.deliver.parking.FIRST_PAUSE": 0.1,
    "transforms.deliver.parking.LONGEST_PAUSE": 0.3,
}
"""So that a vendor that is back is soon asked."""

pytestmark = pytest.mark.xdist_group("stream")


def all_is_over(relay: Streamed, command: Command, count: int) -> None:
    """Everything that came has its outcome, and no vendor is parked."""
    until(lambda: told(command)[-1]["records"] == count and not told(command)[-1]["unacknowledged"], 40)
    until(lambda: not any(relay.waiting(slug) or relay.parked(slug) for slug in VENDORS))


def test_requests_that_go_wrong_once(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    # Long enough for a batch that several faults strike one after the other.
    relay = Streamed(tmp_path, sandbox, emulator, to(timeout={"total": "800ms"}, retry={"for": "20s"}))
    once = [*NOT_TAKEN, *ANSWER_LOST, EMPTY, *REFUSED]
    for slug in VENDORS:
        for number, fault in enumerate([*once, *RESULTS] if slug == "teak" else once):
            sandbox.fault(vendor=slug, after=1 + number, **fault)
    with relay.start(altered=ALTERED) as command:
        for turn in range(10):
            relay.publish(events(80, 80 * turn))
            relay.wait(command, VENDORS, 40 * turn)
        all_is_over(relay, command, 800)
        command.stop()
    assert {fault["struck"] for fault in sandbox.faults()} == {1}
    assert relay.left() == []
    relay.check_report(800)
    for slug in VENDORS:
        rejected = {int(MEASURED[slug](letter["payload"])) for letter in relay.dead if letter["destination"] == slug}
        one = relay.report["destinations"][slug]
        assert (one["delivered"], one["rejected"]) == (800 - len(rejected), len(rejected))
        assert len(rejected) == len(REFUSED) if slug == "traitly" else len(rejected) <= len(REFUSED)
        lost_answers = len(ANSWER_LOST) + (2 if slug == "teak" else 0)
        check_arrived(sandbox, slug, set(range(800)) - rejected, twice_in_requests=lost_answers)


def test_requests_that_go_wrong_for_longer_than_the_budget(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to(timeout={"total": "800ms"}))
    with relay.start(altered=ALTERED) as command:
        for turn, fault in enumerate(LASTING):
            for slug in VENDORS:
                sandbox.fault(vendor=slug, next=None, **fault)
            relay.publish(events(20, 20 * turn))
            until(lambda: all(relay.parked(slug) for slug in VENDORS))
            word = f"HTTP {fault['status']}" if "status" in fault else "network: "
            assert all(word in (relay.parked(slug) or "") for slug in VENDORS)
            assert [sandbox.accepted(slug) for slug in VENDORS] == [20 * turn] * len(VENDORS)
            sandbox.clear_faults()
            all_is_over(relay, command, 20 * (turn + 1))
        command.stop()
    relay.check(20 * len(LASTING))
