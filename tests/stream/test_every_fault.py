"""The faults of tests/delivery in a stream, at all vendors at once: afterwards the sums are exact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator
from streamed import Streamed, to, told
from streams import MEASURED, VENDORS, Command, Elsewhere, check_arrived, event, events, relay_file, until

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

NOBODY = {
    "http://127.0.0.1:9": "network: connection refused",
    # Longer than a label may be, so that no resolver has to be asked.
    f"https://{'x' * 64}.example": "network: the host's name is not known",
    "https://SANDBOX": "network: TLS handshake failed",
}
"""Addresses at which no vendor is, and why."""

pytestmark = pytest.mark.xdist_group("streams")


def all_is_over(relay: Streamed, command: Command, count: int) -> None:
    """Everything that came has its outcome, and no vendor is parked."""
    until(lambda: any(one["records"] == count and not one["unacknowledged"] for one in told(command)[-1:]), 40)
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


def test_nobody_is_reached_until_the_relay_file_is_mended(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    reasons = {f"{slug}-{number}": reason for number, reason in enumerate(NOBODY.values()) for slug in VENDORS}
    ways = {
        f"{slug}-{number}": {"vendor": slug, "url": url.replace("SANDBOX", sandbox.url.removeprefix("http://")), **one}
        for number, url in enumerate(NOBODY)
        for slug, one in to().items()
    }
    relay = Streamed(tmp_path, sandbox, emulator, ways)
    relay.publish(events(20))
    with relay.start(altered=ALTERED) as command:
        until(lambda: all(reason in (relay.parked(name) or "") for name, reason in reasons.items()), 40)
        until(lambda: all(relay.waiting(name) == 20 for name in ways) and not told(command)[-1]["unacknowledged"])
        command.stop()
    assert relay.left() == []
    relay.file = relay_file(
        tmp_path, sandbox, {name: {**one, "url": f"{sandbox.url}/{one['vendor']}"} for name, one in ways.items()}
    )
    with relay.start(altered=ALTERED) as command:
        relay.wait(command, VENDORS, 20 * len(NOBODY))
        command.stop()
    for slug in VENDORS:
        assert sorted(sandbox.numbers(slug)) == sorted([*range(20)] * len(NOBODY))


def test_one_bad_item_in_a_thousand_and_one_too_large(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    def relayed(name: str, messages: list[bytes]) -> tuple[Streamed, dict[str, int]]:
        """A stream of one slice, as messages that wait before it begins are taken together; each vendor's requests."""
        folder = tmp_path / name
        folder.mkdir()
        before = sandbox.received()["vendors"]
        relay = Streamed(folder, sandbox, emulator, {slug: {"shards": 1, "rate": "unlimited"} for slug in VENDORS})
        relay.publish(messages)
        with relay.start(altered=ALTERED) as command:
            all_is_over(relay, command, len(messages))
            command.stop()
        relay.check_report(len(messages))
        now = sandbox.received()["vendors"]
        return relay, {slug: now[slug]["requests"] - before[slug]["requests"] for slug in VENDORS}

    _, healthy = relayed("healthy", events(1000, users=1))
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=400, containing="choking", next=None)
    messages = events(1000, 1000, users=1)
    messages[617] = event(1617, user_id="choking")
    messages.append(event(2000, user_id="x" * 4_100_000))
    relay, requests = relayed("bad", messages)
    for slug in VENDORS:
        assert requests[slug] - healthy[slug] <= 2 * math.log2(1000) + 2, slug
        letters = [letter for letter in relay.dead if letter["destination"] == slug]
        refused = [int(MEASURED[slug](letter["payload"])) for letter in letters if letter["status"] == 400]
        # Parcelvoy takes no id as long as that, whatever a request may be.
        (large,) = [letter["reason"] for letter in letters if letter["status"] is None]
        assert refused == [1617] and large.startswith(("too large: ", "external_id: longer than"))
        check_arrived(sandbox, slug, set(range(2000)) - {1617})
