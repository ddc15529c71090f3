"""Runs with a state folder, one after the other, while files, vendors and the relay file change."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest
import yaml
from click.testing import Result
from commands import call
from source_files import AVRO, delimited, events, json_array
from streams import MEASURED, PARTS, event, relay_file
from streams import events as numbered

from pipelines.plan import make_plan
from pipelines.relay_file import load
from sandbox.server import Running
from transforms.vendors import schemas_of

QUICK = {"retry": {"for": "300ms"}}


class Runs:
    """Runs over one state folder."""

    def __init__(self, folder: Path, sandbox: Running) -> None:
        self.folder, self.sandbox = folder, sandbox
        self.output = ""

    def run(self, inputs: Sequence[Path | str], to: Any, *options: object, code: int = 0) -> dict[str, Any]:
        """One run; its report by destination, with `read`."""
        relay = relay_file(self.folder, self.sandbox, to)
        report = self.folder / "report.json"
        given = [part for one in inputs for part in ("--input", one)]
        done: Result = call(
            "run", relay, *given, "--state", self.folder / "state", "--report", report,
            "--dead-letters", self.folder / "dead", *options,
        )  # fmt: skip
        self.output = done.output
        assert done.exit_code == code, done.output
        if code == 2:
            return {}
        found = json.loads(report.read_text())
        assert found["balanced"] is True, found
        for one in found["destinations"].values():
            assert sum(one[part] for part in PARTS) == one.get("read", found["records"]["read"])
        return {"read": found["records"]["read"], **found["destinations"]}

    def letters(self) -> list[dict[str, Any]]:
        """All dead letters."""
        files = (self.folder / "dead").glob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def numbers(self, slug: str) -> list[int]:
        return [int(MEASURED[slug](one["item"])) for one in self.sandbox.items(slug)]

    def requests(self, slug: str) -> int:
        found: int = self.sandbox.received(vendor=slug)["vendors"][slug]["requests"]
        return found


@pytest.fixture
def runs(tmp_path: Path, sandbox: Running) -> Runs:
    return Runs(tmp_path, sandbox)


def write(path: Path, records: Sequence[bytes]) -> Path:
    path.write_bytes(b"\n".join(records) + b"\n")
    return path


def test_a_finished_run_sends_nothing_again_unless_asked(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(30))
    to = ["teak", "traitly"]
    assert runs.run([path], to)["teak"]["delivered"] == 30
    assert runs.run([path], to)["read"] == 0
    assert runs.requests("traitly") == 30
    before = runs.requests("teak")
    again = runs.run([path], to, "--again")
    assert (again["read"], again["teak"]["delivered"]) == (30, 30)
    assert runs.requests("teak") > before
    assert Counter(runs.numbers("traitly")) == dict.fromkeys(range(30), 2)
    assert runs.run([path], to)["read"] == 0


def test_new_files_only_are_sent(runs: Runs, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", numbered(10))
    pattern = tmp_path / "*.jsonl"
    runs.run([pattern], ["teak"])
    write(tmp_path / "b.jsonl", numbered(10, 10))
    assert runs.run([pattern], ["teak"])["read"] == 10
    assert sorted(runs.numbers("teak")) == list(range(20))


def test_a_file_that_changed_is_refused_by_name_before_anything_is_sent(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(10))
    other = write(tmp_path / "b.jsonl", numbered(10, 10))
    runs.run([path], ["teak"])
    write(path, numbered(11))
    before, status = runs.requests("teak"), call("status", "--state", tmp_path / "state").output
    assert "the last run came to its end" in status
    runs.run([path, other], ["teak"], code=2)
    assert f"{path}: is not what it was when teak was sent what is in it" in runs.output
    assert runs.requests("teak") == before
    assert call("status", "--state", tmp_path / "state").output == status, "the figures of the last run stay"
    assert runs.run([path, other], ["teak"], "--again")["read"] == 21


def test_a_vendor_that_was_down_gets_its_items_first_and_no_other_anything(runs: Runs, tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", numbered(40))
    to = {"teak": QUICK, "traitly": QUICK, "parcelvoy": QUICK}
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    done = runs.run([first], to, code=3)
    assert (done["teak"]["undelivered"], done["traitly"]["delivered"], done["parcelvoy"]["delivered"]) == (40, 40, 40)
    assert not list((tmp_path / "dead").glob("*")), "what waits is no dead letter"
    status = call("status", "--state", tmp_path / "state").output
    assert [line.split()[1:] for line in status.splitlines() if line.startswith("teak")] == [
        ["40", "0", "0", "0", "40", "40", "0.0"]
    ]
    # Still down, called again with more: nothing is given up, and figures add up over both runs.
    second = write(tmp_path / "b.jsonl", numbered(10, 40))
    done = runs.run([first, second], to, code=3)
    assert (done["read"], done["teak"]["undelivered"], done["traitly"]["delivered"]) == (50, 50, 50)
    runs.sandbox.clear_faults()
    third = write(tmp_path / "c.jsonl", numbered(10, 50))
    done = runs.run([third], to)
    assert (done["read"], done["teak"]["delivered"], done["traitly"]["delivered"]) == (60, 60, 60)
    for slug in to:
        assert sorted(runs.numbers(slug)) == list(range(60)), slug
        for user in range(20):
            own = [number for number in runs.numbers(slug) if number % 20 == user]
            assert own == sorted(own)
    assert runs.run([tmp_path / "*.jsonl"], to)["read"] == 0


def test_what_waits_for_a_destination_that_is_left_out_is_told(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(1200))
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    runs.run([path], {"teak": QUICK, "traitly": QUICK, "swrve": QUICK}, code=3)
    runs.sandbox.clear_faults()
    for to, options in (
        ({"traitly": QUICK, "my-teak": {"vendor": "teak"}}, ()),
        ({"teak": {}, "traitly": {}}, ("--only", "traitly")),
    ):
        runs.run([path], to, *options)
        told = (
            f"teak: 1,200 items wait in {tmp_path / 'state'}, and this run has no such destination; they are sent once"
        )
        assert told in " ".join(runs.output.split())
        assert "swrve" not in runs.output, "for which nothing waits"
    runs.run([path], {"teak": QUICK, "traitly": QUICK})
    assert "no such destination" not in runs.output
    assert Counter(runs.numbers("teak")) == dict.fromkeys(range(1200), 2), "once under each name"


def test_a_wrong_key_keeps_its_items_for_the_right_one(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(40))
    wrong = {"credentials": {"api_key": "pk_wrong"}, **QUICK}
    assert runs.run([path], {"parcelvoy": wrong, "teak": {}}, code=3)["parcelvoy"]["undelivered"] == 40
    assert "credentials.api_key" in runs.output
    assert runs.run([path], ["parcelvoy", "teak"])["parcelvoy"]["delivered"] == 40
    assert sorted(runs.numbers("parcelvoy")) == list(range(40))
    assert len(runs.numbers("teak")) == 40


@pytest.mark.parametrize("shards", [1, 7, 64])
def test_items_that_wait_go_out_under_another_number_of_shards(runs: Runs, tmp_path: Path, shards: int) -> None:
    path = write(tmp_path / "a.jsonl", numbered(200))
    to = {slug: {"shards": 5, **QUICK} for slug in ("teak", "swrve", "traitly")}
    runs.sandbox.fault(vendor="teak", status=503, after=1, next=None)
    runs.sandbox.fault(vendor="swrve", status=503, after=5, next=None)
    runs.sandbox.fault(vendor="traitly", status=503, after=70, next=None)
    done = runs.run([path], to, code=3)
    assert 0 < done["traitly"]["delivered"] < 200
    runs.sandbox.clear_faults()
    done = runs.run([path], {slug: {"shards": shards, **QUICK} for slug in to})
    for slug in to:
        assert done[slug]["delivered"] == done["read"] == 200
        assert sorted(runs.numbers(slug)) == list(range(200)), "each once"
        for user in range(20):
            own = [number for number in runs.numbers(slug) if number % 20 == user]
            assert own == sorted(own)


def test_items_that_the_destination_no_longer_sends_are_dead_letters(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(30))
    runs.sandbox.fault(vendor="swrve", status=503, next=None)
    runs.run([path], {"swrve": QUICK}, code=3)
    runs.sandbox.clear_faults()
    done = runs.run([path], {"swrve": {"send": "single", **QUICK}}, code=3)
    assert (done["read"], done["swrve"]["undelivered"]) == (30, 30)
    letters = runs.letters()
    assert sorted(json.loads(letter["original"])["event_data"]["level"] for letter in letters) == list(range(30))
    assert {letter["outcome"] for letter in letters} == {"undelivered"}
    assert all("playrelay replay" in letter["reason"] for letter in letters)
    assert {letter["schema"] for letter in letters} == {schemas_of("swrve", {})["event"]}
    # They are accounted for now, and nothing waits.
    assert runs.run([path], {"swrve": {"send": "single", **QUICK}})["read"] == 0


def test_what_is_refused_later_names_the_mapping_that_made_it(runs: Runs, tmp_path: Path) -> None:
    before, after = (
        {"map": {"event": {"fields": {"action_type": {"const": "a"}}}}},
        {"map": {"event": {"fields": {"action_type": {"const": "b"}}}}},
    )
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    runs.run([write(tmp_path / "a.jsonl", numbered(10))], {"teak": {**before, **QUICK}}, code=3)
    assert runs.letters() == [], "they wait"
    runs.sandbox.clear_faults()
    runs.sandbox.fault(vendor="teak", status=400, next=None)
    files = [write(tmp_path / "a.jsonl", numbered(10)), write(tmp_path / "b.jsonl", numbered(10, 10))]
    done = runs.run(files, {"teak": {**after, **QUICK}}, code=0)
    assert done["teak"]["rejected"] == 20
    versions = {letter["payload"]["action_type"]: letter["mapping"] for letter in runs.letters()}
    assert len(set(versions.values())) == len(versions) == 2
    for name, to in (("a", before), ("b", after)):
        plan, _ = make_plan(load(relay_file(tmp_path, runs.sandbox, {"teak": {**to, **QUICK}})))
        assert versions[name] == plan.versions["teak"]


def test_models_in_another_order(runs: Runs, tmp_path: Path) -> None:
    kinds = ("level_up", "identify")
    path = write(tmp_path / "a.jsonl", [event(n, event_type=kinds[n % 2]) for n in range(30)])
    runs.sandbox.fault(vendor="parcelvoy", status=503, next=None)
    runs.run([path], {"parcelvoy": {"models": ["event", "identify"], **QUICK}}, code=3)
    runs.sandbox.clear_faults()
    done = runs.run([path], {"parcelvoy": {"models": ["identify", "event"], **QUICK}})
    assert done["parcelvoy"]["delivered"] == 30
    models = Counter(one["model"] for one in runs.sandbox.items("parcelvoy"))
    assert models == {"event": 15, "identify": 15}


def test_another_vendor_under_the_same_name_is_refused_while_items_wait(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(10))
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    runs.run([path], {"crm": {"vendor": "teak", **QUICK}}, code=3)
    runs.run([path], {"crm": {"vendor": "traitly", **QUICK}}, code=2)
    assert "items for teak wait under the name crm, which is traitly in the relay file now" in runs.output
    runs.sandbox.clear_faults()
    assert runs.run([path], {"crm": {"vendor": "teak"}, "new": {"vendor": "traitly"}})["new"]["delivered"] == 10
    assert len(runs.numbers("teak")) == 10


def test_a_destination_that_comes_later_while_items_wait(runs: Runs, tmp_path: Path) -> None:
    """It lacks the records that were read before it was there; the sums are still exact."""
    old, new = write(tmp_path / "a.jsonl", numbered(10)), write(tmp_path / "b.jsonl", numbered(10, 10))
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    runs.run([old], {"teak": QUICK}, code=3)
    runs.run([new], {"teak": QUICK, "traitly": QUICK}, code=3)
    runs.sandbox.clear_faults()
    runs.run([new], {"teak": QUICK, "traitly": QUICK})
    assert sorted(runs.numbers("teak")) == list(range(20))
    assert sorted(runs.numbers("traitly")) == list(range(10, 20))
    # Once nothing waits, it gets what it lacks.
    done = runs.run([old, new], {"teak": QUICK, "traitly": QUICK})
    assert (done["teak"]["delivered"], done["traitly"]["delivered"]) == (0, 10)


def test_a_destination_that_is_left_out_keeps_what_waits(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(10))
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    both = {"teak": QUICK, "traitly": QUICK}
    runs.run([path], both, code=3)
    runs.sandbox.clear_faults()
    runs.run([path], both, "--only", "traitly")
    assert runs.numbers("teak") == []
    assert runs.run([path], both)["teak"]["delivered"] == 10


@pytest.mark.parametrize("kind", ["csv", "array.json", "avro", "jsonl.gz"])
def test_formats(runs: Runs, tmp_path: Path, kind: str) -> None:
    """What waits is delivered and dead letters have their records, from files of every kind."""
    records = [{**one, "user_id": f"u{n % 9}"} for n, one in enumerate(events(60))]
    path = tmp_path / f"events.{kind}"
    if kind == "csv":
        path.write_bytes(delimited(records))
    elif kind == "array.json":
        path.write_bytes(json_array(records))
    elif kind == "avro":
        with path.open("wb") as file:
            fastavro.writer(file, AVRO, records)
    else:
        path.write_bytes(gzip.compress(b"\n".join(json.dumps(one).encode() for one in records)))
    runs.sandbox.configure("teak", unknown_users=["u3"])
    runs.sandbox.fault(vendor="teak", status=503, after=1, next=None)
    to = {"teak": {"shards": 2, "batch": {"items": 5}, **QUICK}}
    first = runs.run([path], to, code=3)
    assert first["teak"]["undelivered"] > 0
    runs.sandbox.clear_faults()
    done = runs.run([path], to)
    assert done["read"] == 60
    assert done["teak"]["rejected"] == sum(one["user_id"] == "u3" for one in records)
    letters = [json.loads(line) for file in (tmp_path / "dead").glob("*") for line in file.read_bytes().splitlines()]
    assert len({letter["id"] for letter in letters}) == done["teak"]["rejected"]
    assert all(letter["original"] for letter in letters)
    assert runs.run([path], to)["read"] == 0


def test_spans_of_time(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(50))
    span = ("--since", "2025-11-24T16:00:10Z", "--until", "2025-11-24T16:00:30Z")
    done = runs.run([path], ["teak"], *span)
    assert (done["teak"]["delivered"], done["teak"]["filtered"]) == (20, 30)
    assert runs.run([path], ["teak"], *span)["read"] == 0
    assert sorted(runs.numbers("teak")) == list(range(10, 30))
    done = runs.run([path], ["teak"], "--since", "2025-11-24T16:00:30Z")
    assert done["teak"]["delivered"] == 20
    assert sorted(runs.numbers("teak")) == list(range(10, 50))


def test_a_state_folder_that_was_moved(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(20))
    runs.sandbox.fault(vendor="teak", status=503, next=None)
    runs.run([path], {"teak": QUICK}, code=3)
    runs.sandbox.clear_faults()
    shutil.move(tmp_path / "state", tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "state")
    assert runs.run([path], {"teak": QUICK})["teak"]["delivered"] == 20


def test_what_does_not_go_together(runs: Runs, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", numbered(5))
    runs.run([path], ["teak"], "--limit", 3, code=2)
    assert "--limit does not go with --state" in runs.output
    relay = tmp_path / "relay.yaml"
    assert yaml.safe_load(relay.read_text())["destinations"]
    done = call("run", relay, "--input", path, "--again")
    assert done.exit_code == 2
    assert "--again goes with --state" in done.output
    assert runs.requests("teak") == 0
