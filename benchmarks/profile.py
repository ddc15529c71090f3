"""Where a case's CPU time goes: all threads' functions, by their own time.

    python -m benchmarks.profile CASE [--events N] [--lines N]

Profiling makes calls dearer than they are, so figures are for finding, not for quoting.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import pstats
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.runs import RELAYS, Bench
from benchmarks.sink import Sink


class _Threads:
    """A profiler of CPU time a thread: each thread gets its own when it starts."""

    def __init__(self) -> None:
        self.profilers: list[cProfile.Profile] = []
        self._run = threading.Thread.run

    def __enter__(self) -> _Threads:
        ours = self

        def run(self: threading.Thread) -> None:
            with ours.one():
                ours._run(self)

        threading.Thread.run = run  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        threading.Thread.run = self._run  # type: ignore[method-assign]

    def one(self) -> contextlib.AbstractContextManager[cProfile.Profile]:
        """A profiler for the thread that calls."""
        profiler = cProfile.Profile(time.thread_time)
        self.profilers.append(profiler)
        return profiler


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(path.stem for path in RELAYS.glob("*.yaml")))
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--lines", type=int, default=40)
    given = parser.parse_args()
    from pipelines.local import Run
    from pipelines.plan import make_plan
    from pipelines.relay_file import load
    from pipelines.run_files import slices

    folder = Path(tempfile.gettempdir()) / "playrelay-bench"
    folder.mkdir(exist_ok=True)
    with Sink(folder) as sink:
        bench = Bench(folder, sink)
        events = bench.events(given.events)
        plan, _ = make_plan(load(bench.relay(given.case)))
        with _Threads() as threads, threads.one():
            job = Run(plan)
            job.run(slices(job, [str(events)], again=False))
        stats = pstats.Stats(*threads.profilers, stream=sys.stdout)
        stats.sort_stats("tottime").print_stats(given.lines)


if __name__ == "__main__":
    main()
