"""The streaming job as Dataflow is given it, made without network: its steps, its shuffles, and no secret in it."""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import logging
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from commands import CONTROL

from pipelines import backfill, stream
from pipelines.plan import make_plan
from pipelines.relay_file import load
from sandbox.credentials import RELAY_FILE
from transforms.credentials import resolve_all
from transforms.sources.subscription import ReadSubscription
from transforms.vendors import get, slugs

ROOT = Path(__file__).parents[2]
SUBSCRIPTION = "projects/my-project/subscriptions/my-events"
TOPIC = "projects/my-project/topics/my-letters"
DATAFLOW = [
    "--runner=DataflowRunner", "--dry_run=True", "--project=my-project", "--region=europe-west1",
    "--temp_location=gs://my-bucket/tmp", "--sdk_location=container",
]  # fmt: skip
MARK = "planted-secret"

STEPS = [
    "Read/Messages/Read",
    "Read/Messages/ParDo(_AddMetricsPassThrough)",
    "Read/Messages/Map(_from_proto_str)",
    "Read/Chunks",
    "Map/ParDo(MapRecordsFn)",
    *(
        f"Deliver to {slug}/{step}"
        for slug in sorted(slugs())
        for step in ("By shard", "Batch and send/ParDo(BatchAndSendFn)")
    ),
    "Tallies",
    "Count",
    "Failed",
    "Keep dead letters/Whenever",
    "Keep dead letters/Anywhere",
    "Keep dead letters/Group",
    "Keep dead letters/Each",
    "Write dead letters",
]
"""The job's steps. A job that is updated, or goes on from a savepoint, is matched by these names and this order."""


@pytest.fixture
def relay_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A relay file whose secrets are in the environment and in a file."""
    destinations: dict[str, Any] = {}
    for slug in slugs():
        secret = {key.name for key in get(slug).credentials if key.secret}
        destinations[slug] = {"credentials": dict(RELAY_FILE[slug]), "batch": {"window": "1m"}}
        for key in RELAY_FILE[slug].keys() & secret:
            name = f"PLAYRELAY_{slug}_{key}".upper()
            monkeypatch.setenv(name, f"{MARK}-{slug}-{key}")
            destinations[slug]["credentials"][key] = f"env:{name}"
    (tmp_path / "token").write_text(f"{MARK}-in-a-file")
    destinations["traitly"]["credentials"]["token"] = "file:token"
    path = tmp_path / "relay.yaml"
    path.write_text(yaml.safe_dump({"source": {"preset": "canonical"}, "destinations": destinations}))
    return path


def built(relay_file: Path) -> tuple[beam_runner_api_pb2.Pipeline, Any]:
    """The job as it would be sent to Dataflow: (pipeline, job)."""
    pipeline = beam.Pipeline(options=PipelineOptions([*DATAFLOW, "--streaming"]))
    stream.build(pipeline, make_plan(load(relay_file))[0], ReadSubscription(SUBSCRIPTION), TOPIC)
    job = pipeline.run().job
    return pipeline.runner.proto_pipeline, job


def steps(proto: beam_runner_api_pb2.Pipeline) -> list[Any]:
    """The steps in the order in which they were built."""

    def below(number: str) -> Iterator[Any]:
        transform = proto.components.transforms[number]
        if not transform.subtransforms and transform.unique_name:
            yield transform
        for child in transform.subtransforms:
            yield from below(child)

    return [transform for root in proto.root_transform_ids for transform in below(root)]


def test_the_steps_have_their_names_and_order(relay_file: Path) -> None:
    assert [step.unique_name for step in steps(built(relay_file)[0])] == STEPS


def test_it_is_built_the_same_each_time(relay_file: Path) -> None:
    """Also in another process, whose sets and dicts are ordered otherwise."""
    script = (
        "import sys, pathlib; sys.path[:0] = ['tests/unbounded', 'tests/command']\n"
        "from test_job_graph import built, steps\n"
        "print(*(step.unique_name for step in steps(built(pathlib.Path(sys.argv[1]))[0])), sep='\\n')"
    )
    for seed in ("1", "2"):
        made = subprocess.run(
            [sys.executable, "-c", script, str(relay_file)],
            cwd=ROOT, env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert made.stdout.splitlines() == STEPS


def test_one_stateful_step_a_destination_is_its_only_shuffle(relay_file: Path) -> None:
    shuffled: list[str] = []
    stateful: list[str] = []
    for step in steps(built(relay_file)[0]):
        if step.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn:
            shuffled.append(step.unique_name)
        elif step.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
            assert payload.restriction_coder_id == ""
            if payload.state_specs or payload.timer_family_specs:
                stateful.append(step.unique_name)
                assert set(payload.state_specs) == {"note", "waiting", "going"}
                assert len(payload.timer_family_specs) == 2
    assert stateful == [f"Deliver to {slug}/Batch and send/ParDo(BatchAndSendFn)" for slug in sorted(slugs())]
    assert shuffled == ["Keep dead letters/Group"]


def test_messages_are_read_by_dataflow_itself_with_their_attributes(relay_file: Path) -> None:
    read = steps(built(relay_file)[0])[0]
    assert read.spec.urn == common_urns.composites.PUBSUB_READ.urn
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(read.spec.payload)
    assert payload.subscription == SUBSCRIPTION
    assert payload.with_attributes
    assert (payload.id_attribute, payload.timestamp_attribute) == ("", "")


def test_no_secret_is_in_the_job(relay_file: Path) -> None:
    proto, job = built(relay_file)
    everything = [proto.SerializeToString(), str(job).encode(), repr(job.options.get_all_options()).encode()]
    for step in steps(proto):
        everything += unpacked(step.spec.payload)
        if step.spec.urn == common_urns.primitives.PAR_DO.urn:
            everything += unpacked(beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).do_fn.payload)
    assert any(b"PLAYRELAY_TEAK_SECRET_KEY" in data for data in everything), "the references are"
    (mapping,) = (step for step in steps(proto) if step.unique_name.startswith("Map/"))
    mapping_fn = beam_runner_api_pb2.ParDoPayload.FromString(mapping.spec.payload).do_fn.payload
    assert not any(b"PLAYRELAY_" in data for data in unpacked(mapping_fn)), "where nothing is sent, they are not either"
    assert [data[:80] for data in everything if MARK.encode() in data] == []


def unpacked(data: bytes) -> list[bytes]:
    """Bytes as they are and as they may be packed: pickled functions are compressed, and written as base64."""
    found = [data]
    with contextlib.suppress(binascii.Error):
        found.append(base64.b64decode(data, validate=True))
    for packed in found.copy():
        for unpack, error in ((zlib.decompress, zlib.error), (bz2.decompress, OSError)):
            try:
                found.append(unpack(packed))
            except (error, ValueError):
                continue
    return found


OFFLINE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from pipelines import backfill, stream
sys.exit(stream.main(sys.argv[1:]))
"""
"""Python that ends where it asks for the network: a hook like this cannot be undone in its process."""


