"""The emulator that the tests stream from: what it is given comes back, what is left is told, and it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import emulator as emulators
import pytest
from emulator import Emulator, Missing, message

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_left_is_told_and_stays(emulator: Emulator, ordered: bool) -> None:
    topic, subscription = emulator.make(ordered=ordered, ack_deadline_s=600)
    published = emulator.publish(topic, [message(b"%d" % n, key=f"u{n % 7}" if ordered else "") for n in range(3000)])
    assert len(set(published)) == 3000
    given = emulator.subscriber.pull(subscription=subscription, max_messages=50).received_messages
    emulator.subscriber.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in given[:20]])
    expected = set(published) - {one.message.message_id for one in given[:20]}
    for _ in range(2):
        assert {one.message_id for one in emulator.left(subscription)} == expected
    pulled = [one.message for one in emulator.pull(subscription)]
    assert {one.message_id for one in pulled} == expected
    if ordered:
        for key in {one.ordering_key for one in pulled}:
            numbers = [int(one.data) for one in pulled if one.ordering_key == key]
            assert numbers == sorted(numbers)
    assert emulator.left(subscription) == []


def test_attributes_keys_and_large_messages_arrive(emulator: Emulator) -> None:
    topic, subscription = emulator.make(ordered=True)
    emulator.publish(topic, [message(b"x" * 3_000_000, key="u1", attributes={"title": "chess"})] * 4)
    found = [one.message for one in emulator.pull(subscription)]
    assert [(len(one.data), one.ordering_key, dict(one.attributes)) for one in found] == [
        (3_000_000, "u1", {"title": "chess"})
    ] * 4


def test_messages_leave_at_a_rate(emulator: Emulator) -> None:
    topic, subscription = emulator.make()
    started = time.monotonic()
    emulator.publish(topic, [b"{}"] * 1000, rate=2000)
    assert 0.49 < time.monotonic() - started < 1.5
    assert len(emulator.left(subscription)) == 1000


def test_googles_own_client_finds_it(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import pubsub_v1

    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    topic, subscription = emulator.make()
    with pubsub_v1.SubscriberClient() as client:
        emulator.publish(topic, [b"{}"])
        assert client.pull(subscription=subscription, max_messages=1).received_messages[0].message.data == b"{}"


def session(leader: int) -> set[int]:
    """The processes of a session that have not ended."""
    listed = subprocess.run(["ps", "-eo", "sid=,pid=,stat="], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in listed.splitlines()]
    return {int(pid) for sid, pid, state in lines if int(sid) == leader and not state.startswith("Z")}


def ended(leader: int) -> bool:
    """Whether a session is gone, within 10 s."""
    for _ in range(100):
        if not session(leader):
            return True
        time.sleep(0.1)
    return False


def test_it_ends_with_all_its_processes() -> None:
    with Emulator() as one:
        assert one._process is not None
        leader = one._process.pid
        assert len(session(leader)) >= 3, "bash, gcloud and java"
        assert os.getsid(0) != leader
    assert ended(leader)


def test_it_ends_when_the_tests_are_killed() -> None:
    program = (
        "from emulator import Emulator\none = Emulator()\none.start()\nprint(one._process.pid, flush=True)\ninput()"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/pubsub'}"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as tests:
        assert tests.stdout is not None
        leader = int(tests.stdout.readline())
        assert session(leader)
        tests.kill()
    assert ended(leader)


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bash, java = tmp_path / "bash", tmp_path / "java"
    for program in (bash, java):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"google-cloud-cli-pubsub-emulator and default-jre-headless\ngcloud is not on"):
        Emulator().start()


def test_an_emulator_that_does_not_start_is_told_with_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gcloud = tmp_path / "gcloud"
    gcloud.write_text("#!/bin/sh\necho 'ERROR: (gcloud.beta) component pubsub-emulator is not installed' >&2\n")
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Missing, match=r"install the Debian packages(?s:.*)pubsub-emulator is not installed"):
        Emulator().start()
    monkeypatch.setattr(emulators, "START_S", 0.3)
    gcloud.write_text("#!/bin/sh\nsleep 30\n")
    with pytest.raises(Missing, match=r"nothing more for 0.3 s"):
        Emulator().start()
