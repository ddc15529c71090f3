"""What a user got wrong is said in one line that names the place and the remedy, with exit code 2 and nothing sent."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ENVIRONMENT, EVENT, call

from sandbox.server import Running

Relay = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_sent(sandbox: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(sandbox: Running, *arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert sum(view["requests"] for view in sandbox.received()["vendors"].values()) == 0
    return result.stderr


def test_no_relay_file(events: Path, sandbox: Running) -> None:
    assert (
        refused(sandbox, "run", "none.yaml", "--input", events)
        == "none.yaml: cannot be read: No such file or directory\n"
    )


def test_bad_yaml(events: Path, sandbox: Running) -> None:
    Path("relay.yaml").write_text("source: {preset: canonical}\ndestinations: [\n")
    shown = refused(sandbox, "run", "relay.yaml", "--input", events)
    assert re.match(r"relay\.yaml:\d+:\d+: not YAML: ", shown)
    Path("relay.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(sandbox, "check", "relay.yaml")


def test_every_wrong_key_at_once(relay: Relay, sandbox: Running) -> None:
    path = relay("teak: {batchh: {items: 5}, rate: fast, map: {event: {fields: {action_typ: $event_type}}}}")
    shown = refused(sandbox, "check", path)
    assert re.search(r"relay\.yaml:\d+:\d+: destinations\.teak\.batchh: unknown key; did you mean batch\?", shown)
    assert re.search(r"relay\.yaml:\d+:\d+: destinations\.teak\.rate: expected a rate such as 100/s", shown)
    assert re.search(r"relay\.yaml:\d+:\d+: .*action_typ: .*did you mean action_type\?", shown)
    assert len(shown.splitlines()) == 3


def test_mappings_are_checked_although_the_source_is_wrong(relay: Relay, sandbox: Running) -> None:
    path = relay(
        "teak: {models: [events], map: {event: {when: {event_typ: a}}}}", "traitly: {map: {event: {fieldz: {}}}}"
    )
    path.write_text(path.read_text().replace("preset: canonical", "preset: canon"))
    shown = refused(sandbox, "check", path)
    assert "no such choice: canon" in shown
    assert "Teak has no model events; did you mean event?" in shown
    assert "unknown field event_typ; did you mean event_type?" in shown
    assert "unknown key fieldz; did you mean fields?" in shown


def test_wrong_mappings_name_the_field_and_the_place(relay: Relay, sandbox: Running) -> None:
    path = relay("teak: {map: {event: {fields: {action_typ: $event_type, object_type: $event_data.levell}}}}")
    shown = refused(sandbox, "check", path)
    assert re.search(r"relay\.yaml:\d+:\d+: .*action_typ.*did you mean action_type\?", shown)
    assert re.search(r"relay\.yaml:\d+:\d+: .*levell.*did you mean .*level\?", shown)


def test_a_credential_that_is_not_there(relay: Relay, events: Path, sandbox: Running) -> None:
    path = relay("teak: {credentials: {game_id: g, secret_key: 'env:NO_SUCH_VARIABLE'}}")
    for arguments in (("run", path, "--input", events), ("check", path, "--credentials")):
        shown = refused(sandbox, *arguments)
        assert "destinations.teak.credentials.secret_key: env:NO_SUCH_VARIABLE" in shown
        assert "export NO_SUCH_VARIABLE=" in shown
    path = relay("teak: {credentials: {game_id: g, secret_key: 'file:none.txt'}}")
    assert "none.txt" in refused(sandbox, "run", path, "--input", events)


@pytest.mark.parametrize("command", ["run", "preview"])
def test_no_input(command: str, relay: Relay, sandbox: Running) -> None:
    assert refused(sandbox, command, relay("teak"), "--input", "no*.ndjson") == "no file matches no*.ndjson\n"
    assert "Missing option '--input'" in refused(sandbox, command, relay("teak"))


def test_outputs_that_cannot_be_written_are_found_before_anything_is_sent(
    relay: Relay, events: Path, sandbox: Running
) -> None:
    run = ("run", relay("teak"), "--input", events)
    assert refused(sandbox, *run, "--report", ".") == ".: is a folder; expected a file for the report\n"
    remedy = f"{events}: is a file; expected a folder that can be written to\n"
    assert refused(sandbox, *run, "--report", events / "report.json") == remedy
    assert refused(sandbox, *run, "--dead-letters", events) == remedy
    assert refused(sandbox, *run, "--dead-letters", "/proc/none/dead").startswith("/proc/none")
    assert events.read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time; expected 2026-11-24 or"),
        (("--until", "24.11.2026"), "--until: "),
        (("--limit", "0"), "'--limit'"),
        (("--max-rejected", "-1"), "'--max-rejected'"),
        (("--only", "teek"), "--only: teek is no destination; did you mean teak?"),
        (("--frobnicate",), "No such option"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], told: str, relay: Relay, events: Path, sandbox: Running) -> None:
    assert told in refused(sandbox, "run", relay("teak"), "--input", events, *arguments)


def test_what_a_relay_file_holds_does_not_act_on_the_terminal(sandbox: Running) -> None:
    Path("relay.yaml").write_text('source: {preset: canonical}\ndestinations: {"te\\e[2Jak": {credentials: {}}}\n')
    shown = refused(sandbox, "check", "relay.yaml")
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pipelines.cli import run_main
run_main(sys.argv[1:])
"""


@pytest.mark.parametrize("setting", ["TMPDIR", "--state"])
def test_a_disk_that_takes_no_more(setting: str, relay: Relay, tmp_path: Path) -> None:
    events = tmp_path / "many.ndjson"
    events.write_text(EVENT * 5000, encoding="utf-8")
    command: list[str | Path] = [sys.executable, "-c", LIMITED, "run", relay("teak"), "--input", events, "--quiet"]
    if setting == "--state":
        command += ["--state", tmp_path / "state"]
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    folder = tmp_path / "state" / "segments" if setting == "--state" else r"\S*/playrelay-\w+"
    assert re.fullmatch(
        rf"{folder}/\S+\.segment: File too large; items wait there for their vendor: make room, or set {setting} to"
        r" another folder\n",
        done.stderr,
    )
    assert list(tmp_path.glob("playrelay-[!0]*")) == []
