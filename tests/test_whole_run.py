"""Whole runs, as a user starts them: files in, five vendors' sandboxes out, and every record accounted for."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli import main
from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.vendors import get, slugs

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "templates/demo/aws_game_analytics.ndjson"
VENDORS = slugs()
PARTS = ("filtered", "delivered", "rejected", "undelivered")


@pytest.fixture
def sandbox(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A sandbox to which nothing has been sent, its credentials in the environment."""
    running.reset()
    for name, value in secrets().items():
        monkeypatch.setenv(name, value)
    return running


def variable(slug: str, key: str) -> str:
    return f"PLAYRELAY_TEST_{slug}_{key}".upper()


def secrets() -> dict[str, str]:
    """Environment variables with the sandbox's credentials."""
    return {variable(slug, key): value for slug, keys in RELAY_FILE.items() for key, value in keys.items()}


class Relayed(NamedTuple):
    code: int
    report: dict[str, Any]
    output: str
    letters: list[dict[str, Any]]

    def of(self, name: str) -> dict[str, Any]:
        """A destination's part of the report."""
        found: dict[str, Any] = self.report["destinations"][name]
        return found


def relay_file(folder: Path, sandbox: Running, source: dict[str, Any], destinations: dict[str, Any]) -> Path:
    """A relay file whose destinations are at the sandbox, their credentials from the environment."""
    made = {}
    for name, more in destinations.items():
        slug = more.get("vendor", name)
        public = {one.name for one in get(slug).credentials if not one.secret}
        keys = {
            key: value if key in public else f"env:{variable(slug, key)}" for key, value in RELAY_FILE[slug].items()
        }
        made[name] = {"credentials": keys, "url": f"{sandbox.url}/{slug}", **more}
    path = folder / "relay.yaml"
    path.write_text(yaml.safe_dump({"source": source, "destinations": made}))
    return path


