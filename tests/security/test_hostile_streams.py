"""Ids, names and values that no one would send on purpose, in the streaming job and in other forms of input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import fastavro
import pytest
from commands import CONTROL, call, relay_file
from test_hostile_input import RECORDS, TEXTS, VENDORS, record
from test_pipeline import Messages, plan_of
from test_pipeline import relay as relayed

from sandbox.server import Running

TIMES = {
    "the largest": 2**63 - 1,
    "the smallest": -(2**63),
    "in nanoseconds": 10**18,
    "the last that Beam knows": 9_223_371_950_454_775,
    "in the year 9999": 253_402_300_799_999,
    "in the year 1": -62_135_596_800_000,
}
MESSAGES = {**RECORDS, **{f"time {name}": record(event_timestamp=time) for name, time in TIMES.items()}}


@pytest.mark.parametrize("window", [None, "1m"])
def test_in_the_streaming_job(window: str | None, tmp_path: Path, sandbox: Running) -> None:
    """Each is at each vendor, or a dead letter with its bytes, and what comes after it is not kept."""
    batch = {"age": "1s"} if window is None else {"age": "1s", "window": window}
    script = Messages().published(*MESSAGES.values())
    script.published(record(user_id="after")).passes(2, 12)
    letters = relayed(script, plan_of(tmp_path, sandbox.url, batch=batch), tmp_path / "letters")
    for slug in VENDORS:
        taken = sandbox.items(slug)
        own = [letter for letter in letters if letter["destination"] == slug]
        assert "after" in {item["user"] for item in taken}
        bad = {int(letter["source"]["message"]["id"][1:]): letter for letter in own}
        assert len(bad) == len(own)
        assert len(taken) + len(own) == len(MESSAGES) + 1
        for number, (name, data) in enumerate(MESSAGES.items()):
            if number in bad:
                original = bad[number]["original"]
                assert original is None or isinstance(original, dict) or original.encode() == data
            elif name.startswith("user: "):
                assert TEXTS[name[6:]] in {item["user"] for item in taken}, "it arrived as something else"
    assert sandbox.violations() == []


EVENTS = [{"event_type": "spin", "event_timestamp": 1_764_000_000_000, "user_id": text} for text in TEXTS.values()] + [
    {"event_type": text, "event_timestamp": 1_764_000_000_000, "user_id": "u1"} for text in TEXTS.values()
]


def as_csv() -> bytes:
    file = io.StringIO(newline="")
    to = csv.DictWriter(file, list(EVENTS[0]), lineterminator="\n")
    to.writeheader()
    to.writerows(EVENTS)
    return file.getvalue().encode()


def as_avro() -> bytes:
    file = io.BytesIO()
    kinds = {"event_type": "string", "event_timestamp": "long", "user_id": "string"}
    schema = {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in kinds.items()]}
    fastavro.writer(file, fastavro.parse_schema(schema), EVENTS)
    return file.getvalue()


@pytest.mark.parametrize(("name", "written"), [("e.csv", as_csv), ("e.avro", as_avro)])
def test_in_other_files(name: str, written: Callable[[], bytes], tmp_path: Path, sandbox: Running) -> None:
    relay, dead, report = (tmp_path / part for part in ("relay.yaml", "dead", "report.json"))
    (tmp_path / name).write_bytes(written())
    relay.write_text(relay_file(VENDORS, sandbox.url), encoding="utf-8")
    result = call("run", relay, "--input", tmp_path / name, "--dead-letters", dead, "--report", report)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output.replace("\n", ""))
    told = json.loads(report.read_text("utf-8"))
    assert (told["records"]["read"], told["balanced"]) == (len(EVENTS), True)
    letters = [json.loads(line) for path in dead.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    for slug in VENDORS:
        one = told["destinations"][slug]
        own = [letter for letter in letters if letter["destination"] == slug]
        assert one["delivered"] + one["filtered"] + one["rejected"] == len(EVENTS)
        assert len(own) == one["rejected"]
        users = {item["user"] for item in sandbox.items(slug)}
        missing = [text for text in TEXTS.values() if text not in users]
        assert users <= {"u1", *TEXTS.values()}, "it arrived as something else"
        assert len(missing) <= one["rejected"]
    assert sandbox.violations() == []
