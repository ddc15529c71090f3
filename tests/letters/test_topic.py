"""Dead letters as messages of a Pub/Sub topic, on the emulator."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from commands import call
from emulator import Emulator
from streams import event, relay_file

from pipelines import outputs
from pipelines.explain import explained
from sandbox.server import Running
from transforms.dead_letter import REJECTED, UNDELIVERED, DeadLetterWriter, Failed, WriteDeadLettersFn
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
        f"create it: gcloud pubsub topics create projects/{emulator.project}/topics/none"
    )


def test_an_error_in_a_pipeline_is_told_without_the_step(emulator: Emulator) -> None:
    topic = f"projects/{emulator.project}/topics/none"
    step = WriteDeadLettersFn(partial(writer, topic))
    with pytest.raises(LetterError) as caught, beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
        pipeline | beam.Create([("my-teak", [failed(1)])]) | "Write dead letters" >> beam.ParDo(step)
    (line,) = explained(caught.value) or ()
    assert line.endswith(f"gcloud pubsub topics create {topic}")


def test_a_topic_that_is_not_there_is_found_before_anything_is_sent(
    emulator: Emulator, sandbox: Running, tmp_path: Path
) -> None:
    relay = relay_file(tmp_path, sandbox, ["teak"])
    (tmp_path / "in.jsonl").write_bytes(event(1) + b"\n")
    topic = f"projects/{emulator.project}/topics/none"
    done = call("run", relay, "--input", tmp_path / "in.jsonl", "--dead-letters", topic)
    assert done.exit_code == 2
    assert done.output.strip().endswith(f"there is no such topic; create it: gcloud pubsub topics create {topic}")
    assert sandbox.received()["vendors"]["teak"]["requests"] == 0
    topic, _ = emulator.make()
    assert call("run", relay, "--input", tmp_path / "in.jsonl", "--dead-letters", topic).exit_code == 0


@pytest.mark.parametrize(
    ("status", "told"), [(grpc.StatusCode.PERMISSION_DENIED, None), (grpc.StatusCode.INVALID_ARGUMENT, "topics/t: Inv")]
)
def test_who_may_not_look_at_a_topic_may_publish(
    status: grpc.StatusCode, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator allows everything to everybody."""
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Refusing(status),))
    monkeypatch.setitem(os.environ, "PUBSUB_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        with pytest.raises(LetterError, match=told) if told else nullcontext():
            outputs.prepare("projects/p/topics/t", None)
    finally:
        server.stop(None)


class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers every call with a status."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self._status = status

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(self._status, "no"))


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.letter_stores.PUBLISH_SECONDS", 1.0)
    monkeypatch.setattr("transforms.letter_stores.ASK_SECONDS", 1.0)
    monkeypatch.setitem(os.environ, "PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    for try_ in (
        lambda: writer("projects/p/topics/t").write("my-teak", [failed(1)]),
        lambda: outputs.prepare("projects/p/topics/t", None),
    ):
        with pytest.raises(LetterError) as caught:
            try_()
        assert str(caught.value).startswith("dead letters cannot be published to projects/p/topics/t: ")
