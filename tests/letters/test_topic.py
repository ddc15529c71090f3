"""Dead letters as messages of a Pub/Sub topic, on the emulator."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from emulator import Emulator

from transforms.dead_letter import REJECTED, UNDELIVERED, DeadLetterWriter, Failed
from transforms.letter_stores import LetterError
from transforms.sources.formats import Layout


@pytest.fixture(autouse=True)
def of_the_emulator(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


def writer(location: str) -> DeadLetterWriter:
    return DeadLetterWriter(location, {"my-teak": "teak"}, {"my-teak": "m-1"}, Layout())


def failed(n: int, original: bytes = b"{}") -> Failed:
    outcome = UNDELIVERED if n % 3 == 0 else REJECTED
    return Failed(
        outcome, "HTTP 400", "events.jsonl", n, "event" if n % 2 else "", "u1", payload=b"{}", original=original
    )


def test_each_letter_is_a_message_and_there_when_write_returns(emulator: Emulator, tmp_path: Path) -> None:
    topic, subscription = emulator.make()
    failures = [failed(n) for n in range(2_500)]
    writer(topic).write("my-teak", failures)
    writer(str(tmp_path)).write("my-teak", failures)
    files = {}
    for file in tmp_path.iterdir():
        for line in file.read_bytes().splitlines():
            letter = json.loads(line)
            files[letter["id"]] = letter
    assert len(files) == 2_500
    messages = [one.message for one in emulator.pull(subscription)]
    assert len(messages) == 2_500
    for message in messages:
        letter = json.loads(message.data)
        same = files.pop(letter["id"])
        same["at"] = same["first"]["at"] = letter["at"]
        assert letter == same
        assert dict(message.attributes) == {
            "destination": "my-teak",
            "model": letter["model"] or "",
            "outcome": letter["outcome"],
            "id": letter["id"],
        }


def test_a_letter_too_large_for_a_message_is_compressed(emulator: Emulator) -> None:
    topic, subscription = emulator.make()
    writer(topic).write("my-teak", [failed(1, b'"%b"' % (b"x" * 11_000_000)), failed(5)])
    sizes = {one.message.attributes.get("encoding", ""): len(one.message.data) for one in emulator.pull(subscription)}
    assert set(sizes) == {"", "gzip"} and sizes["gzip"] < 100_000


def test_a_topic_that_is_not_there_is_named(emulator: Emulator) -> None:
    with pytest.raises(LetterError) as caught:
        writer(f"projects/{emulator.project}/topics/none").write("my-teak", [failed(1)])
    assert str(caught.value) == (
        f"dead letters cannot be published to projects/{emulator.project}/topics/none: there is no such topic; "
        "create it: gcloud pubsub topics create"
    )


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.letter_stores.PUBLISH_SECONDS", 1.0)
    monkeypatch.setitem(os.environ, "PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(LetterError) as caught:
        writer("projects/p/topics/t").write("my-teak", [failed(1)])
    assert str(caught.value).startswith("dead letters cannot be published to projects/p/topics/t: ")