def test_the_command_makes_the_job_without_network(relay_file: Path) -> None:
    arguments = [f"--relay={relay_file}", f"--subscription={SUBSCRIPTION}", f"--dead_letters={TOPIC}", *DATAFLOW]
    made = subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments, "--hold=2h", "--allowed_lateness=30s"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.parametrize("url", ["https://vendor.example", "http://127.0.0.1:9000/teak"])
@pytest.mark.parametrize("job", [stream, backfill])
def test_a_secret_in_the_relay_file_does_not_leave_with_the_job(
    job: ModuleType, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = tmp_path / "relay.yaml"
    teak = {"credentials": {"game_id": "g", "secret_key": f"{MARK}-literal"}, "url": url}
    document = {"allow_literal_secrets": True, "source": {"preset": "canonical"}, "destinations": {"teak": teak}}
    relay.write_text(yaml.safe_dump(document))
    arguments = [f"--relay={relay}", f"--subscription={SUBSCRIPTION}", f"--dead_letters={TOPIC}", "--input=e.ndjson"]
    assert job.main([*arguments, *DATAFLOW]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{relay}: destinations.teak.credentials.secret_key: a secret stands in the file")
    assert "write env:NAME, file:PATH or secret:" in said
    assert MARK not in said


def test_what_the_relay_file_warns_of_is_said(relay_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = yaml.safe_load(relay_file.read_text())
    document["destinations"]["teak"]["rate"] = "unlimited"
    relay_file.write_text(yaml.safe_dump(document))
    arguments = [f"--relay={relay_file}", f"--subscription={SUBSCRIPTION}", f"--dead_letters={TOPIC}", *DATAFLOW]
    assert stream.main(arguments) == 0
    assert re.match(r"warning: .*relay.yaml:\d+:\d+: destinations.teak.rate: ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("job", "wrong"),
    [(stream, "--dead_letters=projects/p/subscriptions/\x1b]0;owned\x07"), (backfill, "--input=\x1b]0;owned\x07")],
)
def test_what_is_shown_does_not_act_on_a_terminal(
    job: ModuleType, wrong: str, relay_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.main([f"--relay={relay_file}", f"--subscription={SUBSCRIPTION}", "--only=traitly", wrong]) == 2
    said = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07" in said
    assert not CONTROL.search(said.replace("\n", ""))


def test_a_jobs_logs_hold_no_secret(relay_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What either job writes is written as the command's logs are; here of the secrets that this process resolved."""
    resolve_all(load(relay_file).destinations["teak"])
    for job in (stream, backfill):
        arguments = [f"--relay={relay_file}", f"--subscription={SUBSCRIPTION}", f"--dead_letters={TOPIC}"]
        assert job.main([*arguments, "--input=e", "--only=nobody"]) == 2
        logging.getLogger("transforms").warning("it answered %s", f"{MARK}-teak-secret_key")
        assert "it answered ***" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m pipelines.stream"),
        (["--subscription=my-events"], "my-events: "),
        (["--dead_letters=projects/my-project/subscriptions/x"], "is a subscription; expected projects/PROJECT/topics"),
        (["--hold=tomorrow"], "--hold"),
        (["--only=nobody"], "nobody is no destination"),
        (["--runner=Nope"], "options: --runner: Nope: Unexpected pipeline runner: Nope. Valid values are"),
        (["--runner=no.such.Runner"], "options: --runner: no.such.Runner: No module named 'no'"),
    ],
)
def test_what_is_wrong_is_said(
    relay_file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [f"--relay={relay_file}", f"--subscription={SUBSCRIPTION}", f"--dead_letters={TOPIC}", *DATAFLOW]
    assert stream.main([*given, *arguments] if arguments else DATAFLOW) == 2
    assert said in capsys.readouterr().err
