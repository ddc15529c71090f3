"""What `playrelay replay` has taken up and not sent: it is told, and lost with no state folder."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from commands import call
from remote_folder import PREFIX
from replays import QUICK, Replays, write
from streams import events as numbered

from sandbox.server import Running
from transforms.letter_marks import NAME


@pytest.fixture
def replays(tmp_path: Path, sandbox: Running) -> Replays:
    """Ten letters that no vendor took."""
    made = Replays(tmp_path, sandbox, {"teak": QUICK})
    made.down(write(tmp_path / "in.jsonl", numbered(10)))
    return made


def take_up(replays: Replays, *options: object) -> None:
    """Letters are taken up while their vendor is down."""
    replays.sandbox.fault(vendor="teak", status=503, next=None)
    replays.replay(*options, code=3)
    replays.sandbox.clear_faults()
    assert replays.became == {"open": 0, "waits": 10}


def test_letters_that_wait_in_another_state_folder_are_told(tmp_path: Path, replays: Replays) -> None:
    own = tmp_path / "s1"
    take_up(replays, "--state", own)
    for options in ((), ("--reopen",)):  # the folder is there, so nothing is to be opened
        replays.replay(*options, code=3)
        assert f"note: 10 dead letters not sent, taken up in {own}: go on with --state {own}" in replays.output
    replays.replay("--dry-run")
    assert f"nothing to replay note: 10 dead letters not sent, taken up in {own}" in replays.output
    assert f"10 may wait to be sent in {own}" in call("dead-letters", replays.dead).output
    assert replays.became == {"open": 0, "waits": 10} and replays.numbers("teak") == []
    assert replays.replay("--state", own)["teak"]["delivered"] == 10
    replays.replay()
    assert replays.became == {"open": 0, "delivered": 10}
    assert sorted(replays.numbers("teak")) == list(range(10))


@pytest.mark.parametrize("state", [None, "s1"])
def test_a_state_folder_that_is_lost(tmp_path: Path, replays: Replays, state: str | None) -> None:
    """Also one in whose place another has come to stand."""
    own = replays.dead / ".replay" if state is None else tmp_path / state
    take_up(replays, *(() if state is None else ("--state", own)))
    shutil.rmtree(own)
    replays.replay(code=3)
    assert f"taken up in {own}: which is not there; if it is lost, --reopen sends them again" in replays.output
    assert replays.became == {"open": 0, "waits": 10} and replays.numbers("teak") == []
    replays.replay("--reopen", "--dry-run")
    assert "would replay 10 dead letters of teak event" in replays.output
    assert replays.replay("--reopen")["teak"]["delivered"] == 10
    replays.replay("--reopen")
    assert replays.became == {"open": 0, "delivered": 10}
    assert sorted(replays.numbers("teak")) == list(range(10))


def lose(replays: Replays, state: Path) -> tuple[list[str], Path]:
    """The state folder is lost, and so are the last six letters: their lines, and a file for them."""
    take_up(replays, "--state", state)
    shutil.rmtree(state)
    (file,) = replays.dead.glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4]))
    return lines[4:], file.with_name("other.jsonl")


def test_letters_that_are_gone_with_their_state_folder(tmp_path: Path, replays: Replays) -> None:
    """Nothing waits for them for ever, unless they turn up; those that were not chosen still wait."""
    lines, other = lose(replays, tmp_path / "s1")
    replays.replay("--reopen", "--reason", "no such reason", code=3)
    assert replays.became == {"open": 0, "gone": 6, "waits": 4} and replays.numbers("teak") == []
    assert replays.replay("--reopen")["teak"]["delivered"] == 4
    assert replays.became == {"open": 0, "delivered": 4, "gone": 6}
    replays.replay()
    assert len(replays.numbers("teak")) == 4
    other.write_text("".join(lines))
    assert replays.became == {"open": 6, "delivered": 4, "gone": 6}
    assert replays.replay()["teak"]["delivered"] == 6
    assert replays.became == {"open": 0, "delivered": 10}


def test_letters_in_a_file_that_cannot_be_read_are_not_taken_to_be_gone(tmp_path: Path, replays: Replays) -> None:
    lines, other = lose(replays, tmp_path / "s1")
    whole = gzip.compress("".join(lines).encode())
    archive = other.with_suffix(".jsonl.gz")
    archive.write_bytes(whole[: len(whole) // 2])
    delivered = replays.replay("--reopen", code=3)["teak"]["delivered"]
    assert 4 <= delivered < 10
    assert replays.became == {"open": 0, "delivered": delivered, "waits": 10 - delivered}
    archive.write_bytes(whole)
    assert replays.replay("--reopen")["teak"]["delivered"] == 10 - delivered
    assert replays.became == {"open": 0, "delivered": 10}


def test_letters_whose_records_were_relayed_anew_do_not_wait_for_ever(tmp_path: Path, replays: Replays) -> None:
    take_up(replays, "--state", tmp_path / "s1")
    shutil.rmtree(tmp_path / "s1")
    replays.down(tmp_path / "in.jsonl")
    assert replays.replay("--reopen")["teak"]["delivered"] == 10
    assert replays.became == {"open": 0, "delivered": 10, "gone": 10}
    replays.replay()
    assert sorted(replays.numbers("teak")) == list(range(10))


def test_letters_of_another_file_are_not_taken_to_be_gone(tmp_path: Path, replays: Replays) -> None:
    lines, other = lose(replays, tmp_path / "s1")
    other.write_text("".join(lines))
    assert replays.replay("--reopen", place=other, code=3)["teak"]["delivered"] == 6
    assert replays.became == {"open": 0, "delivered": 6, "waits": 4}


def test_the_state_of_a_folder_in_cloud_storage_is_where_the_command_ran(
    tmp_path: Path, replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{PREFIX}{replays.dead}"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    replays.sandbox.fault(vendor="teak", status=503, next=None)
    replays.replay(place=place, code=3)
    replays.sandbox.clear_faults()
    monkeypatch.chdir(tmp_path / "b")
    replays.replay(place=place, code=3)
    assert f"10 dead letters not sent, taken up in {tmp_path}/a/.playrelay/replay-" in replays.output
    monkeypatch.chdir(tmp_path / "a")
    assert replays.replay(place=place)["teak"]["delivered"] == 10
    found = json.loads(call("dead-letters", place, "--json").stdout)
    assert (found["open"], found["replayed"]) == (0, {"delivered": 10})
    assert sorted(replays.numbers("teak")) == list(range(10))


def test_nothing_failed_again_yet(tmp_path: Path, replays: Replays) -> None:
    """Where that is to go, in cloud storage, nothing is then."""
    (tmp_path / "again").mkdir()
    take_up(replays, "--dead-letters", f"{PREFIX}{tmp_path}/again")


def test_what_waits_for_a_destination_that_is_left_out(tmp_path: Path, replays: Replays) -> None:
    """By --only, or because the relay file has another name for it now."""
    take_up(replays)
    replays.mend({"teak": QUICK, "parcelvoy": QUICK})
    replays.replay("--only", "parcelvoy", code=3)
    told = f"note: 10 items for teak in {replays.dead}/.replay not sent:"
    assert f"{told} leave out --only" in replays.output
    replays.mend({"game": {"vendor": "teak", **QUICK}})
    replays.replay(code=3)
    assert f"{told} put teak into the relay file again" in replays.output
    assert replays.became == {"open": 0, "waits": 10}
    replays.mend({"teak": QUICK})
    assert replays.replay()["teak"]["delivered"] == 10
    assert replays.became == {"open": 0, "delivered": 10}


def test_a_record_that_fails_in_a_later_run_is_open(tmp_path: Path, replays: Replays) -> None:
    """Whatever became of it before: it was delivered, filtered, or failed again."""
    path, sandbox = tmp_path / "in.jsonl", replays.sandbox
    replays.replay()
    replays.down(path)
    assert replays.became == {"open": 10, "delivered": 10}
    replays.mend({"teak": {**QUICK, "map": {"event": {"when": {"event_type": "other"}}}}})
    assert replays.replay()["teak"]["filtered"] == 10
    replays.mend({"teak": QUICK})
    replays.down(path)
    assert replays.became == {"open": 10, "delivered": 10, "filtered": 10}
    sandbox.fault(vendor="teak", status=400, next=None)
    replays.replay()
    sandbox.clear_faults()
    replays.down(path)
    assert replays.became == {"open": 10, "delivered": 10, "filtered": 10, "failed again": 10}
    assert replays.replay()["teak"]["delivered"] == 10
    assert replays.became == {"open": 0, "delivered": 20, "filtered": 10, "failed again": 10}
    assert sorted(replays.numbers("teak")) == sorted([*range(10), *range(10)])


def test_a_record_that_fails_in_a_later_run_while_it_waits(tmp_path: Path, replays: Replays) -> None:
    """It is sent once, and then open."""
    take_up(replays)
    replays.down(tmp_path / "in.jsonl")
    assert replays.became == {"open": 0, "waits": 10}
    assert replays.replay()["teak"]["delivered"] == 10
    assert sorted(replays.numbers("teak")) == list(range(10))
    assert replays.became == {"open": 10, "delivered": 10}


# Errors ------------------------------------------------------------------------------------------


def test_marks_that_cannot_be_read(replays: Replays) -> None:
    (replays.dead / NAME).write_bytes(b"garbage" * 1_000)
    says = f"{replays.dead}/{NAME}: file is not a database; it says which dead letters were replayed: put back a copy"
    replays.replay(code=2)
    assert says in replays.output
    assert says in " ".join(call("dead-letters", replays.dead).output.split())


def test_a_state_folder_that_cannot_be_made(replays: Replays) -> None:
    (replays.dead / ".replay").write_text("x")
    replays.replay(code=2)
    assert f"{replays.dead}/.replay/segments: Not a directory; name a folder" in replays.output
    assert "with --state" in replays.output
    assert replays.became == {"open": 10}


def test_a_file_without_letters(tmp_path: Path, replays: Replays) -> None:
    """Nothing is made beside it."""
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "events.jsonl", numbered(3))
    for place in (path, path.parent):
        replays.replay(place=place, code=2)
        assert f"{path}:1: no dead letter: Object missing required field `id`; expected lines of JSON" in replays.output
        assert call("dead-letters", place).exit_code == 2
    assert list(path.parent.iterdir()) == [path]
