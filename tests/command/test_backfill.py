"""The batch job's exit codes, and what it refuses before anything is sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import fastavro
import pytest

from pipelines import backfill
from sandbox.server import Running

Relay = Callable[..., Path]


def job(relay: Path, *arguments: object) -> int:
    return backfill.main([f"--relay={relay}", *map(str, arguments)])


@pytest.mark.parametrize("reported", [True, False])
def test_undelivered_is_3(reported: bool, relay: Relay, events: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # nothing listens once it is closed
        port = taken.getsockname()[1]
    down = relay("teak: {retry: {for: 0}}", url=f"http://127.0.0.1:{port}")
    report = tmp_path / "report.json"
    assert job(down, f"--input={events}", *([f"--report={report}"] if reported else [])) == 3
    assert report.exists() is reported
    if reported:
        assert json.loads(report.read_text())["destinations"]["teak"]["undelivered"] == 1


def test_all_accounted_for_is_0(relay: Relay, events: Path, sandbox: Running) -> None:
    assert job(relay("teak"), f"--input={events}") == 0
    assert sandbox.received()["vendors"]["teak"]["accepted"] == 1


def refused(sandbox: Running, capsys: pytest.CaptureFixture[str], relay: Path, *arguments: object) -> str:
    """What a job that sends nothing says."""
    capsys.readouterr()
    assert job(relay, *arguments) == 2
    assert sandbox.received()["vendors"]["teak"]["requests"] == 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("Nope", "options: --runner: Nope: Unexpected pipeline runner: Nope. Valid values are DataflowRunner, "),
        ("no.such.Runner", "options: --runner: no.such.Runner: No module named 'no'"),
        ("transforms.read.Nope", "options: --runner: transforms.read.Nope: module 'transforms.read' has no attribute"),
        ("transforms.elements.pack_items", "options: --runner: transforms.elements.pack_items: "),
    ],
)
def test_a_runner_that_is_none(
    runner: str, said: str, relay: Relay, events: Path, sandbox: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = refused(sandbox, capsys, relay("teak"), f"--input={events}", f"--runner={runner}")
    assert shown.startswith(said)
    assert shown.count("\n") == 1


def test_avro_of_another_schema(
    relay: Relay, tmp_path: Path, sandbox: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"type": "record", "name": "Other", "fields": [{"name": "size", "type": "int"}]}
    with (tmp_path / "other.avro").open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(other), [{"size": 1}])
    assert "other.avro" in refused(sandbox, capsys, relay("teak"), f"--input={tmp_path}/other.avro")


def test_what_cannot_be_written_or_resolved(
    relay: Relay, events: Path, sandbox: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (relay("teak"), f"--input={events}")
    assert refused(sandbox, capsys, *given, "--report=.") == ".: is a folder; expected a file for the report\n"
    assert refused(sandbox, capsys, *given, f"--dead_letters={events}").startswith(f"{events}: ")
    without = relay("teak: {credentials: {game_id: g, secret_key: 'env:NO_SUCH_VARIABLE'}}")
    assert "env:NO_SUCH_VARIABLE" in refused(sandbox, capsys, without, f"--input={events}")


def test_help_says_what_the_exit_codes_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill.main(["--help"]) == 0
    assert "3 items undelivered" in capsys.readouterr().out
