"""The streaming job on Beam's local streaming runner, against the Pub/Sub emulator, as far as that runner goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, message
from test_pipeline import EVENTS, plan_of

from sandbox.server import Running

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("pubsub")


@contextmanager
def job(emulator: Emulator, relay: Path, subscription: str, letters: str) -> Iterator[subprocess.Popen[bytes]]:
    """The job in a process of its own. It never ends by itself."""
    command = [sys.executable, "-m", "pipelines.stream", f"--relay={relay}", f"--subscription={subscription}"]
    process = subprocess.Popen(
        [*command, f"--dead_letters={letters}"], cwd=ROOT, env={**os.environ, **emulator.environment}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until something holds."""
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop, "not within the time"
        time.sleep(0.1)


@contextmanager
def published(emulator: Emulator, topic: str) -> Iterator[None]:
    """Events come all the time: while there are none the runner waits for some, and does nothing else for 30 s."""
    done = threading.Event()

    def publish() -> None:
        for number, event in enumerate(EVENTS * 10):
            if done.wait(0.05):
                return
            data = event if number % 50 != 3 else b"no JSON"
            emulator.publish(topic, [message(data, attributes={"n": str(number)})])

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_messages_go_to_vendors_and_dead_letters_to_a_topic(
    emulator: Emulator, sandbox: Running, tmp_path: Path
) -> None:
    sandbox.configure("teak", unknown_users=["u8358"])
    topic, subscription = emulator.make()
    letters, letters_subscription = emulator.make()
    plan_of(tmp_path, sandbox.url, ["teak", "traitly"], models=["event"])
    found: list[Any] = []

    def taken(slug: str) -> int:
        return len(sandbox.items(slug))

    def letters_there() -> bool:
        found.extend(json.loads(one.message.data) for one in emulator.pull(letters_subscription))
        undecodable = {letter["destination"] for letter in found if not letter["model"]}
        return undecodable == {"teak", "traitly"} and any(letter["model"] for letter in found)

    with published(emulator, topic), job(emulator, tmp_path / "relay.yaml", subscription, letters):
        until(lambda: taken("teak") > 20 and taken("traitly") > 20)
        sandbox.fault(vendor="teak", status=503, next=None)
        until(lambda: sandbox.faults()[0]["struck"] > 0)
        others, before = taken("traitly"), taken("teak")
        until(lambda: taken("traitly") > others + 20)
        assert taken("teak") == before
        sandbox.clear_faults()
        until(lambda: taken("teak") > before + 20)
        until(letters_there)
    assert sandbox.violations() == []
    for letter in found:
        number = int(letter["source"]["message"]["attributes"]["n"])
        expected = EVENTS[number % len(EVENTS)] if letter["model"] else b"no JSON"
        assert letter["original"].encode() == expected
        assert letter["source"]["name"] == subscription
