"""`playrelay run` and `preview` over message files: attributes of messages in the mapping."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call

from sandbox.server import Running
from transforms.sources.messages import Message, write_messages

Relay = Callable[..., Path]
NAMELESS = '{"event_type":"spin","event_timestamp":1700000000000}'
BY_ATTRIBUTE = "  preset: canonical\n  event: {user_id: $attributes.player, platform: $attributes.from}\n"


@pytest.fixture
def by_attribute(relay: Relay) -> Path:
    """A relay file that takes the user from the message."""
    path = relay("teak")
    path.write_text(path.read_text().replace("  preset: canonical\n", BY_ATTRIBUTE))
    return path


def users(sandbox: Running) -> list[str]:
    return sorted(one["user"] for one in sandbox.items("teak"))


def test_attributes_reach_the_mapping(by_attribute: Path, tmp_path: Path, sandbox: Running) -> None:
    line = NAMELESS.encode()
    several = b"[%b,7,%b]" % (line, line)
    write_messages(
        str(tmp_path / "slice"),
        "projects/p/subscriptions/s",
        [
            Message(line, {"player": "p1"}, "1"),
            Message(gzip.compress(several), {"player": "p2"}, "2"),
            Message(line, {}, "3"),
        ],
    )
    report = tmp_path / "report.json"
    result = call("run", by_attribute, "--input", tmp_path / "slice", "--report", report)
    assert result.exit_code == 0, result.output
    assert users(sandbox) == ["p1", "p2", "p2"]
    total = json.loads(report.read_text())["destinations"]["teak"]
    assert (total["delivered"], total["filtered"], total["rejected"]) == (3, 1, 1)
    shown = call("preview", by_attribute, "--input", tmp_path / "slice").stdout
    assert shown.count("p2") >= 2 and "filtered: no user" in shown and "undecodable" in shown


def test_plain_files_have_no_attributes(by_attribute: Path, tmp_path: Path, sandbox: Running) -> None:
    (tmp_path / "events.jsonl").write_text(NAMELESS + "\n")
    report = tmp_path / "report.json"
    result = call("run", by_attribute, "--input", tmp_path / "events.jsonl", "--report", report)
    assert result.exit_code == 0, result.output
    assert json.loads(report.read_text())["destinations"]["teak"]["filtered"] == 1
    assert users(sandbox) == []
    assert "no user" in call("preview", by_attribute, "--input", tmp_path / "events.jsonl").stdout