def run(
    folder: Path,
    sandbox: Running,
    inputs: Path | str,
    *options: str,
    preset: str = "canonical",
    **destinations: Any,
) -> Relayed:
    """`playrelay run` in this process, to all five vendors unless `destinations` says which."""
    relay = relay_file(folder, sandbox, {"preset": preset}, destinations or {slug: {} for slug in VENDORS})
    report, dead = folder / "report.json", folder / "dead"
    command = ["run", str(relay), "--input", str(inputs), "--report", str(report), "--dead-letters", str(dead)]
    done = CliRunner().invoke(main, [*command, *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    written = json.loads(report.read_text()) if report.exists() else {}
    letters = [json.loads(line) for file in sorted(dead.glob("*")) for line in file.read_bytes().splitlines()]
    return Relayed(done.exit_code, written, done.output, letters)


def events(count: int, users: int = 20) -> list[bytes]:
    """Canonical events, 1 s apart, that every vendor has a model for."""
    return [
        json.dumps(
            {
                "event_id": f"e{n}",
                "event_type": "level_up",
                "event_timestamp": 1_764_000_000_000 + 1000 * n,
                "user_id": f"u{n % users}",
                "event_data": {"level": n + 1},
            }
        ).encode()
        for n in range(count)
    ]


def write(folder: Path, records: list[bytes]) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(records) + b"\n")
    return path


def check_sums(done: Relayed, sandbox: Running, *, duplicates: bool = False, lost: bool = False) -> None:
    """Every record has one outcome at each destination, and the vendors took what is said to be delivered.

    duplicates: some answers were lost on their way. lost: of what is undelivered, something may have arrived.
    """
    assert done.report["balanced"] is True
    read = done.report["records"]["read"]
    for name, one in done.report["destinations"].items():
        assert sum(one[part] for part in PARTS) == read, name
        assert one["mapped"] == read - one["filtered"]
        assert one["items"]["mapped"] == sum(one["items"][part] for part in PARTS[1:])
        accepted = sandbox.received(vendor=name)["vendors"][name]["accepted"]
        delivered = one["items"]["delivered"]
        assert accepted == delivered or (accepted > delivered and (duplicates or lost)), name
    lettered = {(letter["destination"], *letter["source"].values()) for letter in done.letters}
    records = Counter(destination for destination, *_ in lettered)
    for name, one in done.report["destinations"].items():
        assert records[name] == one["rejected"] + one["undelivered"]
    assert all(vendor["overlaps"] == 0 for vendor in sandbox.received()["vendors"].values())


def test_the_sample_arrives_at_all_five(tmp_path: Path, sandbox: Running) -> None:
    done = run(tmp_path, sandbox, SAMPLE, preset="aws-game-analytics")
    assert done.code == 0, done.output
    assert done.report["records"] == {"read": 5000, "undecodable": 0}
    assert set(done.report["destinations"]) == set(VENDORS)
    check_sums(done, sandbox)
    assert all(done.of(slug)["delivered"] == 5000 for slug in VENDORS)
    assert sandbox.violations() == []
    assert done.letters == []
    for value in secrets().values():
        assert value not in done.output.replace(str(tmp_path), "") or value in ("1000", RELAY_FILE["teak"]["game_id"])


def test_every_fault_at_every_vendor(tmp_path: Path, sandbox: Running) -> None:
    faults: list[dict[str, Any]] = [{"status": status} for status in (408, 500, 502, 503, 504)]
    faults += [{"retry_after": 1}, {"retry_after": "date+1"}, {"reset": "before"}, {"reset": "after"}, {"drop": True}]
    faults += [{"truncate": 5}, {"status": 200, "body": "<html>", "content_type": "text/html"}, {"delay_s": 0.1}]
    for slug in VENDORS:
        for number, fault in enumerate(faults):
            sandbox.fault(vendor=slug, after=2 + number, **fault)
    common = {"timeout": {"total": "700ms"}, "retry": {"for": "30s"}}
    to = {slug: common if slug == "traitly" else {"batch": {"items": 5}, **common} for slug in VENDORS}
    done = run(tmp_path, sandbox, write(tmp_path, events(300)), **to)
    assert done.code == 0, done.output
    check_sums(done, sandbox, duplicates=True)
    assert sandbox.violations() == []
    for slug in VENDORS:
        assert done.of(slug)["delivered"] == 300
        assert done.of(slug)["retries"] == len(faults) - 1, "a late answer is no reason to try again"
        assert done.of(slug)["requests"] == sandbox.received()["vendors"][slug]["requests"]
    assert all(fault["struck"] == 1 for fault in sandbox.faults())


@pytest.mark.parametrize("down", ["12traits", "teak"])
def test_a_vendor_that_is_down_stalls_no_other(tmp_path: Path, sandbox: Running, down: str) -> None:
    sandbox.fault(vendor=down, status=503, next=None)
    records = events(300)
    began = time.time()
    done = run(tmp_path, sandbox, write(tmp_path, records), **{slug: {"retry": {"for": "5s"}} for slug in VENDORS})
    ended = time.time()
    assert done.code == 3
    check_sums(done, sandbox)
    for slug in VENDORS:
        assert done.of(slug)["undelivered" if slug == down else "delivered"] == 300
    assert "HTTP 503" in done.of(down)["stopped"]
    assert ended - began >= 5, "the vendor was given up before its time"
    others = [one["at"] for slug in VENDORS if slug != down for one in sandbox.items(slug)]
    assert max(others) < ended - 0.4, "the others waited for the one that was down"
    kept = {letter["original"].encode() for letter in done.letters}
    assert kept == set(records)
    assert {letter["outcome"] for letter in done.letters} == {"undelivered"}
    assert down in done.output


@pytest.mark.parametrize("slug", ["swrve", "traitly"])
def test_a_wrong_key_is_named(tmp_path: Path, sandbox: Running, monkeypatch: pytest.MonkeyPatch, slug: str) -> None:
    secret = next(key.name for key in get(slug).credentials if key.secret)
    monkeypatch.setenv(variable(slug, secret), "sandbox-of-someone-else")
    done = run(tmp_path, sandbox, write(tmp_path, events(100)), **{slug: {}, "teak": {}})
    assert done.code == 3
    check_sums(done, sandbox)
    assert done.of(slug)["undelivered"] == 100
    assert "credentials" in done.of(slug)["stopped"]
    assert "credentials" in done.output
    assert "sandbox-of-someone-else" not in done.output + json.dumps([done.report, done.letters])
    assert sandbox.received(vendor=slug)["vendors"][slug]["requests"] <= 16


def test_bad_lines_among_good_ones(tmp_path: Path, sandbox: Running) -> None:
    records = events(50)
    bad = {3: b"no JSON", 10: b"\xff\xfe\x00", 11: b'{"event_type":5}', 30: b"[]", 49: b'{"event_type":"log'}
    for place, line in bad.items():
        records[place] = line
    done = run(tmp_path, sandbox, write(tmp_path, records))
    assert done.code == 0, done.output
    check_sums(done, sandbox)
    assert done.report["records"] == {"read": 50, "undecodable": 5}
    for slug in VENDORS:
        assert (done.of(slug)["delivered"], done.of(slug)["rejected"]) == (45, 5)
        own = [letter for letter in done.letters if letter["destination"] == slug]
        assert {letter["source"]["line"] - 1: original(letter) for letter in own} == bad
        assert all(letter["reason"].startswith("undecodable") for letter in own)


def original(letter: dict[str, Any]) -> bytes:
    text = letter["original"]
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else text.encode()


def test_max_rejected(tmp_path: Path, sandbox: Running) -> None:
    path = write(tmp_path, [*events(10), b"no JSON", b"nor this"])
    assert run(tmp_path, sandbox, path, "--max-rejected", "4", teak={}, swrve={}).code == 0
    assert run(tmp_path, sandbox, path, "--max-rejected", "3", teak={}, swrve={}).code == 3


def test_limit(tmp_path: Path, sandbox: Running) -> None:
    done = run(tmp_path, sandbox, write(tmp_path, [b"no JSON", *events(50)]), "--limit", "7", teak={}, traitly={})
    assert done.report["records"] == {"read": 7, "undecodable": 1}
    check_sums(done, sandbox)
    assert done.of("traitly")["delivered"] == 6


def test_since_and_until(tmp_path: Path, sandbox: Running) -> None:
    # 1,764,000,000 is 2025-11-24T16:00:00Z; the events are a second apart.
    span = ("--since", "2025-11-24T16:00:10Z", "--until", "2025-11-24T16:00:30Z")
    done = run(tmp_path, sandbox, write(tmp_path, events(50)), *span, teak={}, parcelvoy={})
    assert done.code == 0
    check_sums(done, sandbox)
    for name in ("teak", "parcelvoy"):
        assert (done.of(name)["delivered"], done.of(name)["filtered"]) == (20, 30)


def test_only(tmp_path: Path, sandbox: Running) -> None:
    done = run(tmp_path, sandbox, write(tmp_path, events(5)), "--only", "swrve", "--only", "teak")
    assert done.code == 0
    assert set(done.report["destinations"]) == {"swrve", "teak"}
    assert sandbox.received()["vendors"]["traitly"]["requests"] == 0
    assert run(tmp_path, sandbox, tmp_path / "events.jsonl", "--only", "swrv").code == 2


def test_windows(tmp_path: Path, sandbox: Running) -> None:
    done = run(tmp_path, sandbox, write(tmp_path, events(120)), parcelvoy={"shards": 1, "batch": {"window": "10s"}})
    assert done.code == 0, done.output
    check_sums(done, sandbox)
    requests: dict[int, set[int]] = {}
    for one in sandbox.items("parcelvoy"):
        requests.setdefault(one["request"], set()).add(one["order"])
    assert done.of("parcelvoy")["requests"] == len(requests) == 12
    assert {len(orders) for orders in requests.values()} == {10}


@pytest.mark.parametrize("timestamp", [-5, 0, 10**15, 2**62])
def test_a_clock_that_is_far_off_ends_no_run(tmp_path: Path, sandbox: Running, timestamp: int) -> None:
    records = events(10)
    records[4] = json.dumps({"event_type": "level_up", "event_timestamp": timestamp, "user_id": "u1"}).encode()
    window = {"batch": {"window": "1m"}}
    done = run(tmp_path, sandbox, write(tmp_path, records), parcelvoy=window, swrve=window, traitly={})
    assert done.code == 0, done.output
    check_sums(done, sandbox)
    assert done.of("parcelvoy")["delivered"] >= 9
    assert (done.of("swrve")["delivered"], done.of("swrve")["rejected"]) == (9, 1)


def test_no_file_matches(tmp_path: Path, sandbox: Running) -> None:
    done = run(tmp_path, sandbox, tmp_path / "*.nothing", teak={})
    assert done.code == 2
    assert "*.nothing" in done.output
    assert done.report == {}


def test_a_missing_secret_is_told_before_anything_is_sent(
    tmp_path: Path, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable("teak", "secret_key"))
    done = run(tmp_path, sandbox, write(tmp_path, events(5)))
    assert done.code == 2
    assert variable("teak", "secret_key") in done.output
    assert all(vendor["requests"] == 0 for vendor in sandbox.received()["vendors"].values())


# Processes of their own ----------------------------------------------------------------------------


def process(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a module as a user would type it, away from the network but for this machine."""
    environment = {**os.environ, **secrets(), "PYTHONPATH": str(ROOT)}
    # Whatever asks for something elsewhere asks a proxy that is not there.
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    environment["HOME"] = str(folder)
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """What two runs over the same input have in common."""
    return {
        "records": report["records"],
        "balanced": report["balanced"],
        **{
            name: {key: one[key] for key in ("mapped", *PARTS, "items", "reasons")}
            for name, one in report["destinations"].items()
        },
    }


def test_the_batch_job_says_what_the_command_says(tmp_path: Path, sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u3"])
    records = [*events(100), b"no JSON"]
    command = run(tmp_path, sandbox, write(tmp_path, records))
    assert command.of("teak")["rejected"] == 6
    assert len(command.letters) == 5 + 5
    sandbox.reset()
    sandbox.configure("teak", unknown_users=["u3"])
    done = process(
        "pipelines.backfill",
        "--runner=DirectRunner",
        f"--relay={tmp_path}/relay.yaml",
        f"--input={tmp_path}/events.jsonl",
        f"--dead_letters={tmp_path}/job",
        f"--report={tmp_path}/job.json",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ownload" not in done.stderr + done.stdout
    job = Relayed(
        0,
        json.loads((tmp_path / "job.json").read_text()),
        "",
        [json.loads(line) for file in (tmp_path / "job").iterdir() for line in file.read_bytes().splitlines()],
    )
    assert figures(job.report) == figures(command.report)
    check_sums(job, sandbox)
    same = sorted((letter["destination"], letter["reason"], original(letter)) for letter in job.letters)
    assert same == sorted((letter["destination"], letter["reason"], original(letter)) for letter in command.letters)
    assert sandbox.violations() == []
