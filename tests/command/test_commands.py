"""check, preview, init and sandbox."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CONTROL, ENVIRONMENT, EVENT, call

from pipelines.relay_file import load
from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms import presets, vendors

Relay = Callable[..., Path]
ALL = vendors.slugs()


def test_check(relay: Relay) -> None:
    result = call("check", relay(*ALL))
    assert (result.exit_code, result.stderr) == (0, "")
    for slug in ALL:
        assert re.search(rf"^{slug} .* [0-9a-f]{{12}}", result.stdout, re.MULTILINE)
    assert "by user, 10,000 items" in result.stdout
    assert "one item a request" in result.stdout


def test_check_explain_prints_python(relay: Relay) -> None:
    result = call("check", relay(*ALL), "--explain")
    assert result.exit_code == 0
    code = compile(result.stdout, "explained", "exec")
    assert sum("map_chunk" in name or "def" in name for name in code.co_names) or "def " in result.stdout
    only = call("check", relay(*ALL), "--explain", "--only", "teak").stdout
    assert only in result.stdout
    assert "action_type" in only
    assert "customer_id" not in only


def test_warnings_are_said_once_for_all_keys(relay: Relay) -> None:
    path = relay("teak", "12traits", "parcelvoy", url="https://sandbox.example")
    warnings = call("check", path).stderr.splitlines()
    assert len(warnings) == 1
    assert "destinations.teak.credentials.secret_key: a secret stands in the file" in warnings[0]
    assert "destinations.12traits.credentials.api_key (line " in warnings[0]
    assert "destinations.parcelvoy" in warnings[0]


RECORDS = [
    '{"event_type":"level_up","event_timestamp":1700000000000,"user_id":"u1","event_data":{"level":2}}',
    '{"event_type":"identify","event_timestamp":1700000001000,"user_id":"u2@example.com","name":"\\u009b2J"}',
    '{"event_type":"device","event_timestamp":1700000002000,"user_id":"u3","device_id":"d"}',
    '{"event_type":7}',
    EVENT.strip(),
    '{"event_type":"beyond","event_timestamp":1700000003000,"user_id":"u1"}',
]


def test_preview(relay: Relay, tmp_path: Path, sandbox: Running) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text("\n".join(RECORDS) + "\n", encoding="utf-8")
    result = call("preview", relay(*ALL), "--input", source)
    assert (result.exit_code, result.stderr) == (0, "")
    shown = result.stdout
    assert sum(view["requests"] for view in sandbox.received()["vendors"].values()) == 0, "nothing is sent"
    for slug in ALL:
        assert re.search(rf"^  {slug}: POST {sandbox.url}/{slug}/\S+$", shown, re.MULTILINE)
        for credential in vendors.get(slug).credentials:
            value = RELAY_FILE[slug].get(credential.name)
            if value is not None:
                assert (value in shown) != credential.secret or value == "1000", f"{slug} {credential.name}"
    assert "Authorization: Bearer ***" in shown
    assert '"secret_key": "***"' in shown
    first, second, third, fourth, fifth, _ = shown.split("\n\n")
    assert '"level_ups": [' in first
    assert RECORDS[0] in first
    assert "traitly: filtered: no name, email or plan" in second
    assert "swrve: rejected: user: user_id is an e-mail address" in second
    assert "parcelvoy: rejected: device." in third
    assert "teak: filtered: no model takes device" in third
    assert "undecodable: event_type: expected text" in fourth
    assert "line 4" in fourth
    assert '"action_type": "spin"' in fifth
    assert "beyond" not in shown, "five records unless -n says otherwise"
    assert not CONTROL.search(shown)


def test_preview_tells_of_a_file_without_lines(relay: Relay, tmp_path: Path) -> None:
    source = tmp_path / "events.avro"
    source.write_bytes(b"no container")
    shown = call("preview", relay("teak"), "--input", source).stdout
    assert shown.startswith(f"record {source}: undecodable: {source}, byte 0: not an Avro container")


def test_preview_needs_no_credentials(relay: Relay, tmp_path: Path) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text(EVENT * 3)
    path = relay("teak: {credentials: {game_id: g, secret_key: 'env:NO_SUCH_VARIABLE'}}", "traitly")
    result = call("preview", path, "--input", source, "-n", 1, "--only", "teak")
    assert result.exit_code == 0
    assert (result.stdout.count("POST "), result.stdout.count("record ")) == (1, 1)


def test_a_reader_that_goes_away_is_no_error(relay: Relay, tmp_path: Path) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text(EVENT * 2000)
    command = shlex.join(
        [sys.executable, "-m", "pipelines.cli", "preview", str(relay("teak")), "--input", str(source), "-n", "2000"]
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"record {source}, 1 of the chunk at byte 0:\n", "")


@pytest.mark.parametrize(
    "chosen", [(), *[(slug,) for slug in ALL], ("teak", "swrve")], ids=lambda chosen: "+".join(chosen) or "all"
)
@pytest.mark.parametrize("preset", presets.names())
def test_init_gives_a_file_that_passes_check(chosen: tuple[str, ...], preset: str, tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    result = call("init", *chosen, "--preset", preset, "-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"playrelay check {path}" in result.stderr
    checked = call("check", path)
    assert checked.exit_code == 0, checked.output
    assert tuple(load(path).destinations) == (chosen or ALL)
    text = path.read_text(encoding="utf-8")
    assert call("init", *chosen, "--preset", preset).stdout == text
    assert all(name in text for slug in chosen for name in (option.name for option in vendors.get(slug).options))


def test_what_init_comments_out_can_be_taken_in(tmp_path: Path) -> None:
    """Each commented key is one that a relay file takes: `# send: batch  # what it is`."""
    path = tmp_path / "relay.yaml"
    text = call("init").stdout
    commented = re.findall(r"^ +# (\w+): (.*?)(?:  # .*)?$", text, re.MULTILINE)
    assert {"models", "send", "region", "unlinked_word", "identity_secret_key"} <= {key for key, _ in commented}
    options = {option.name for slug in ALL for option in vendors.get(slug).options}
    keys = "|".join(["models", *options])
    path.write_text(re.sub(rf"^( +)# ((?:{keys}): )", r"\1\2", text, flags=re.MULTILINE), encoding="utf-8")
    checked = call("check", path)
    assert checked.exit_code == 0, checked.output
    for line in re.findall(rf"^ +# (?:{keys}): .*$", text, re.MULTILINE):
        path.write_text(text.replace(line, line.replace("# ", "", 1)), encoding="utf-8")
        assert call("check", path).exit_code == 0, line


def test_init_overwrites_nothing_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text("mine")
    result = call("init", "teak", "-o", path)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    assert call("init", "teak", "-o", path, "--force").exit_code == 0
    assert path.read_text() != "mine"


def test_init_tells_wrong_names(tmp_path: Path) -> None:
    result = call("init", "taek", "--preset", "playfap")
    assert result.exit_code == 2
    assert "taek: no such vendor; did you mean teak?" in result.stderr
    assert "playfap: no such preset; did you mean playfab?" in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_sandbox_starts_answers_and_stops(stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "sandbox", "--port", "0"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:\d+", running.stdout.readline())
        assert said is not None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{said[0]}/_sandbox/received", timeout=30) as answer:
            assert answer.status == 200
            assert b'"vendors"' in answer.read()
        os.kill(running.pid, stop)
        running.wait(20)
        assert "Traceback" not in running.stderr.read()
    assert running.returncode in (0, -stop, 128 + stop)


def test_a_port_that_is_taken_is_said(running: Running) -> None:
    result = call("sandbox", "--port", running.url.rpartition(":")[2])
    assert result.exit_code == 2
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr
