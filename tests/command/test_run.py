"""`playrelay run`: exit codes, the report, what is shown."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CONTROL, EVENT, call, on_terminal, process

from sandbox.server import Running
from transforms.report import Report, Totals
from transforms.tally import Tally

Relay = Callable[..., Path]
ALL = ("12traits", "traitly", "parcelvoy", "swrve", "teak")


def test_all_accounted_for(relay: Relay, events: Path, tmp_path: Path, sandbox: Running) -> None:
    letters, report = tmp_path / "dead", tmp_path / "new" / "report.json"
    result = call("run", relay(*ALL), "--input", events, "--dead-letters", letters, "--report", report)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("3 records read in ")
    assert "the sums add up" in result.stdout
    assert f"dead letters: {letters}" in result.stdout
    assert {view["accepted"] for view in sandbox.received()["vendors"].values()} <= {1, 2}
    assert not sandbox.violations()
    lines = [json.loads(line) for file in letters.glob("*.jsonl") for line in file.read_text().splitlines()]
    undecodable = [one for one in lines if one["model"] is None]
    assert sorted(one["destination"] for one in undecodable) == sorted(ALL)
    assert {one["original"] for one in undecodable} == {'{"event_type":7}'}


def test_the_reports_shape(relay: Relay, events: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    call("run", relay("teak", "swrve"), "--input", events, "--report", file)
    report = json.loads(file.read_text())
    assert set(report) == {"records", "destinations", "seconds", "balanced"}
    assert report["records"] == {"read": 3, "undecodable": 1}
    assert report["balanced"] is True
    assert 0 < report["seconds"] < 60
    assert list(report["destinations"]) == ["teak", "swrve"]
    for total in report["destinations"].values():
        assert {
            "mapped", "filtered", "delivered", "rejected", "undelivered", "requests", "retries", "bytes", "latency_ms", "reasons",
        } <= set(total)  # fmt: skip
        assert set(total["latency_ms"]) == {"p50", "p99"}
        assert total["filtered"] + total["delivered"] + total["rejected"] + total["undelivered"] == 3
        assert (total["filtered"], total["delivered"], total["rejected"], total["undelivered"]) == (1, 1, 1, 0)
        assert (total["requests"], total["retries"]) == (1, 0)
        assert total["bytes"] > 50
        assert total["latency_ms"]["p99"] >= total["latency_ms"]["p50"] > 0
        assert len(total["reasons"]) == 2
        assert total["reasons"]["no model takes kpi"] == 1


def test_undelivered_is_3_and_kept(relay: Relay, events: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # nothing listens once it is closed
        port = taken.getsockname()[1]
    letters = tmp_path / "dead"
    down = relay("teak: {retry: {for: 0}}", url=f"http://127.0.0.1:{port}")
    result = call("run", down, "--input", events, "--dead-letters", letters)
    assert result.exit_code == 3
    assert "teak stopped: network: " in result.stdout
    assert "the sums add up" in result.stdout
    (file,) = letters.glob("undelivered-*")
    assert json.loads(file.read_text())["payload"] == {"user_id": "u1", "action_type": "spin"}


def test_a_wrong_credential_stops_its_destination_only(relay: Relay, events: Path, sandbox: Running) -> None:
    path = relay("teak", "parcelvoy")
    path.write_text(path.read_text().replace("pk_sandbox", "pk_other"))
    result = call("run", path, "--input", events)
    assert result.exit_code == 3
    assert re.search(
        r"parcelvoy stopped: .*check destinations\.parcelvoy\.credentials\.api_key in the relay file", result.stdout
    )
    assert sandbox.received()["vendors"]["teak"]["accepted"] == 1
    assert "pk_other" not in result.output
    assert "name a folder with --dead-letters" in result.stdout


@pytest.mark.parametrize(("allowed", "code"), [(0, 3), (1, 0)])
def test_max_rejected(allowed: int, code: int, relay: Relay, events: Path) -> None:
    assert call("run", relay("teak"), "--input", events, "--max-rejected", allowed, "--quiet").exit_code == code


def report(read: int, **counts: int) -> Report:
    tally = Tally(records=read, touched=read, mapped=read, filtered={})
    tally.delivered = counts.get("taken", read)
    tally.rejected, tally.undelivered = counts.get("rejected", 0), counts.get("undelivered", 0)
    return Report({"teak": Totals(tally, tally.rejected, tally.undelivered)}, counts.get("total", read), 1.0)


def test_exit_codes_of_reports() -> None:
    assert report(5).exit_code() == 0
    assert report(5, taken=4, rejected=1).exit_code() == 0
    assert report(5, taken=4, rejected=1).exit_code(max_rejected=1) == 0
    assert report(5, taken=4, rejected=1).exit_code(max_rejected=0) == 3
    assert report(5, taken=4, undelivered=1).exit_code() == 3
    assert report(5, taken=4).exit_code() == 4, "an item has no outcome"
    assert report(5, taken=5, rejected=1).exit_code() == 4, "an item has two outcomes"
    assert report(5, total=6).exit_code() == 4, "a record never reached the destination"
    assert report(5, taken=4, undelivered=0).as_json()["balanced"] is False
    assert report(5, taken=3, undelivered=1).exit_code() == 4, "4 tells more than 3"


def test_sums_that_do_not_add_up_are_said_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.display import show_report

    show_report(report(5, taken=4), None)
    assert "THE SUMS DO NOT ADD UP" in capsys.readouterr().out


def test_selection(relay: Relay, tmp_path: Path, sandbox: Running) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text("".join(EVENT.replace("1700000000000", str(at)) for at in (1_600_000_000_000, 1_700_000_000_000)))
    out = tmp_path / "report.json"
    run = ("run", relay("teak", "traitly"), "--input", source, "--report", out, "--quiet")
    call(*run, "--since", "2021-01-01", "--only", "traitly")
    total = json.loads(out.read_text())["destinations"]
    assert set(total) == {"traitly"}
    assert (total["traitly"]["filtered"], total["traitly"]["delivered"]) == (1, 1)
    call(*run, "--until", "2021-01-01T00:00:00Z", "--only", "traitly")
    assert [one["item"]["created_at"] for one in sandbox.items("traitly")] == [1_700_000_000, 1_600_000_000]
    call(*run, "--limit", 1)
    assert json.loads(out.read_text())["records"]["read"] == 1


def test_quiet(relay: Relay, events: Path) -> None:
    result = call("run", relay("teak"), "--input", events, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_several_inputs_and_globs(relay: Relay, tmp_path: Path, sandbox: Running) -> None:
    for name in ("a.ndjson", "b.ndjson", "c.ndjson"):
        (tmp_path / name).write_text(EVENT)
    call("run", relay("teak"), "--input", tmp_path / "[ab].ndjson", tmp_path / "c.ndjson", "--quiet")
    assert sandbox.received()["vendors"]["teak"]["accepted"] == 3


HOSTILE = "bad\x1b[31m\x07\u202e\x9b2Jname"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A record whose event type would act on a terminal, and whose outcome repeats it."""
    path = tmp_path / "hostile.ndjson"
    kind = json.dumps(HOSTILE, ensure_ascii=False).replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
    path.write_text(EVENT.replace('"spin"', kind), encoding="utf-8")
    return path


