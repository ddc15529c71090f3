"""Runs a command as a process of its own and says what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TIMEOUT = 1800.0
"""Seconds after which a command is taken to hang."""


class Usage(NamedTuple):
    """What one process, and the processes it waited for, took."""

    seconds: float
    cpu: float
    """Seconds of CPU time, of all threads, from the process's start to its end."""
    peak: float
    """Most resident memory, in MB of 1,048,576 bytes."""
    output: str


def run(arguments: Sequence[str]) -> Usage:
    """Runs `python ARGUMENTS` from the project's folder; RuntimeError with its output when it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        code, used = _wait(child.pid, start + TIMEOUT)
        seconds = time.perf_counter() - start
        child.returncode = code
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if code:
        raise RuntimeError(f"exit code {code} from: python {' '.join(arguments)}\n{text}")
    # The kernel counts in kB on Linux, in bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, text)


def _wait(pid: int, until: float) -> tuple[int, os.struct_rusage]:  # type: ignore[name-defined]  # typeshed hides it
    """(exit code, usage) of a child, which is ended when it takes too long."""
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used
        if time.perf_counter() > until:
            os.kill(pid, 9)
        time.sleep(0.01)
