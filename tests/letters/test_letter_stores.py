"""Where letters are kept: whole, whatever writes beside and whenever it is killed; and said where they cannot be."""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from remote_folder import PREFIX, DiskFileSystem

from transforms import letter_stores
from transforms.letter_stores import Folder, LetterError, Line, check_location, fitted, store_of
from transforms.sources.messages import MAX_CONTENT

ROOT = Path(__file__).parents[2]


def lines(numbers: range | list[int], pad: int = 0) -> list[Line]:
    return [Line(f"{n:032x}", 1, "event", json.dumps({"n": n, "pad": "x" * pad}).encode() + b"\n") for n in numbers]


def kept(folder: Path) -> list[int]:
    """The letters in a folder, in its order."""
    return [json.loads(line)["n"] for file in sorted(folder.iterdir()) for line in file.read_bytes().splitlines()]


def add(folder: Path, numbers: range | list[int], pad: int = 0) -> None:
    Folder(str(folder)).add("teak", "rejected", lines(numbers, pad), "")


def test_writes_go_behind_each_other_into_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    store = Folder(str(folder))
    for n in range(20):
        store.add("teak", "rejected", lines([n]), "")
    add(folder, range(20, 30))
    store.add("teak", "undelivered", lines([30]), "")
    assert kept(folder) == list(range(31))
    assert sorted(os.listdir(folder)) == ["rejected-teak-000001.jsonl", "undelivered-teak-000001.jsonl"]


@pytest.mark.parametrize(
    ("bytes_", "letters", "sizes"),
    [(1_000, 100, [9, 9, 7]), (1 << 20, 10, [10, 10, 5]), (5, 100, [1] * 25)],
    ids=["full of bytes", "full of letters", "each too large"],
)
def test_files_are_rotated(
    bytes_: int, letters: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_stores, "FILE_BYTES", bytes_)
    monkeypatch.setattr(letter_stores, "FILE_LETTERS", letters)
    for n in range(25):
        add(tmp_path, [n], pad=90 if bytes_ == 1_000 else 0)
    assert kept(tmp_path) == list(range(25))
    assert [len(file.read_bytes().splitlines()) for file in sorted(tmp_path.iterdir())] == sizes


def test_letters_of_others_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_stores, "FILE_LETTERS", 10)
    one, other = Folder(str(tmp_path)), Folder(str(tmp_path))
    for n in range(0, 40, 2):
        one.add("teak", "rejected", lines([n]), "")
        other.add("teak", "rejected", lines([n + 1]), "")
    assert kept(tmp_path) == list(range(40))
    assert {len(file.read_bytes().splitlines()) for file in tmp_path.iterdir()} == {10}


def test_a_line_that_a_killed_process_left_unfinished_stays_alone(tmp_path: Path) -> None:
    add(tmp_path, [1])
    (file,) = tmp_path.iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"n": 2, "pa')
    add(tmp_path, [3])
    assert file.read_bytes().splitlines() == [lines([1])[0].text.strip(), b'{"n": 2, "pa', lines([3])[0].text.strip()]


def test_a_file_taken_away_is_begun_anew(tmp_path: Path) -> None:
    store = Folder(str(tmp_path))
    store.add("teak", "rejected", lines(range(5)), "")
    (file,) = tmp_path.iterdir()
    file.unlink()
    store.add("teak", "rejected", lines([7]), "")
    assert kept(tmp_path) == [7]


def test_threads_and_processes_write_at_the_same_time(tmp_path: Path) -> None:
    """Each adds 40 times 25 letters, files being rotated meanwhile: all are there, and each write stands together."""
    program = """
import sys
from transforms import letter_stores
sys.path.insert(0, "tests/letters")
from test_letter_stores import add_many
add_many(*sys.argv[1:])
"""
    running = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, str(tmp_path), str(start)], cwd=ROOT)
        for start in (0, 1_000)
    ]
    threads = [threading.Thread(target=add_many, args=(str(tmp_path), start)) for start in (2_000, 3_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in running] == [0, 0]
    found = kept(tmp_path)
    assert sorted(found) == list(range(4_000))
    assert all(found[at : at + 25] == list(range(found[at], found[at] + 25)) for at in range(0, 4_000, 25))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) > 3 and max(sizes) <= 200_000


def test_letters_that_were_added_outlive_a_kill(tmp_path: Path) -> None:
    """Killed at any moment, a writer leaves all that it said was added, and at most one line that is cut off."""
    program = """
import sys
sys.path.insert(0, "tests/letters")
from test_letter_stores import add_and_tell
add_and_tell(sys.argv[1], int(sys.argv[2]))
"""
    told: set[int] = set()
    for attempt in range(4):
        command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path), str(attempt * 1_000_000)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            told.update(map(int, itertools.islice(running.stdout, 20 + 30 * attempt)))
            running.kill()
            told.update(int(line) for line in running.stdout if line.endswith("\n"))
    whole: list[int] = []
    torn = 0
    for file in sorted(tmp_path.iterdir()):
        for line in file.read_bytes().splitlines():
            try:
                whole.append(json.loads(line)["n"])
            except ValueError:
                torn += 1
    assert len(told) >= 20 + 50 + 80 + 110 and torn <= 4
    for start in told:
        assert set(range(start, start + 10)) <= set(whole)
    assert len(whole) == len(set(whole))


