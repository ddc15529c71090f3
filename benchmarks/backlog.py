"""Messages published as they are taken, so that about as many wait all the while.

Google's emulator goes through all that waits for each pull while any message is out, so what it gives depends on that.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from benchmarks import measure
from benchmarks.sink import Sink
from tests.pubsub.emulator import Emulator

Taken = Callable[[], int]
"""How many messages are taken so far."""

_AT_ONCE = 1_000
_PAUSE_S = 0.003
_ASKED_S = 0.01
"""Seconds for which the sink's answer is used again: asking costs it time."""
_LIMIT_S = 300.0


def rate(emulator: Emulator, topic: str, lines: Sequence[bytes], waiting: int, taken: Taken) -> float:
    """Messages a second that are taken of `lines`, published so that up to `waiting` of them wait. The first quarter is
    not measured, so nothing of starting is. RuntimeError when it takes too long."""
    publishing = threading.Thread(target=_publish, args=(emulator, topic, lines, waiting, taken), daemon=True)
    publishing.start()
    until(lambda: taken() >= len(lines) // 4, _PAUSE_S)
    before, started = taken(), time.perf_counter()
    until(lambda: taken() >= len(lines), _PAUSE_S)
    seconds = time.perf_counter() - started
    publishing.join()
    return (len(lines) - before) / seconds


def _publish(emulator: Emulator, topic: str, lines: Sequence[bytes], waiting: int, taken: Taken) -> None:
    for at in range(0, len(lines), _AT_ONCE):
        while at - taken() >= waiting:
            time.sleep(_PAUSE_S)
        emulator.publish(topic, lines[at : at + _AT_ONCE])


def until(done: Callable[[], bool], pause_s: float = 0.05) -> None:
    """Waits, and looks so often. RuntimeError when it takes too long."""
    limit = time.monotonic() + _LIMIT_S
    while not done():
        if time.monotonic() > limit:
            raise RuntimeError(f"not done in {_LIMIT_S:g} s")
        time.sleep(pause_s)


def taken_by(sink: Sink) -> Taken:
    """Counts what the sink takes from now on."""
    before = sink.counts()
    last = [0.0, 0]

    def taken() -> int:
        now = time.monotonic()
        if now >= last[0] + _ASKED_S:
            last[:] = now, sink.counts().since(before).items
        return int(last[1])

    return taken


@contextlib.contextmanager
def loop(subscription: str, count: int, hold_s: float) -> Iterator[Taken]:
    """The yardstick (benchmarks/pull_loop.py) as a process; counts what it has acknowledged."""
    last = [0]

    def read(output: IO[bytes]) -> None:
        for line in output:
            last[0] = int(line)

    command = [sys.executable, "-m", "benchmarks.pull_loop", subscription, str(count), str(hold_s)]
    with subprocess.Popen(command, cwd=measure.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reading = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reading.start()
        yield lambda: last[0]
        reading.join()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} from {' '.join(command)}")
