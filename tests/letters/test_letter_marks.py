"""Which letters were replayed: durable, beside the letters, for any number of processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from remote_folder import PREFIX, DiskFileSystem

from transforms.letter_marks import DELIVERED, FAILED_AGAIN, NAME, REPLAYED, WAITS, Key, Marks, State
from transforms.letter_stores import LetterError

ROOT = Path(__file__).parents[2]
T1, T2 = "2026-01-01T00:00:00.000+00:00", "2026-01-02T00:00:00.000+00:00"
HERE, THERE = State(1, "/here"), State(2, "/there")


def key(id: str, failures: int = 1, first: str = T1) -> Key:
    return Key(id, failures, first)


@pytest.fixture(params=["", PREFIX], ids=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    assert DiskFileSystem.scheme() in PREFIX
    return f"{request.param}{tmp_path}"


def test_marks_are_there_afterwards(place: str) -> None:
    marks = Marks(place)
    marks.mark([key("a"), key("b"), key("b", 2)], "delivered")
    marks.mark([key("c"), key("a")], "failed again")  # what is marked stays as it is
    marks.mark([], "delivered")
    for again in (marks, Marks(place), Marks(place, write=False)):
        assert [again.is_marked(key(*one)) for one in (("a", 1), ("a", 2), ("b", 2), ("c", 1), ("d", 1))] == [
            True, False, True, True, False,
        ]  # fmt: skip
        assert again.counts() == {"delivered": 3, "failed again": 1}
        again.close()


def test_looking_makes_nothing(place: str, tmp_path: Path) -> None:
    marks = Marks(place, write=False)
    assert not marks.is_marked(key("a")) and marks.counts() == {}
    marks.close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_can_be_looked_at(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path))
    marks.mark([key("a")], "delivered")
    marks.close()
    # Whoever runs the tests may be allowed anything, so the files are hidden behind a user who is nobody.
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from transforms.letter_marks import Key, Marks
os.setgid(65534); os.setuid(65534)
marks = Marks({str(tmp_path)!r}, write=False)
print(marks.is_marked(Key("a", 1, {T1!r})), marks.counts())
"""
    if os.getuid() != 0:
        program = program.replace("os.setgid(65534); os.setuid(65534)", "")
        tmp_path.chmod(0o555)
    else:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert done.stdout == "True {'delivered': 1}\n", done.stderr


def test_threads_and_processes_mark_at_the_same_time(tmp_path: Path) -> None:
    program = """
import sys
sys.path.insert(0, "tests/letters")
from test_letter_marks import mark_many
mark_many(sys.argv[1], sys.argv[2])
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    running = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("p1", "p2")]
    shared = Marks(str(tmp_path))
    threads = [threading.Thread(target=mark_many, args=(str(tmp_path), name, shared)) for name in ("t1", "t2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in running] == [0, 0]
    assert shared.counts() == {"delivered": 4 * 50 * 20}
    shared.close()


def mark_many(folder: str, name: str, marks: Marks | None = None) -> None:
    own = marks or Marks(folder)
    for n in range(50):
        own.mark([key(f"{name}-{n}-{i}") for i in range(20)], "delivered")
        assert own.is_marked(key(f"{name}-{n}-0"))
    if marks is None:
        own.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"nonsense" * 1_000)
    for write in (True, False):
        says = f"{tmp_path}/{NAME}: file is not a database; .*put back a copy of it. Without it all of them are open"
        with pytest.raises(LetterError, match=says):
            Marks(str(tmp_path), write)


def test_a_file_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    Marks(str(tmp_path)).close()
    base = sqlite3.connect(tmp_path / NAME)
    base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(LetterError, match=r"another version of playrelay \(version 9, here 2\)"):
        Marks(str(tmp_path))


def test_ids_are_texts_only(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path))
    odd = "'); DROP TABLE replayed; --\0\u202e"
    marks.mark([Key(odd, 1, odd)], odd)
    assert marks.is_marked(Key(odd, 1, odd)) and marks.counts() == {odd: 1}
    marks.close()


def test_what_was_not_known_is_settled(place: str) -> None:
    marks = Marks(place)
    letters = [key(f"{n:06}", 1 + n % 2) for n in range(25_000)]
    marks.mark(letters, WAITS, HERE)
    marks.mark([key("x")], REPLAYED)
    marks.mark([key("y")], DELIVERED)
    marks.settle([key("x"), key("y"), key("z"), key("000001")], FAILED_AGAIN)
    assert marks.counts() == {WAITS: 25_000, FAILED_AGAIN: 1, DELIVERED: 1}
    assert marks.waiting() == {HERE: 25_000}
    assert not list(marks.unsettled(WAITS, THERE.ledger)) and not list(marks.unsettled(REPLAYED, HERE.ledger))
    seen = []
    for some in marks.unsettled(WAITS, HERE.ledger):
        seen += some
        marks.settle(some[1:], DELIVERED)
    assert seen == letters
    marks.mark([letters[0]], FAILED_AGAIN)
    marks.mark(letters, WAITS, THERE)
    for again in (marks, Marks(place)):
        assert again.counts() == {FAILED_AGAIN: 2, DELIVERED: 24_998, WAITS: 2}
        assert again.waiting() == {THERE: 2}
        again.close()


def test_a_record_that_failed_anew_is_open_unless_it_waits(place: str) -> None:
    """Marks are of the failures of one time; what waits is sent, whatever else failed meanwhile."""
    marks = Marks(place)
    marks.mark([key("a"), key("a", 2)], DELIVERED)
    marks.mark([key("b")], WAITS, HERE)
    for again in (marks, Marks(place)):
        assert (
            again.is_marked(key("a", 2)) and not again.is_marked(key("a", 1, T2)) and not again.is_marked(key("a", 3))
        )
        assert again.is_marked(key("b", 1, T2)) and again.is_marked(key("b"))
        assert not again.is_marked(key("b", 2)), "it failed again, so it waits no more"
        assert not again.is_marked(key("b"), {HERE.ledger}) and again.is_marked(key("b"), {THERE.ledger})
    marks.mark([key("a", 1, T2)], DELIVERED)
    assert marks.is_marked(key("a", 1, T1)) and marks.is_marked(key("a", 1, T2)) and marks.counts()[DELIVERED] == 3
    marks.mark([key("b")], WAITS, THERE)
    assert marks.waiting() == {THERE: 1}