def add_and_tell(folder: str, start: int) -> None:
    store = Folder(folder)
    for at in range(start, start + 1_000_000, 10):
        store.add("teak", "rejected", lines(range(at, at + 10), pad=3_000), "")
        print(at, flush=True)


def add_many(folder: str, start: str | int) -> None:
    letter_stores.FILE_BYTES = 200_000  # type: ignore[misc]
    store = Folder(folder)
    for at in range(int(start), int(start) + 1_000, 25):
        store.add("teak", "rejected", lines(range(at, at + 25), pad=400), "")


def test_a_full_disk_leaves_what_was_there_and_is_said(tmp_path: Path) -> None:
    """The limit of a file's size stands for a full disk: a write is cut short, and the next fails."""
    add(tmp_path, range(3))
    program = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/letters")
from test_letter_stores import add
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    add(Path({str(tmp_path)!r}), list(range(3, 90)))
except OSError as error:
    print(error)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"[Errno {errno.EFBIG}] File too large; dead letters are kept there: make room, or name another place for them: "
        f"'{tmp_path}/rejected-teak-000001.jsonl'\n"
    )
    assert kept(tmp_path) == [0, 1, 2]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError) as caught:
        add(file / "dead", [1])
    assert str(file) in str(caught.value)
    assert "name another place for them" in str(caught.value)


def test_objects_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DiskFileSystem.scheme() == "disk"
    monkeypatch.setattr(letter_stores, "FILE_LETTERS", 10)
    store = store_of(f"{PREFIX}{tmp_path}/dead")
    for _ in range(2):  # the same letters again, as after a crash
        store.add("teak", "rejected", lines(range(25)), "slice-7")
    store.add("teak", "rejected", lines(range(30, 32)), "slice-7")
    names = sorted(os.listdir(tmp_path / "dead"))
    assert all(re.fullmatch("rejected-teak-slice-7-[0-9a-f]{32}.jsonl", name) for name in names)
    assert sorted(kept(tmp_path / "dead")) == [*range(25), 30, 31]
    assert len(names) == 4


@pytest.mark.parametrize("location", ["dead", "/tmp/dead", "./projects/p", "gs://bucket/dead", "projects/p/topics/t"])
def test_locations(location: str) -> None:
    check_location(location)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("projects/p/subscriptions/s", "is a subscription; expected projects/PROJECT/topics/TOPIC, or a folder"),
        ("projects/p/topics", "expected projects/PROJECT/topics/TOPIC, or a folder (./projects/p/topics)"),
        ("projects/p/topics/t/u", "expected projects/PROJECT/topics/TOPIC"),
        ("nowhere://bucket/dead", "nowhere://bucket/dead: expected a folder on disk, gs://… or projects/…/topics/…"),
    ],
)
def test_what_is_no_location(location: str, says: str) -> None:
    for function in (check_location, store_of):
        with pytest.raises(LetterError) as caught:
            function(location)
        assert says in str(caught.value)


def letter(**fields: object) -> bytes:
    return json.dumps({"id": "i", "reason": "r", "source": {"name": "s"}, "user": "u"} | fields).encode() + b"\n"


def test_a_letter_that_pubsub_takes_goes_as_it_is() -> None:
    text = letter(original="x" * 9_000_000)
    assert fitted(text) == (text.strip(), {})


def test_a_larger_letter_is_compressed_and_only_then_cut() -> None:
    text = letter(original="x" * 12_000_000, payload={"a": 1})
    data, attributes = fitted(text)
    assert attributes == {"encoding": "gzip"}
    assert gzip.decompress(data) == text.strip()

    # What reads messages takes no more than this of one.
    large = letter(original="x" * 40_000_000, payload={"a": "x" * 40_000_000})
    data, attributes = fitted(large)
    told = json.loads(gzip.decompress(data))
    assert set(told["cut"]) == {"payload"} and len(told["original"]) == 40_000_000
    assert len(gzip.decompress(data)) <= MAX_CONTENT

    random = os.urandom(6_000_000).hex()
    more = os.urandom(9_000_000).hex()
    given: list[tuple[dict[str, Any], set[str]]] = [
        ({"original": random[:9_000_000], "payload": {"a": random}}, {"payload"}),
        ({"original": more, "payload": {"a": 1}}, {"payload", "original"}),
        ({"original": more, "payload": None, "source": {"name": "s", "header": more}}, {"original", "source"}),
    ]
    for fields, cut in given:
        data, attributes = fitted(letter(**fields))
        assert len(data) <= letter_stores.MAX_MESSAGE and attributes == {"encoding": "gzip"}
        told = json.loads(gzip.decompress(data))
        assert set(told["cut"]) == cut
        assert (told["id"], told["reason"], told["source"]) == ("i", "r", {"name": "s"})
        for field in cut - {"source"}:
            assert told[field] is None
            assert told["cut"][field] == len(json.dumps(fields[field]))
