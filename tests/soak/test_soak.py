"""The soak itself: kills that strike nothing prove nothing, and are no success."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import ENVIRONMENT, ROOT

from tests.soak.__main__ import wanting


@pytest.mark.parametrize(
    ("struck", "ended", "said"),
    [
        (20, 0, ""),
        (15, 0, ""),
        (14, 0, "only 14 of 20 kills struck"),
        (0, 0, "only 0 of 20"),
        (19, 1, "1 of 20 processes"),
    ],
)
def test_what_kills_must_strike(struck: int, ended: int, said: str) -> None:
    assert wanting(20, struck, ended).startswith(said)
    assert bool(wanting(20, struck, ended)) is bool(said)


def test_a_process_that_ends_before_its_kill_fails_the_soak() -> None:
    """The run of 20 events is over before the 3.8 s that seed 2 gives it."""
    command = [
        sys.executable,
        "-m",
        "tests.soak",
        "--only",
        "backfill",
        "--events",
        "20",
        "--kills",
        "1",
        "--seed",
        "2",
    ]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("seed 2\n")
    assert "1 of 1 processes had ended before their kill" in done.stdout
    assert "backfill, teak: 0 lost, 0 came twice" in done.stdout
