"""`playrelay replay`, end to end: what failed is sent again once it is mended, and nothing twice."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from commands import CONTROL, call
from replays import KILLS, QUICK, SHARDS, Replays, check_once, write
from source_files import FORMATS
from streams import Command, Elsewhere, event, until
from streams import events as numbered
from test_message_kinds import KINDS, RECORDS

from sandbox.server import Running
from transforms.sources.messages import write_messages


def files(folder: Path) -> list[Path]:
    """The same records as each kind of file."""
    for name, written in FORMATS.items():
        (folder / name).write_bytes(written(RECORDS))
    return [folder / name for name in FORMATS]


def message_files(folder: Path) -> list[Path]:
    """The same records as messages of each kind."""
    paths = [folder / f"slice-{number}" for number in range(len(KINDS))]
    for path, messages in zip(paths, KINDS.values(), strict=True):
        write_messages(str(path), f"projects/p/subscriptions/{path.name}", messages)
    return paths


@pytest.mark.parametrize("made", [files, message_files])
def test_records_are_mapped_again_from_their_bytes(tmp_path: Path, sandbox: Running, made: Any) -> None:
    """Of every format and kind of message, their sources gone; a second time nothing is sent."""
    (tmp_path / "in").mkdir()
    replays = Replays(tmp_path, sandbox, {"12traits": QUICK, "parcelvoy": QUICK})
    inputs = made(tmp_path / "in")
    healthy = replays.run(*inputs, dead=tmp_path / "none")
    expected = {name: replays.taken(name) for name in healthy}
    items = {name: one["items"]["delivered"] for name, one in healthy.items()}
    assert all(one["mapped"] == one["delivered"] > 0 for one in healthy.values()), healthy
    sandbox.reset()
    replays.down(*inputs)
    assert replays.became == {"open": sum(items.values())}
    for path in inputs:
        path.unlink()
    done = replays.replay()
    for name in healthy:
        assert replays.taken(name) == expected[name]
        assert (done[name]["delivered"], done[name]["items"]["delivered"]) == (items[name], items[name])
    assert sandbox.violations() == []
    assert replays.became == {"open": 0, "delivered": sum(items.values())}
    before = replays.requests()
    again = replays.replay()
    assert all(one["mapped"] == 0 for one in again.values())
    assert replays.requests() == before


def test_only_the_model_that_failed_is_sent(tmp_path: Path, sandbox: Running) -> None:
    both = {"12traits": {**QUICK, "map": {"virtual_purchase": {"when": {"event_type": "purchase"}}}}}
    replays = Replays(tmp_path, sandbox, both)
    data = {"item_id": "sword", "amount": 5, "currency": "USD"}
    path = write(tmp_path / "in.jsonl", [event(n, event_type="purchase", event_data=data) for n in range(7)])
    sandbox.fault(vendor="12traits", path="/v1/games/virtual-purchases", status=400, next=None)
    done = replays.run(path)["12traits"]
    assert (done["items"]["delivered"], done["items"]["rejected"]) == (7, 7)
    assert {letter.model for letter in replays.letters} == {"virtual_purchase"}
    sandbox.clear_faults()
    assert replays.replay()["12traits"]["items"]["delivered"] == 7
    models = Counter(one["model"] for one in sandbox.items("12traits"))
    assert sorted(models.values()) == [7, 7] and len(models) == 2


def test_what_fails_again_keeps_its_first_reason_and_counts(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    path = write(tmp_path / "in.jsonl", numbered(20, users=4))
    replays.down(path)
    sandbox.configure("teak", unknown_users=["u1"])
    done = replays.replay()["teak"]
    assert (done["delivered"], done["rejected"]) == (15, 5)
    assert replays.became == {"open": 5, "delivered": 15, "failed again": 5}
    failed = [letter for letter in replays.letters if letter.failures == 2]
    assert len(failed) == 5
    for letter in failed:
        assert letter.first.reason.startswith("HTTP 503") and "could not be found" in letter.reason
        assert (letter.outcome, letter.source.name) == ("rejected", str(path))
        assert letter.source.line is not None
        assert letter.original == numbered(20, users=4)[letter.source.line - 1].decode()
    replays.replay()
    assert {letter.failures for letter in replays.letters if letter.user == "u1"} == {3}
    assert replays.became == {"open": 5, "delivered": 15, "failed again": 10}
    sandbox.configure("teak", unknown_users=[])
    assert replays.replay()["teak"]["delivered"] == 5
    assert replays.became == {"open": 0, "delivered": 20, "failed again": 10}
    assert sorted(replays.numbers("teak")) == list(range(20))


def test_only_reason_and_dry_run(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK, "parcelvoy": QUICK})
    path = write(tmp_path / "in.jsonl", numbered(12, users=4))
    sandbox.configure("teak", unknown_users=["u2"])
    replays.run(path)
    sandbox.configure("teak", unknown_users=[])
    replays.down(write(tmp_path / "more.jsonl", numbered(8, 12)))
    before = replays.requests()
    assert replays.replay("--dry-run") == {}
    assert "would replay 8 dead letters of parcelvoy event" in replays.output
    assert "would replay 11 dead letters of teak event" in replays.output
    replays.replay("--dry-run", "--only", "teak", "--reason", "could not .* found")
    assert replays.output == "would replay 3 dead letters of teak event"
    replays.replay("--dry-run", "--reason", "HTTP 404")
    assert replays.output == "nothing to replay"
    assert replays.requests() == before
    assert {path.suffix for path in replays.dead.iterdir()} == {".jsonl"}, "nothing is marked, no state is made"
    done = replays.replay("--only", "teak", "--reason", "could not .* found")
    assert list(done) == ["teak"] and done["teak"]["delivered"] == 3
    assert replays.became == {"open": 16, "delivered": 3}
    assert replays.replay("--only", "parcelvoy")["parcelvoy"]["delivered"] == 8
    assert replays.replay()["teak"]["delivered"] == 8
    assert sorted(replays.numbers("teak")) == sorted(replays.numbers("parcelvoy")) == list(range(20))


@pytest.mark.parametrize("batch", [{}, {"batch": {"window": "4s"}}], ids=["", "windows"])
def test_as_mapped_sends_what_was_mapped_before(tmp_path: Path, sandbox: Running, batch: Any) -> None:
    """Also of letters whose record is gone; not what a mapping of now would make of it."""
    to = {**QUICK, **batch}
    replays = Replays(tmp_path, sandbox, {"parcelvoy": to})
    path = write(tmp_path / "in.jsonl", numbered(20))
    replays.run(path, dead=tmp_path / "none")
    expected = replays.taken("parcelvoy")
    sandbox.reset()
    replays.down(path)
    replays.edit(original=None)
    replays.mend({"parcelvoy": {**to, "map": {"event": {"fields": {"name": "else"}}}}})
    replays.replay()
    assert "left as they are: 20 dead letters: it does not hold the original record" in replays.output
    assert "--as-mapped sends what was mapped" in replays.output
    sandbox.fault(vendor="parcelvoy", status=400, next=None)
    assert replays.replay("--as-mapped")["parcelvoy"]["rejected"] == 20
    assert replays.became == {"open": 20, "failed again": 20}
    again = [letter for letter in replays.letters if letter.failures == 2]
    assert len(again) == 20 and {letter.original for letter in again} == {None}
    assert len({letter.mapping for letter in replays.letters}) == 1, "the mapping that made what was sent"
    sandbox.clear_faults()
    assert replays.replay("--as-mapped")["parcelvoy"]["delivered"] == 20
    assert replays.taken("parcelvoy") == expected
    assert replays.became == {"open": 0, "failed again": 20, "delivered": 20}
    replays.replay("--as-mapped")
    assert replays.taken("parcelvoy") == expected


def test_as_mapped_leaves_what_was_never_mapped_or_for_another_vendor(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"mine": {"vendor": "teak", **QUICK}})
    replays.down(write(tmp_path / "in.jsonl", [*numbered(5), b"no JSON"]))
    replays.mend({"mine": {"vendor": "parcelvoy", **QUICK}})
    replays.replay("--as-mapped")
    assert "5 dead letters: it was mapped for teak, and mine is parcelvoy now: replay it without" in replays.output
    assert "1 dead letter: it holds nothing that was mapped: replay it without --as-mapped" in replays.output
    assert replays.became == {"open": 6}
    assert replays.requests() == sandbox.received()["vendors"]["teak"]["requests"]


def test_a_mapping_that_was_mended(tmp_path: Path, sandbox: Running) -> None:
    wrong = {"teak": {**QUICK, "map": {"event": {"fields": {"action_type": "$event_data.method"}}}}}
    replays = Replays(tmp_path, sandbox, wrong)
    done = replays.run(write(tmp_path / "in.jsonl", numbered(9)))["teak"]
    assert (done["rejected"], replays.requests()) == (9, 0)
    replays.replay()
    assert replays.became == {"open": 9, "failed again": 9} and replays.requests() == 0
    replays.mend({"teak": QUICK})
    assert replays.replay()["teak"]["delivered"] == 9
    assert sorted(replays.numbers("teak")) == list(range(9))
    assert replays.became == {"open": 0, "failed again": 9, "delivered": 9}


def test_what_is_filtered_now_is_done_with(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(6)))
    replays.mend({"teak": {**QUICK, "map": {"event": {"when": {"event_type": "other"}}}}})
    assert replays.replay()["teak"]["filtered"] == 6
    assert replays.became == {"open": 0, "filtered": 6}


def test_letters_that_no_destination_is_for_are_left_and_told(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"old": {"vendor": "teak", **QUICK}, "parcelvoy": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(5)))
    replays.mend({"teak": QUICK, "parcelvoy": QUICK})
    for _ in range(2):
        replays.replay()
        assert "left as they are: 5 dead letters: old is no destination of the relay file" in replays.output
    assert replays.became == {"open": 5, "delivered": 5}
    replays.replay("--only", "old", code=2)
    assert "old is no destination" in replays.output
    replays.replay("--reason", "(", code=2)
    replays.replay(place=tmp_path / "nothing", code=2)
    assert "expected a folder of dead letters" in replays.output
    replays.replay(place="projects/p/topics/t", code=2)
    assert "a topic cannot be read" in replays.output


def test_one_file_of_a_folder(tmp_path: Path, sandbox: Running) -> None:
    """What fails again goes beside it, and what was replayed is so for the folder."""
    replays = Replays(tmp_path, sandbox, {"teak": QUICK, "parcelvoy": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(8, users=2)))
    sandbox.configure("teak", unknown_users=["u1"])
    (file,) = replays.dead.glob("*-teak-*")
    done = replays.replay(place=file)
    assert (done["teak"]["delivered"], done["teak"]["rejected"]) == (4, 4)
    assert replays.became == {"open": 12, "delivered": 4, "failed again": 4}


def test_a_stopped_destination_goes_on_with_the_same_command(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"traitly": QUICK, "parcelvoy": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(30)))
    sandbox.fault(vendor="traitly", status=401, next=None, after=10)
    done = replays.replay(code=3)
    assert done["parcelvoy"]["delivered"] == 30
    assert done["traitly"]["delivered"] + done["traitly"]["undelivered"] == 30 and done["traitly"]["undelivered"]
    assert "stopped" in done["traitly"]
    assert replays.became == {"open": 0, "delivered": 30, "waits": 30}
    assert replays.replay(code=3)["traitly"]["undelivered"]
    sandbox.clear_faults()
    done = replays.replay()
    assert (done["traitly"]["delivered"], done["parcelvoy"]["delivered"]) == (30, 30)
    assert replays.became == {"open": 0, "delivered": 60}
    for slug in ("traitly", "parcelvoy"):
        assert sorted(replays.numbers(slug)) == list(range(30))


# Killed ------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as sandbox:
        yield sandbox


def test_kills_send_nothing_twice_but_what_was_in_flight(tmp_path: Path, elsewhere: Elsewhere) -> None:
    count = 1_500
    to = {slug: {**QUICK, "shards": SHARDS, "rate": "unlimited"} for slug in ("traitly", "swrve")}
    replays = Replays(tmp_path, elsewhere, to)
    replays.down(write(tmp_path / "in.jsonl", numbered(count)))
    assert replays.became == {"open": 2 * count}
    for slug in to:
        elsewhere.fault(vendor=slug, delay_s=0.01, next=None)
    report = tmp_path / "report.json"
    arguments = ("replay", replays.relay, "--from", replays.dead, "--report", report)
    for kill in range(KILLS):
        before = sum(map(elsewhere.accepted, to))
        small = {"pipelines.replay_sources.BATCH_LETTERS": 300}
        with Command(*arguments, log=tmp_path / f"{kill}.log", altered=small) as command:
            until(lambda before=before: sum(map(elsewhere.accepted, to)) > before + 200 or not command.running)
            time.sleep(0.1 * kill)
            assert command.running, command.output
            command.kill()
    elsewhere.clear_faults()
    done = replays.replay()
    for slug in to:
        check_once(replays, slug, count)
        assert done[slug]["delivered"] == count
    became = replays.became
    assert became.pop("open") == 0 and set(became) <= {"delivered", "replayed"}
    assert sum(became.values()) == 2 * count
    before = replays.requests()
    replays.replay()
    assert replays.requests() == before


def test_letters_are_as_they_were_written(tmp_path: Path, sandbox: Running) -> None:
    """Replaying adds to a folder; it changes no letter that is there."""
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(5)))
    before = [msgspec.json.encode(letter) for letter in replays.letters]
    replays.replay()
    assert [msgspec.json.encode(letter) for letter in replays.letters] == before


def test_the_documented_commands_work(tmp_path: Path, sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/dead-letters.md, one after the other, once the cause is mended."""
    page = (Path(__file__).parents[2] / "docs/dead-letters.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```shell\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    replays = Replays(tmp_path, sandbox, {"teak": QUICK, "parcelvoy": QUICK})
    sandbox.configure("teak", unknown_users=["u1"])
    replays.run(write(tmp_path / "in.jsonl", numbered(40)))
    sandbox.configure("teak", unknown_users=[])
    replays.down(write(tmp_path / "more.jsonl", [*numbered(10, 40), b"no JSON"]))
    opened = []
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "playrelay"
        done = call(*arguments)
        assert done.exit_code == 0, done.output
        opened.append(replays.became["open"])
    assert opened == [24, 22, 2, 2]
    for slug in ("teak", "parcelvoy"):
        assert sorted(replays.numbers(slug)) == list(range(50))


def test_as_mapped_into_a_form_that_is_sent_no_more(tmp_path: Path, sandbox: Running) -> None:
    """`send` was changed since: the model has its name still, and its payloads are other ones."""
    replays = Replays(tmp_path, sandbox, {"swrve": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(4)))
    replays.mend({"swrve": {**QUICK, "send": "single"}})
    replays.replay("--as-mapped")
    assert "left as they are: 4 dead letters: it was mapped to swrve/" in replays.output
    assert replays.numbers("swrve") == [] and replays.became == {"open": 4}
    (file,) = replays.dead.glob("*.jsonl")
    letters = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**letter, "schema": ""}) + "\n" for letter in letters))
    replays.replay("--as-mapped")
    assert "left as they are: 4 dead letters: it does not say to what it was mapped" in replays.output
    assert replays.numbers("swrve") == []
    assert replays.replay()["swrve"]["delivered"] == 4


