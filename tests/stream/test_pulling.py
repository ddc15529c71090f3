"""How a stream takes messages from Pub/Sub, keeps them while it works on them, and gives them back."""

from __future__ import annotations

import gzip
import socket
import time
from pathlib import Path

import pytest
from emulator import Emulator
from streamed import Streamed, to, told
from streams import Elsewhere, event, events, until
from test_metrics import scrape, values

pytestmark = pytest.mark.xdist_group("streams")


def test_messages_are_kept_for_as_long_as_it_takes(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Longer than the subscription's deadline: nobody else is given them. The lag tells how old they are."""
    patient = to("teak", batch={"items": 100, "age": "1h"})
    relay = Streamed(tmp_path, sandbox, emulator, patient)
    relay.publish(events(50))
    time.sleep(2)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with relay.start("--metrics-port", port) as command:
        until(lambda: told(command) and told(command)[-1]["unacknowledged"] == 50)
        pulled = time.monotonic()
        while time.monotonic() < pulled + 12:  # the deadline is 10 s
            assert emulator.pull(relay.subscription, acknowledge=False) == []
            time.sleep(0.5)
        assert told(command)[-1]["unacknowledged"] == 50
        assert 14 <= values(scrape(port))["playrelay_oldest_unacknowledged_seconds"] < 40
        assert command.stop() < 10
    assert sandbox.accepted("teak") == 0
    assert len(relay.left()) == 50


def test_answers_of_many_megabytes(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Above the 4 MiB that gRPC takes unless it is told otherwise."""
    relay = Streamed(tmp_path, sandbox, emulator, to("teak", "traitly"))
    text = "x" * 100_000
    relay.publish(event(number, params={"text": text}) for number in range(100))
    relay.publish([event(100, params={"text": text * 35})])
    with relay.start() as command:
        relay.wait(command, ("teak", "traitly"), 101)
        command.stop()
    relay.check(101, ("teak", "traitly"))


def test_a_stop_while_few_messages_hold_much(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Mapping what a dozen messages hold may take minutes: what is not mapped soon goes back as it came."""
    relay = Streamed(tmp_path, sandbox, emulator, to())
    records, messages = 100_000, 12
    data = gzip.compress(b"\n".join(events(records, users=5000)), 1)
    relay.publish([data] * messages)
    with relay.start() as command:
        until(lambda: list(relay.state.glob("slices/*")))
        time.sleep(0.5)
        assert command.stop() < 10
    left = relay.left()
    assert 0 < len(left) <= messages
    relay.check_report(records * (messages - len(left)))
