"""The pace that processes keep together: the vendor's rate for all of them, pauses for all, and nothing told to others."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from transforms.deliver import pace
from transforms.deliver.gate import Gate
from transforms.deliver.pace import LOCKED_S, SharedPace

INTERVAL = 1 / 93
CREDENTIALS = {"game_id": "chess", "secret_key": "very-secret-key"}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of this test's processes are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"playrelay-{os.geteuid()}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shared(clock: Clock | None = None, url: str = "https://vendor", **credentials: str) -> SharedPace:
    return SharedPace("teak", url, CREDENTIALS | credentials, clock or time.monotonic)


def states(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name != "key")


def test_two_keep_the_rate_together_and_use_it(clock: Clock) -> None:
    both = shared(clock), shared(clock)
    left: list[tuple[float, int]] = []
    for step in range(8000):
        clock.now = 1000.0 + step / 2000
        for number in (0, 1) if step % 2 else (1, 0):
            while both[number].claim(INTERVAL, 3 * INTERVAL) == 0.0:
                left.append((clock.now, number))
    assert 4 * 92 <= len(left) <= 4 * 93 + 4
    for index, (moment, _) in enumerate(left):
        assert sum(moment - 1.0 < other <= moment for other, _ in left[: index + 1]) <= 97
    assert abs(sum(number for _, number in left) - len(left) / 2) < len(left) / 8, "one hardly came to send"


def test_a_pause_is_for_the_other_too_and_the_longest_stands(clock: Clock) -> None:
    one, other = shared(clock), shared(clock)
    one.pause(1005.0)
    one.pause(1003.0)
    assert other.claim(INTERVAL, 0.0) == pytest.approx(5.0)
    clock.now = 1005.0
    assert other.claim(INTERVAL, 0.0) == 0.0
    assert one.claim(INTERVAL, 0.0) == pytest.approx(INTERVAL)


def test_gates_share_a_rate_and_pauses() -> None:
    one, other = Gate(0.5, 4), Gate(0.5, 4)
    for gate in (one, other):
        gate.enter(4)
        gate.share("teak", "https://vendor", CREDENTIALS)
    assert one.claim(time.monotonic()) == 0.0
    assert 1.5 < other.claim(time.monotonic()) <= 1 / (0.5 * 0.93)
    other.pause(time.monotonic() + 30)
    third = Gate(0.5, 4)
    third.share("teak", "https://vendor", CREDENTIALS)
    assert 29 < third.claim(time.monotonic()) <= 30
    for gate in (one, other, third):
        gate.close()


def test_a_share_is_not_taken_twice(clock: Clock) -> None:
    """Processes of one machine of a fleet, with a quarter of the shards each: a quarter of the rate each, not a 16th."""
    one, other = Gate(100.0, 16), Gate(100.0, 16)
    for gate in (one, other):
        gate.enter(4)
        gate._shared = shared(clock)
    left = 0
    for step in range(8000):
        clock.now = 1000.0 + step / 2000
        left += (one.claim(clock.now) == 0.0) + (other.claim(clock.now) == 0.0)
    assert 4 * 45 <= left <= 4 * 47 + 2


def test_others_have_a_pace_of_their_own(clock: Clock, folder: Path) -> None:
    all_ = [
        shared(clock),
        shared(clock, url="https://elsewhere"),
        shared(clock, secret_key="another"),
        SharedPace("swrve", "https://vendor", CREDENTIALS, clock),
    ]
    assert [one.claim(INTERVAL, 0.0) for one in all_] == [0.0] * 4
    assert len(list(states(folder))) == 4


def test_the_files_are_the_users_alone_and_tell_nothing(clock: Clock, folder: Path) -> None:
    one = shared(clock)
    one.claim(INTERVAL, 0.0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = sorted(os.listdir(folder))
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(value in path.name or value.encode() in path.read_bytes() for value in CREDENTIALS.values())
    (folder / "key").unlink()
    shared(clock)
    assert names != sorted(os.listdir(folder)), "the name does not depend on the random key"


def test_a_file_from_before_the_machine_started_counts_for_nothing(clock: Clock, folder: Path) -> None:
    shared(clock).pause(1e6)
    clock.now = 20.0  # the clock starts again with the machine
    assert shared(clock).claim(INTERVAL, 0.0) == 0.0


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<ddd", 9e9, 9e9, 9e9) + b"more"])
def test_a_file_that_makes_no_sense_counts_for_nothing(clock: Clock, folder: Path, content: bytes) -> None:
    one = shared(clock)
    (path,) = states(folder)
    path.write_bytes(content)
    assert one.claim(INTERVAL, 0.0) == 0.0


def test_who_is_stopped_with_the_lock_stops_nobody(clock: Clock, folder: Path) -> None:
    one = shared(clock)
    (path,) = states(folder)
    with open(path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert one.claim(INTERVAL, 0.0) == LOCKED_S
        one.pause(2000.0)
    assert one.claim(INTERVAL, 0.0) == 0.0


def test_removed_files_are_made_again(clock: Clock, folder: Path) -> None:
    one = shared(clock)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    one.claim(INTERVAL, 0.0)
    assert shared(clock).claim(INTERVAL, 0.0) == pytest.approx(INTERVAL)


def test_files_nobody_used_for_a_day_are_removed(clock: Clock, folder: Path) -> None:
    shared(clock, url="https://old").close()
    (old,) = states(folder)
    os.utime(old, (time.time() - pace.UNUSED_S - 10,) * 2)
    os.utime(folder / "key", (0, 0))
    shared(clock)
    assert not old.exists()
    assert len(list(states(folder))) == 1
    assert (folder / "key").exists()


def test_a_folder_that_cannot_be_written_is_said_and_does_no_harm(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/sys")
    one = shared(clock)
    assert [one.claim(INTERVAL, 0.0) for _ in range(3)] == [0.0] * 3
    one.pause(9e9)
    one.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "kept within this process only" in record.message
    assert "/sys/playrelay-" in record.message
    assert "TMPDIR" in record.message


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_folder_of_others_is_not_used(
    clock: Clock, folder: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    folder.mkdir()
    folder.chmod(mode)
    shared(clock)
    assert list(folder.iterdir()) == []
    assert "it is not this user's alone; remove it" in caplog.text


def test_a_link_is_not_followed(clock: Clock, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "target").mkdir(0o700)
    folder.symlink_to(tmp_path / "target")
    shared(clock)
    assert list((tmp_path / "target").iterdir()) == []
    assert "kept within this process only" in caplog.text


def test_without_a_rate_no_file_is_touched(folder: Path) -> None:
    gate = Gate(None, 1)
    gate.share("teak", "https://vendor", CREDENTIALS)
    assert gate.claim(0.0) == 0.0
    gate.pause(5.0)
    assert not folder.exists()


def test_asking_costs_little() -> None:
    one = shared()
    started = time.process_time()
    for _ in range(5000):
        one.claim(0.0, 0.0)
    assert (time.process_time() - started) / 5000 < 50e-6
