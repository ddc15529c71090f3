"""Two streams on one subscription, as processes with state folders of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, message
from streamed import Streamed, to, told
from streams import Command, Elsewhere, check_arrived, event, events, until

pytestmark = pytest.mark.xdist_group("streams")

NAMES = ("one", "two")


@contextlib.contextmanager
def two(relay: Streamed) -> Iterator[list[Command]]:
    """Both, from when they pull."""
    with contextlib.ExitStack() as stack:
        running = []
        for name in NAMES:
            own = ("--state", relay.folder / name, "--report", relay.folder / f"{name}.json")
            running.append(stack.enter_context(relay.start(*own)))
        until(lambda: all(told(command) for command in running))
        yield running


def delivered(relay: Streamed, slug: str) -> list[int]:
    """Items that each of them delivered, by its report; the sums are checked."""
    found = []
    for name in NAMES:
        report: dict[str, Any] = json.loads((relay.folder / f"{name}.json").read_text())
        relay.check_report(report["records"]["read"], report)
        found.append(report["destinations"][slug]["delivered"])
    return found


def test_they_keep_teaks_limit_together_and_use_it(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    count = 400
    relay = Streamed(tmp_path, sandbox, emulator, to("teak", batch={"items": 1, "age": "100ms"}))
    with two(relay) as running:
        emulator.publish(relay.topic, events(count, users=count), rate=250)
        until(lambda: sandbox.accepted("teak") >= count)
        for command in running:
            command.stop()
    counts = sandbox.received(vendor="teak")["vendors"]["teak"]
    assert counts["answers"] == {"200": count}
    assert 90 <= counts["max_requests_per_second"] <= 100
    check_arrived(sandbox, "teak", range(count))
    shares = delivered(relay, "teak")
    assert sum(shares) == count
    assert min(shares) > count / 5, "one hardly came to send"
    assert relay.left() == []


def test_ordering_keys_keep_each_users_order(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Pub/Sub gives no message of a key while an earlier one is out: whoever has a user's events has them alone."""
    count, users = 300, 20
    relay = Streamed(tmp_path, sandbox, emulator, to("teak", "traitly", rate="unlimited"))
    relay.topic, relay.subscription = emulator.make(ordered=True)
    for slug in ("teak", "traitly"):
        sandbox.fault(vendor=slug, delay_s=0.05, next=None)
    with two(relay) as running:
        keyed = (message(event(number, users), key=f"u{number % users}") for number in range(count))
        emulator.publish(relay.topic, keyed, rate=150)
        for slug in ("teak", "traitly"):
            until(lambda slug=slug: sandbox.accepted(slug) >= count)
        for command in running:
            command.stop()
    for slug in ("teak", "traitly"):
        check_arrived(sandbox, slug, range(count))
    assert min(delivered(relay, "teak")) > 0, "one had nothing"
    assert relay.left() == []