def test_data_does_not_act_on_the_terminal(relay: Relay, hostile: Path) -> None:
    shown = on_terminal(
        "run", relay("teak: {map: {event: {when: {event_type: spin}}}}"), "--input", hostile, columns=100
    )
    assert r"no model takes bad\x1b[31m\x07\u202e\x9b2Jname" in shown
    left = re.sub(r"\x1b\[(\d+(;\d+)*m|\?25[lh]|\d*[AK])", "", shown)  # what rich itself writes: styles, cursor, lines
    assert not CONTROL.search(left.replace("\r", ""))


def test_no_terminal_gets_no_control_sequences(relay: Relay, hostile: Path) -> None:
    path = relay("teak: {map: {event: {when: {event_type: spin}}}}")
    done = process("run", path, "--input", hostile, FORCE_COLOR="1", CLICOLOR_FORCE="1", COLUMNS="40")
    assert done.returncode == 0
    assert not CONTROL.search(done.stdout + done.stderr)
    assert "delivered  rejected  undelivered" in done.stdout, "120 columns, whatever the environment says"


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_and_holds_all_figures(columns: int, relay: Relay, events: Path) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal("run", relay(*ALL), "--input", events, columns=columns))
    assert "…" not in shown
    table = shown[shown.index("records read in") : shown.index("the sums add up")].replace("\r", "")
    assert all(len(line.rstrip()) <= columns for line in table.splitlines())
    words = table.split()
    for word in (*ALL, "filtered", "delivered", "rejected", "undelivered", "requests", "retries", "p50", "p99"):
        assert word in words
    assert "undecodable: event_type: expected text, got whole number" in " ".join(words)
