"""Leaving out events that were seen a short time ago."""

from __future__ import annotations

import dataclasses
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan import Plan, make_plan
from pipelines.relay_file import loads
from transforms import dedupe, located, progress
from transforms.collect import CollectFn, collected
from transforms.collect import forget as forget_collected
from transforms.dedupe import DUPLICATE, Dedupe, Seen
from transforms.located import Problems
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.read import Read
from transforms.sources.messages import Message, write_messages
from transforms.tally import Tally


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def write(db: sqlite3.Connection, seen: Seen) -> None:
    db.execute("BEGIN IMMEDIATE")
    seen.write()
    db.execute("COMMIT")


def test_new_until_seen(db: sqlite3.Connection, clock: Clock) -> None:
    seen = Seen(db, 600, clock=clock)
    assert seen.add_new([b"a", b"b", b"a", b""]) == [True, True, False, True]
    assert seen.add_new([b"b", b"c"]) == [False, True]
    write(db, seen)
    assert seen.add_new([b"a", b"c", b"d"]) == [False, False, True]
    assert seen.add_new([]) == []
    assert db.execute("SELECT count(*), max(length(key)) FROM seen").fetchone() == (4, 16)


def test_a_slice_that_came_to_nothing_was_not_seen(db: sqlite3.Connection, clock: Clock) -> None:
    seen = Seen(db, 600, clock=clock)
    seen.add_new([b"a"])
    write(db, seen)
    seen.add_new([b"b"])
    seen.discard()
    assert seen.add_new([b"a", b"b"]) == [False, True]
    # Nor what a process that was killed had added.
    assert Seen(db, 600, clock=clock).add_new([b"a", b"b"]) == [False, True]
    # Nor that of a transaction that was rolled back.
    db.execute("BEGIN IMMEDIATE")
    seen.write()
    db.execute("ROLLBACK")
    assert seen.add_new([b"a", b"b"]) == [False, True]


def test_it_is_forgotten_after_the_time(db: sqlite3.Connection, clock: Clock) -> None:
    seen = Seen(db, 600, clock=clock)
    for number in range(20):
        seen.add_new([b"%d" % number])
        write(db, seen)
        clock.now += 100
    assert seen.add_new([b"%d" % number for number in range(20)]) == [number < 14 for number in range(20)]
    write(db, seen)
    assert db.execute("SELECT count(*) FROM seen").fetchone() == (20,)
    clock.now += 601
    seen.expire(clock.now)
    assert db.execute("SELECT count(*) FROM seen").fetchone() == (0,)
    assert seen.add_new([b"0"]) == [True]


def test_the_time_begins_with_the_first(db: sqlite3.Connection, clock: Clock) -> None:
    seen = Seen(db, 600, clock=clock)
    for after, new in ((0, True), (400, False), (400, True), (400, False)):
        clock.now += after
        assert seen.add_new([b"a"]) == [new]
        write(db, seen)


def test_a_clock_that_is_set_back_keeps_nothing_for_longer(db: sqlite3.Connection, clock: Clock) -> None:
    seen = Seen(db, 600, clock=clock)
    seen.add_new([b"a"])
    write(db, seen)
    clock.now -= 100_000
    assert seen.add_new([b"a", b"b"]) == [False, True]
    write(db, seen)
    clock.now += 601
    assert seen.add_new([b"a", b"b"]) == [True, True]
    write(db, seen)
    clock.now += 10**9
    assert seen.add_new([b"a", b"b"]) == [True, True]
    write(db, seen)
    assert db.execute("SELECT count(*) FROM seen").fetchone() == (2,)


def test_alone_it_keeps_what_it_sees(clock: Clock) -> None:
    seen = Seen.alone(600, clock)
    for at in range(0, 50_000, 1000):
        assert all(seen.add_new([b"%d" % number for number in range(at, at + 1000)]))
    assert not any(seen.add_new([b"%d" % number for number in range(50_000)]))
    clock.now += 700
    for at in range(0, 50_000, 1000):
        assert all(seen.add_new([b"%d" % number for number in range(at, at + 1000)]))
    assert not seen._added
    seen.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 20), max_size=8), st.booleans(), st.integers(0, 400)), max_size=12))
