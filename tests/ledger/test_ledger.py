"""The ledger: transactions that a kill leaves whole or not at all, one process at a time, and nothing kept for ever."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import FILTERED, TARGETS, Record, answer, deliver_all, finish, left, write_slice

from pipelines.standing import standing
from transforms import ledger_reader
from transforms.deliver.journal import journal_of
from transforms.ledger import REASONS, Ledger
from transforms.ledger_reader import Place, StateError, connect, read_ledger
from transforms.tally import Tally

ROOT = Path(__file__).parents[2]
BOTH = {"teak": [Record(), Record((0, 1)), FILTERED], "swrve": [Record(), FILTERED, Record()]}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(str(tmp_path / "state"))) as one:
        one.begin(TARGETS)
        yield one


def files(ledger: ledger_reader.LedgerReader) -> list[str]:
    """What lies in the folder beside the database and the lock."""
    return sorted(str(path.relative_to(ledger.folder)) for path in Path(ledger.folder).glob("*/*"))


def rows(ledger: Ledger, table: str) -> int:
    found: int = ledger.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


# One slice -------------------------------------------------------------------------------------------


def test_a_slice_waits_in_order_until_it_is_delivered(ledger: Ledger) -> None:
    first, second = write_slice(ledger, BOTH, segments=2), write_slice(ledger, BOTH)
    waiting = ledger.waiting("teak")
    assert [one.slice for one in waiting] == sorted(one.slice for one in waiting) == [first, second]
    assert [one.number for one in waiting] == sorted(one.number for one in waiting)
    deliver_all(ledger, "teak")
    assert ledger.waiting("teak") == []
    assert {one.slice for one in ledger.waiting("swrve")} == {first, second}
    totals = standing(ledger, "teak").totals
    assert (totals.delivered, totals.filtered, totals.undelivered) == (4, 2, 0)
    assert totals.balanced(6)


def test_finished_slices_leave_nothing_behind(ledger: Ledger) -> None:
    for number in range(3):
        slice_ = write_slice(ledger, BOTH, position=number)
        Path(ledger.message_file(slice_)).write_bytes(b"messages")
    for name in TARGETS:
        for segment in ledger.waiting(name):
            answer(segment, [(pair, "rejected") for pair in left(segment)])
            finish(ledger, name, [segment])
    assert files(ledger) == []
    assert [rows(ledger, table) for table in ("slices", "segments", "marks")] == [0, 0, 0]
    assert standing(ledger, "teak").totals.as_json()["rejected"] == 6


def test_a_slice_of_which_nothing_is_to_be_sent_leaves_nothing_behind(ledger: Ledger) -> None:
    number = ledger.new_slice()
    Path(ledger.message_file(number)).write_bytes(b"messages")
    tally = Tally(records=2, filtered={"no model": 2})
    ledger.mapped(number, 2, {name: _mapped(tally) for name in TARGETS}, messages=[11, 12])
    assert files(ledger) == []
    ledger.acknowledged([number])
    ledger.forget([number])
    assert rows(ledger, "slices") == 0


def _mapped(tally: Tally) -> object:
    from transforms.ledger import Mapped
    from transforms.outcomes import RecordOutcomes

    return Mapped(tally, RecordOutcomes(), [])


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    write_slice(ledger, BOTH)
    before = list(ledger.db.iterdump())
    number = ledger.new_slice()
    bad = {"teak": _mapped(Tally(records=1, filtered={"x": 1})), "nobody": _mapped(Tally())}
    with pytest.raises(TypeError):  # a destination that was never begun
        ledger.mapped(number, 1, bad, messages=[1])  # type: ignore[arg-type]
    assert list(ledger.db.iterdump()) == before
    write_slice(ledger, BOTH)  # and the ledger goes on


def test_reasons_stay_bounded_and_sums_exact(ledger: Ledger) -> None:
    for number in range(3):
        tally = Tally(records=900, touched=900, mapped=900, rejected=900)
        tally.reasons = {f"reason {number} {n}": 1 for n in range(900)}
        ledger.mapped(ledger.new_slice(), 900, {"teak": _mapped(tally)})  # type: ignore[dict-item]
    (teak,) = (one for one in ledger.destinations() if one.name == "teak")
    assert len(teak.tally.reasons) <= REASONS + 1
    assert sum(teak.tally.reasons.values()) == teak.tally.rejected == 2700


# Messages --------------------------------------------------------------------------------------------


def test_messages_are_remembered_until_they_are_forgotten(ledger: Ledger) -> None:
    ids = [1, 2**64 - 1, 7]
    number = write_slice(ledger, BOTH, messages=ids)
    other = write_slice(ledger, BOTH, messages=[8])
    assert [(one, done, list(own)) for one, done, own in ledger.messages()] == [
        (number, False, ids),
        (other, False, [8]),
    ]
    ledger.acknowledged([number])
    assert ledger.acknowledged_before(time.time() - 60) == []
    assert [(one, done) for one, done, _ in ledger.messages()] == [(number, True), (other, False)]
    assert ledger.acknowledged_before(time.time() + 60) == [number]
    ledger.forget([number])
    assert [one for one, _, _ in ledger.messages()] == [other]
    # What waits of the forgotten slice waits on.
    assert {one.slice for one in ledger.waiting("teak")} == {number, other}


def test_delivered_slices_are_remembered_too(ledger: Ledger) -> None:
    number = write_slice(ledger, BOTH, messages=[5])
    for name in TARGETS:
        deliver_all(ledger, name)
    assert [(one, done, list(own)) for one, done, own in ledger.messages()] == [(number, False, [5])]
    ledger.acknowledged([number])
    ledger.forget([number])
    assert rows(ledger, "slices") == 0


# Runs ------------------------------------------------------------------------------------------------


def test_figures_go_on_until_a_run_is_over(ledger: Ledger) -> None:
    write_slice(ledger, BOTH)
    ledger.end(complete=True)
    ledger.begin(TARGETS)
    assert standing(ledger, "teak").totals.tally.records == 3, "items wait"
    for name in TARGETS:
        deliver_all(ledger, name)
    ledger.end(complete=False)
    ledger.begin(TARGETS)
    assert standing(ledger, "teak").totals.tally.records == 3, "it was cut short"
    ledger.end(complete=True)
    ledger.begin(TARGETS)
    assert standing(ledger, "teak").totals.tally.records == 0


def test_places_are_of_a_file_a_destination_and_a_span_of_time(ledger: Ledger) -> None:
    places = {("a.jsonl", "teak"): Place("print", 17, 3), ("a.jsonl", "swrve"): Place("print", None)}
    write_slice(ledger, BOTH, places=places)
    assert ledger.places(["a.jsonl", "b.jsonl"], "") == places
    assert ledger.places(["b.jsonl"], "") == {}
    assert ledger.places(["a.jsonl"], "5..9") == {}
    ledger.read_again({"a.jsonl": "print"}, ["teak"])
    assert list(ledger.places(["a.jsonl"], "")) == [("a.jsonl", "swrve")]


def test_items_of_another_vendor_are_not_sent_under_its_name(ledger: Ledger) -> None:
    write_slice(ledger, BOTH)
    with pytest.raises(StateError, match="items for teak wait under the name teak, which is traitly in the relay file"):
        ledger.begin({"teak": ("traitly", "https://traitly")})
    deliver_all(ledger, "teak")
    ledger.begin({"teak": ("traitly", "https://traitly")})


def test_another_target_is_told(ledger: Ledger) -> None:
    (note,) = ledger.begin({"teak": ("teak", "https://elsewhere")})
    assert "teak: now at https://elsewhere, before at https://teak" in note
    assert ledger.begin({"teak": ("teak", "https://elsewhere")}) == []


def test_parking_keeps_its_beginning(ledger: Ledger) -> None:
    ledger.parked("teak", "HTTP 503")
    (since,) = (one.parked_since for one in ledger.destinations() if one.name == "teak")
    assert since is not None
    ledger.parked("teak", "HTTP 500")
    (teak,) = (one for one in ledger.destinations() if one.name == "teak")
    assert (teak.parked_since, teak.reason) == (since, "HTTP 500")
    ledger.parked("teak", None)
    (teak,) = (one for one in ledger.destinations() if one.name == "teak")
    assert (teak.parked_since, teak.reason) == (None, "")


# The folder ------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_a_reader_is_not(ledger: Ledger) -> None:
    with pytest.raises(StateError, match=rf"in use by process {os.getpid()}; stop that one, or name another folder"):
        Ledger(ledger.folder)
    write_slice(ledger, BOTH)
    with closing(read_ledger(ledger.folder)) as reader:
        assert len(reader.waiting("teak")) == 1
    # The refused one must not have taken the lock, or the name in it, away.
    with pytest.raises(StateError, match=rf"process {os.getpid()};"):
        Ledger(ledger.folder)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    Ledger(folder).close()
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {ledger_reader.VERSION + 1}")
    for opened in (Ledger, read_ledger):
        with pytest.raises(StateError, match=r"written by another version of playrelay \(tables \d+, here \d+\)"):
            opened(folder)
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {ledger_reader.VERSION}")
    Ledger(folder).close()  # the lock was let go


@pytest.mark.parametrize("content", [b"no database, but long enough to be looked at" * 40, b"PK\x03\x04"])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(content)
    with pytest.raises(StateError, match=r"ledger\.sqlite: .*name another folder with --state"):
        Ledger(str(tmp_path))
    assert (tmp_path / "ledger.sqlite").read_bytes() == content


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no state of playrelay is kept there; expected ledger\.sqlite"):
        read_ledger(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()


def test_only_the_user_may_look_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    Ledger(str(folder)).close()
    for path in (folder / "segments", folder / "slices"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_a_kill_left_half_made_is_swept(ledger: Ledger) -> None:
    folder = Path(ledger.folder)
    kept = write_slice(ledger, BOTH)
    (segment,) = ledger.waiting("teak")
    answer(segment, [(left(segment)[0], "delivered")])
    Path(ledger.message_file(kept)).write_bytes(b"messages")
    before = files(ledger)
    for name in ("segments/000000000099.segment", "segments/000000000099.segment.done", "slices/000000000099.messages"):
        (folder / name).write_bytes(b"half")
    (folder / f"slices/{kept:012d}.messages.partial").write_bytes(b"half")
    (folder / "slices/notes.txt").write_bytes(b"")
    ledger.close()
    with closing(Ledger(str(folder))) as again:
        assert files(again) == before
        assert len(left(again.waiting("teak")[0])) == 2
        # Numbers that were given out before are not given out again.
        assert again.new_slice() > kept
        assert again.new_segment()[0] > max(one.number for one in again.waiting("swrve"))


@pytest.mark.parametrize("left_over", [0, 1])
def test_numbers_go_on_when_what_was_last_is_finished(ledger: Ledger, left_over: int) -> None:
    for _ in range(3):
        last = write_slice(ledger, BOTH)
    segment = max(one.number for name in TARGETS for one in ledger.waiting(name))
    for name in TARGETS:
        for one in ledger.waiting(name)[left_over:]:
            answer(one, [(pair, "delivered") for pair in left(one)])
            finish(ledger, name, [one])
    ledger.close()
    with closing(Ledger(ledger.folder)) as again:
        assert again.new_slice() > last
        assert again.new_segment()[0] > segment


def test_a_database_that_was_only_just_made(tmp_path: Path) -> None:
    """A kill between making the file and its tables."""
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    with closing(Ledger(str(tmp_path))) as one:
        one.begin(TARGETS)
        write_slice(one, BOTH)
    connect(str(tmp_path), read_only=True).close()


WORK = """
import sys
from ledgers import TARGETS, Record, answer, finish, left, write_slice
from transforms.ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.begin(TARGETS)
print("ready", flush=True)
while True:
    write_slice(ledger, {name: [Record(), Record(), Record((0, 1))] for name in TARGETS}, segments=2)
    for name in TARGETS:
        for segment in ledger.waiting(name)[:1]:
            answer(segment, [(pair, "delivered") for pair in left(segment)])
            finish(ledger, name, [segment])
"""


def test_kills_at_any_moment_leave_sums_that_add_up(tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/ledger")))}
    slices = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WORK, folder], env=environment, stdout=subprocess.PIPE) as working:
            assert working.stdout is not None
            assert working.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0.0, 0.3))
            working.kill()
        assert working.returncode == -signal.SIGKILL
        with closing(Ledger(folder)) as ledger:
            read = {standing(ledger, name).totals.tally.records for name in TARGETS}
            assert len(read) == 1, "a slice is there for one destination and not for the other"
            (records,) = read
            assert records % 3 == 0
            assert records // 3 >= slices
            slices = records // 3
            for name in TARGETS:
                stands = standing(ledger, name)
                assert stands.totals.balanced(records)
                waiting = ledger.waiting(name)
                assert all(Path(one.path).exists() for one in waiting)
                assert stands.items == sum(len(left(one)) for one in waiting)
            assert {path for path in files(ledger) if not path.endswith(".done")} == {
                os.path.relpath(one.path, folder) for name in TARGETS for one in ledger.waiting(name)
            }
            assert all(journal_of(path).endswith(".done") for path in files(ledger))
    assert slices > 0
