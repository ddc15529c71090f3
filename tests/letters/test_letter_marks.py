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

from transforms.letter_marks import DELIVERED, FAILED_AGAIN, NAME, REPLAYED, WAITS, Marks
from transforms.letter_stores import LetterError

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["", PREFIX], ids=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    assert DiskFileSystem.scheme() in PREFIX
    return f"{request.param}{tmp_path}"


def test_marks_are_there_afterwards(place: str) -> None:
    marks = Marks(place)
    marks.mark([("a", 1), ("b", 1), ("b", 2)], "delivered")
    marks.mark([("c", 1), ("a", 1)], "failed again")  # what is marked stays as it is
    marks.mark([], "delivered")
    for again in (marks, Marks(place), Marks(place, write=False)):
        assert [again.is_marked(*one) for one in (("a", 1), ("a", 2), ("b", 2), ("c", 1), ("d", 1))] == [
            True, False, True, True, False,
        ]  # fmt: skip
        assert again.counts() == {"delivered": 3, "failed again": 1}
        again.close()


def test_looking_makes_nothing(place: str, tmp_path: Path) -> None:
    marks = Marks(place, write=False)
    assert not marks.is_marked("a", 1) and marks.counts() == {}
    marks.close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_can_be_looked_at(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path))
    marks.mark([("a", 1)], "delivered")
    marks.close()
    # Whoever runs the tests may be allowed anything, so the files are hidden behind a user who is nobody.
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from transforms.letter_marks import Marks
os.setgid(65534); os.setuid(65534)
marks = Marks({str(tmp_path)!r}, write=False)
print(marks.is_marked("a", 1), marks.counts())
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
        own.mark([(f"{name}-{n}-{i}", 1) for i in range(20)], "delivered")
        assert own.is_marked(f"{name}-{n}-0", 1)
    if marks is None:
        own.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"nonsense" * 1_000)
    for write in (True, False):
        with pytest.raises(LetterError, match=f"{tmp_path}/{NAME}: file is not a database"):
            Marks(str(tmp_path), write)


def test_a_file_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    Marks(str(tmp_path)).close()
    base = sqlite3.connect(tmp_path / NAME)
    base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(LetterError, match="is of version 9, this playrelay writes version 1"):
        Marks(str(tmp_path))


def test_ids_are_texts_only(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path))
    odd = "'); DROP TABLE replayed; --\0\u202e"
    marks.mark([(odd, 1)], odd)
    assert marks.is_marked(odd, 1) and marks.counts() == {odd: 1}
    marks.close()


def test_what_was_not_known_is_settled(place: str) -> None:
    marks = Marks(place)
    letters = [(f"{n:06}", 1 + n % 2) for n in range(25_000)]
    marks.mark(letters, WAITS)
    marks.mark([("x", 1)], REPLAYED)
    marks.mark([("y", 1)], DELIVERED)
    marks.settle([("x", 1), ("y", 1), ("z", 1), ("000001", 1)], FAILED_AGAIN)
    assert marks.counts() == {WAITS: 25_000, FAILED_AGAIN: 1, DELIVERED: 1}
    seen = []
    for some in marks.unsettled(WAITS):
        seen += some
        marks.settle(some[1:], DELIVERED)
    assert seen == letters
    marks.mark([letters[0]], FAILED_AGAIN)
    marks.mark(letters, WAITS)
    for again in (marks, Marks(place)):
        assert again.counts() == {FAILED_AGAIN: 2, DELIVERED: 24_998, WAITS: 2}
        again.close()