def test_as_a_dict_would(steps: list[tuple[list[int], bool, int]]) -> None:
    clock = Clock()
    db = sqlite3.connect(":memory:", isolation_level=None)
    seen = Seen(db, 600, clock=clock)
    kept: dict[int, float] = {}
    for keys, keep, pause in steps:
        added: set[int] = set()
        expected = []
        for key in keys:
            new = key not in added and kept.get(key, -1e9) < clock.now - 600
            expected.append(new)
            if new:
                added.add(key)
        assert seen.add_new([b"%d" % key for key in keys]) == expected
        if keep:
            write(db, seen)
            kept |= dict.fromkeys(added, clock.now)
        else:
            seen.discard()
        clock.now += pause
    db.close()


# In the pipeline


def plan(source: Any, *destinations: str) -> Plan:
    sections = {
        name: {"vendor": "teak", "credentials": {"game_id": "g", "secret_key": "env:K"}} for name in destinations
    }
    text = yaml.safe_dump(
        {
            "source": source,
            "destinations": sections or {"teak": {"credentials": {"game_id": "g", "secret_key": "env:K"}}},
        }
    )
    return make_plan(loads(text.encode(), "relay.yaml"))[0]


def relay(of: Plan, inputs: Path, seen: Seen | None) -> dict[str, Tally]:
    run = uuid.uuid4().hex
    if seen is not None:
        dedupe._runs[run] = seen
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        tags = (TALLY, FAILED, *(tag(to.name) for to in of.destinations))
        step = beam.ParDo(MapRecordsFn(of.source, of.destinations, of.selection, run)).with_outputs(*tags)
        mapped = pipeline | Read([str(inputs)], split=False) | step
        mapped[TALLY] | "Count" >> beam.ParDo(CollectFn(run))
        mapped[FAILED] | "Count failed" >> beam.ParDo(CollectFn(run))
    found = {to.name: collected(run).of(to.name)[0] for to in of.destinations}
    records = progress.progress(run).records
    assert all(tally.records == records for tally in found.values())
    forget_collected(run)
    progress.forget(run)
    dedupe._runs.pop(run, None)
    return found


def event(id: str | None, more: str = "") -> bytes:
    named = "" if id is None else f'"event_id":"{id}",'
    return f'{{{named}"event_type":"spin","event_timestamp":1764000000000,"user_id":"u1"{more}}}'.encode()


CANONICAL = {"preset": "canonical", "dedupe": {"by": "id", "within": "10m"}}


