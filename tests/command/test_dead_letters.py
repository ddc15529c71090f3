"""playrelay dead-letters: what is open, by cause, on any terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CONTROL, call, on_terminal

from sandbox.server import Running
from transforms.dead_letter import REJECTED, UNDELIVERED, DeadLetterWriter, Failed
from transforms.letter_marks import Marks, key_of
from transforms.letters import read_letters
from transforms.sources.formats import Layout


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """812 letters of users that are not known, 3 of a vendor that is down, 2 odd ones."""
    folder = tmp_path / "dead"
    out = DeadLetterWriter(str(folder), {"teak": "teak", "swrve": "swrve"}, {}, Layout())
    out.write("teak", [
        Failed(REJECTED, "user_id could not be found", "events.jsonl", n, "event", f"u{n}", status=200, line=n + 1,
               original=b'{"n":%d}' % n, format="json", payload=b"{}")
        for n in range(812)
    ])  # fmt: skip
    out.write("teak", [
        Failed(UNDELIVERED, "HTTP 503; not taken within the 5 s of `retry: for`", "s", n, "event", original=b"{}", format="json")
        for n in range(3)
    ])  # fmt: skip
    odd = "\x1b[2J\u202e\0 event {} is odd"
    out.write("swrve", [
        Failed(REJECTED, odd.format(n), "caf\udce9\x1b[31m.jsonl", n, "event", f"u{n}", status=400,
               original=b"\x1b]0;title\x07\xff", format="json")
        for n in range(2)
    ])  # fmt: skip
    return folder


def test_groups_with_example_and_remedy(dead: Path) -> None:
    shown = call("dead-letters", dead)
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    assert text.startswith(f"817 open dead letters in {dead} destination model letters")
    assert 'teak event 812 rejected: user_id could not be found example: events.jsonl, line 1 {"n":0} remedy:' in text
    assert f"playrelay replay RELAY --from {dead} --only teak" in text
    assert "teak event 3 undelivered: HTTP 503" in text
    assert "swrve event 2 rejected:" in text and "# is odd" in text
    assert text.index("swrve event 2") < text.index("teak event 812") < text.index("teak event 3 ")
    assert shown.stderr == ""


def test_nothing_acts_on_the_terminal(dead: Path) -> None:
    (dead / "foreign\x1b[31m.jsonl").write_bytes(b'{"\x1b[2J":\x1b}\n')
    shown = call("dead-letters", dead)
    assert not CONTROL.search(shown.stdout + shown.stderr)
    assert "\\x1b[#\\u202e" in shown.stdout
    assert not CONTROL.search(call("dead-letters", dead, "--json").stdout)
    narrow = on_terminal("dead-letters", dead, columns=70)
    assert "\x1b[2J" not in narrow and "\x1b]0" not in narrow and "812" in narrow


def test_only_some_destinations_and_json(dead: Path) -> None:
    found = json.loads(call("dead-letters", dead, "--json", "--only", "teak").stdout)
    assert (found["open"], found["replayed"], found["skipped"]) == (815, {}, 0)
    many, few = found["groups"]
    assert many["example"]["source"] == "events.jsonl, line 1" and len(many["example"]["id"]) == 32
    assert {key: many[key] for key in ("destination", "model", "outcome", "reason", "letters", "failures")} == {
        "destination": "teak",
        "model": "event",
        "outcome": "rejected",
        "reason": "user_id could not be found",
        "letters": 812,
        "failures": 1,
    }
    assert few["letters"] == 3
    assert call("dead-letters", dead, "--only", "none").stdout == f"0 open dead letters in {dead}\n"


def test_what_was_replayed_is_counted_and_left_out(dead: Path) -> None:
    marks = Marks(str(dead))
    letters = [one for one in read_letters(str(dead)) if one.destination == "teak"]
    marks.mark(map(key_of, letters[:300]), "delivered")
    marks.mark(map(key_of, letters[300:310]), "failed again")
    marks.close()
    lines = call("dead-letters", dead).stdout.splitlines()
    assert lines[:2] == [f"507 open dead letters in {dead}", "310 were replayed before: 300 delivered, 10 failed again"]
    assert json.loads(call("dead-letters", dead, "--json").stdout)["replayed"] == {"delivered": 300, "failed again": 10}


def test_one_file_of_a_folder(dead: Path) -> None:
    file = dead / "undelivered-teak-000001.jsonl"
    assert call("dead-letters", file).stdout.startswith(f"3 open dead letters in {file}\n")
    marks = Marks(str(dead))
    marks.mark(map(key_of, read_letters(str(file))), "replayed")
    marks.close()
    assert call("dead-letters", file).stdout == f"0 open dead letters in {file}\n3 were replayed before\n"


def test_lines_that_are_no_letters_are_counted(dead: Path) -> None:
    (dead / "foreign.jsonl").write_text('{"a":1}\n' * 9)
    shown = call("dead-letters", dead)
    assert shown.exit_code == 0
    lines = shown.stderr.splitlines()
    assert len(lines) == 6 and lines[0].startswith(f"{dead}/foreign.jsonl:1: no dead letter: ")
    assert lines[-1] == "… and 4 more lines that are no dead letters"
    assert json.loads(call("dead-letters", dead, "--json").stdout)["skipped"] == 9


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("none", "none: No such file or directory; expected a folder of dead letters"),
        ("projects/p/topics/t", "a topic"),
    ],
)
def test_places_without_letters(location: str, says: str) -> None:
    shown = call("dead-letters", location)
    assert shown.exit_code == 2 and says in shown.stderr


def test_letters_of_a_run(relay: Callable[..., Path], events: Path, tmp_path: Path, sandbox: Running) -> None:
    """From the command that writes them to the one that shows them."""
    call("run", relay("teak"), "--input", events, "--dead-letters", tmp_path / "dead")
    found = json.loads(call("dead-letters", tmp_path / "dead", "--json").stdout)
    (group,) = found["groups"]
    assert (group["destination"], group["model"], group["letters"]) == ("teak", None, 1)
    assert group["reason"].startswith("undecodable: event_type") and "source.schema" in group["remedy"]
    assert group["example"]["source"] == f"{events}, line 3"