@pytest.mark.parametrize(
    "odd",
    [
        {"failures": 10**20},
        {"failures": 10**9},
        {"time": 10**30},
        {"source": {"name": "s", "message": {"id": "1", "published": 10**30}}},
    ],
)
@pytest.mark.parametrize("options", [(), ("--as-mapped",)])
def test_a_letter_with_impossible_numbers_stops_no_other(
    tmp_path: Path, sandbox: Running, odd: dict[str, object], options: tuple[str, ...]
) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(2)))
    (file,) = replays.dead.glob("*.jsonl")
    first, second = file.read_text().splitlines()
    file.write_text(f"{json.dumps({**json.loads(first), **odd})}\n{second}\n")
    assert replays.replay(*options)["teak"]["delivered"] == 1
    assert replays.numbers("teak") == [json.loads(json.loads(second)["original"])["event_data"]["level"]]


def test_what_it_says_does_not_act_on_a_terminal(tmp_path: Path, sandbox: Running) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    replays.down(write(tmp_path / "in.jsonl", numbered(2)))
    sandbox.fault(vendor="teak", status=503, next=None)
    replays.replay("--state", tmp_path / "s\x1b]0;owned\x07", code=3)
    for options in ((), ("--dry-run",)):
        done = call("replay", replays.relay, "--from", replays.dead, *options)
        assert "taken up in" in done.output and "owned" in done.output
        assert not CONTROL.search(done.output)