def test_by_id(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "events.jsonl"
    lines = [
        event("a"),
        event("b"),
        b"{bad",
        event("a", ',"platform":"ios"'),
        event(None),
        event(None),
        event(""),
        event(""),
    ]
    path.write_bytes(b"\n".join(lines))
    seen = Seen(db, 600)
    tally = relay(plan(CANONICAL), path, seen)["teak"]
    assert (tally.records, tally.mapped, tally.undecodable, tally.filtered) == (8, 6, 1, {DUPLICATE: 1})
    assert tally.touched == 7
    write(db, seen)
    tally = relay(plan(CANONICAL), path, seen)["teak"]
    assert (tally.records, tally.mapped, tally.undecodable, tally.filtered) == (8, 4, 1, {DUPLICATE: 3})


def test_one_that_is_rejected_stands_for_the_others(tmp_path: Path, db: sqlite3.Connection) -> None:
    """Each would be a dead letter, and a replay, which leaves nothing out, would send each."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([event("a").replace(b"1764000000000", b"-5")] * 2))
    of, seen = plan(CANONICAL), Seen(db, 600)
    old = located.parse("event: {reject: [{when: {event_timestamp: {lt: 0}}, reason: old}]}", "relay.yaml")
    of = dataclasses.replace(of, destinations=[dataclasses.replace(to, map=old) for to in of.destinations])
    for duplicates in (1, 2):
        tally = relay(of, path, seen)["teak"]
        assert tally.filtered == {DUPLICATE: duplicates}
        assert tally.reasons == ({"old": 1} if duplicates == 1 else {})
        write(db, seen)


def test_without_a_place_to_keep_it_nothing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([event("a")] * 3))
    assert relay(plan(CANONICAL), path, None)["teak"].mapped == 3


def test_what_the_relay_file_does_not_ask_for_is_not_done(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([event("a")] * 3))
    assert relay(plan({"preset": "canonical"}), path, Seen(db, 600))["teak"].mapped == 3


def test_what_others_got_is_new_to_a_destination(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(event("a"))
    seen = Seen(db, 600)
    assert relay(plan(CANONICAL, "one"), path, seen)["one"].mapped == 1
    write(db, seen)
    assert relay(plan(CANONICAL, "one"), path, seen)["one"].mapped == 0
    assert relay(plan(CANONICAL, "two"), path, seen)["two"].mapped == 1
    assert relay(plan(CANONICAL, "one", "three"), path, seen)["three"].mapped == 1


def test_the_limit_counts_duplicates_as_read(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([event("a"), event("a"), event("b"), event("c")]))
    of = plan(CANONICAL)
    of = dataclasses.replace(of, selection=dataclasses.replace(of.selection, limit=3))
    tally = relay(of, path, Seen(db, 600))["teak"]
    assert (tally.records, tally.mapped) == (3, 2)


Slice = Callable[[Sequence[Message]], Path]


@pytest.fixture
def slice_of(tmp_path: Path) -> Slice:
    def make(messages: Sequence[Message]) -> Path:
        path = tmp_path / f"slice-{uuid.uuid4().hex}"
        write_messages(str(path), "s", messages)
        return path

    return make


def test_by_message(slice_of: Slice, db: sqlite3.Connection) -> None:
    of = plan({"preset": "canonical", "dedupe": {"by": "message"}})
    several = b"[%b,7,%b]" % (event("a"), event("a"))
    seen = Seen(db, 600)
    path = slice_of([Message(several, {}, "1"), Message(event("b"), {}, "2"), Message(event("b"), {}, "2"),
                     Message(event("c"), {}, ""), Message(event("c"), {}, "")])  # fmt: skip
    tally = relay(of, path, seen)["teak"]
    assert (tally.records, tally.mapped, tally.undecodable, tally.filtered) == (7, 5, 1, {DUPLICATE: 1})
    write(db, seen)
    tally = relay(of, path, seen)["teak"]
    assert (tally.mapped, tally.undecodable, tally.filtered) == (2, 1, {DUPLICATE: 4})


def test_by_message_leaves_plain_files_alone(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([event("a")] * 3))
    of = plan({"preset": "canonical", "dedupe": {"by": "message"}})
    assert relay(of, path, Seen(db, 600))["teak"].mapped == 3


def test_an_id_from_an_attribute_and_attributes_of_what_stays(slice_of: Slice, db: sqlite3.Connection) -> None:
    of = plan({
        "preset": "canonical", "dedupe": {},
        "event": {"event_id": "$attributes.id", "user_id": "$attributes.user",
                  "drop": [{"when": {"attributes.user": {"exists": False}}, "reason": "nobody"}]},
    })  # fmt: skip
    messages = [Message(event(None), {"id": id, **({"user": user} if user else {})}, "m")
                for id, user in (("1", "u"), ("1", "u"), ("2", ""), ("3", "u"))]  # fmt: skip
    tally = relay(of, slice_of(messages), Seen(db, 600))["teak"]
    assert (tally.mapped, tally.filtered) == (2, {DUPLICATE: 1, "nobody": 1})


def test_by_id_needs_ids() -> None:
    source = {"preset": "canonical", "event": {"event_id": None}, "dedupe": {"by": "id"}}
    with pytest.raises(Problems, match=r"relay.yaml:\d+:\d+: source.dedupe: by: id needs events with an event_id"):
        plan(source)
    assert plan(source | {"dedupe": {"by": "message"}}).source.dedupe == Dedupe("message", 600)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "user"}, "source.dedupe.by: no such choice: user"),
        ({"within": "1ms"}, "source.dedupe.within: expected a duration from 1s"),
        ({"for": "10m"}, "source.dedupe.for: unknown key"),
        ("yes", "source.dedupe: expected a map"),
    ],
)
def test_what_is_wrong_is_told(given: Any, said: str) -> None:
    with pytest.raises(Problems) as caught:
        plan({"preset": "canonical", "dedupe": given})
    assert said in str(caught.value)


def test_the_registry() -> None:
    seen = Seen.alone(600)
    dedupe.use("a run", seen)
    assert dedupe.of("a run") is seen
    dedupe.forget("a run")
    dedupe.forget("a run")
    assert dedupe.of("a run") is None
    with pytest.raises(sqlite3.ProgrammingError):
        seen.add_new([b"a"])
