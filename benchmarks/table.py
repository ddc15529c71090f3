"""`make bench`: playrelay against the least work that could do the same, as a Markdown table.

    python -m benchmarks.table [--events N] [--repeat N] [--cases NAME…]

Every case is a process of its own; its CPU time is of all its threads, from Python's start to its end. The floor and
the product take turns, so that what else the machine does falls on both, and a ratio is the median of the turns'.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.runs import SAMPLE, Bench, Product
from benchmarks.sink import NoGo, Sink

EVENTS = 1_000_000
LARGE = 5
"""How many times the events the second memory figure takes."""


class Row(NamedTuple):
    """A line of the table."""

    case: str
    figure: str
    goal: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        met = "" if self.met is None else "yes" if self.met else "**no**"
        return f"| {self.case} | {self.figure} | {self.goal} | {met} |"


class Ratio(NamedTuple):
    """A case that is measured in floors."""

    title: str
    relay: str
    mode: str
    goal: float | None


RATIOS = {
    "teak": Ratio("Teak, batches of 100, checked, accounted for, in user order", "teak", "shuffle", 2.0),
    "swrve": Ratio("Swrve, batches by user", "swrve_by_user", "user", 2.5),
    "four": Ratio("Teak + 12traits + Parcelvoy + Swrve from one read", "four", "shuffle", 5.0),
    "four-defaults": Ratio("the same, Swrve by user, Parcelvoy's bodies zipped", "four_defaults", "shuffle", None),
}


class Table:
    """Measures the cases; each method gives the rows of one."""

    def __init__(self, bench: Bench, events: int, repeat: int) -> None:
        self.bench = bench
        self.count = events
        self.repeat = repeat
        self.few = bench.events(1)
        self._start: dict[str, float] = {}

    def ratio(self, case: Ratio) -> Iterator[Row]:
        """Product and floor in turns."""
        events = self.bench.events(self.count)
        floor_start = self._start_of(case.mode, lambda: self.bench.floor(case.mode, self.few).cpu)
        start = self._start_of(case.relay, lambda: self.bench.product(case.relay, self.few).usage.cpu)
        whole, work, floors = [], [], []
        runs: list[Product] = []
        for _ in range(self.repeat):
            floors.append(self.bench.floor(case.mode, events).cpu)
            runs.append(self.bench.product(case.relay, events))
            used = runs[-1].usage.cpu
            whole.append(used / floors[-1])
            work.append((used - start) / (floors[-1] - floor_start))
        cpu = statistics.median(run.usage.cpu for run in runs)
        items = runs[0].items
        rest = f"{statistics.median(work):.2f} x without Python's start and imports"
        figure = (
            f"**{statistics.median(whole):.2f} x** the floor's `{case.mode}`, {rest}: {cpu:.1f} s of CPU against "
            f"{statistics.median(floors):.1f} s; {items:,} items, {runs[0].requests:,} requests, "
            f"{max(run.usage.peak for run in runs):,.0f} MB"
        )
        met = None if case.goal is None else max(statistics.median(whole), statistics.median(work)) <= case.goal
        yield Row(case.title, figure, "" if case.goal is None else f"at most {case.goal:.1f} x", met)
        yield self._sink_row(case.title, runs[-1])

    def _sink_row(self, title: str, run: Product) -> Row:
        share = run.sink.cpu / run.usage.seconds
        return Row(f"↳ the sink meanwhile: {title.split(',')[0]}", f"{share:.0%} of one core busy")

    def _start_of(self, name: str, measured: Callable[[], float]) -> float:
        """CPU seconds of a command that has one event to relay."""
        if name not in self._start:
            self._start[name] = statistics.median(measured() for _ in range(3))
        return self._start[name]

    def traitly(self) -> Iterator[Row]:
        """One request an event."""
        count = max(1, self.count // 5)
        events = self.bench.events(count)
        start = self._start_of("traitly", lambda: self.bench.product("traitly", self.few).usage.cpu)
        runs = [self.bench.product("traitly", events) for _ in range(self.repeat)]
        rate = statistics.median(run.requests / run.usage.cpu for run in runs)
        work = statistics.median(run.requests / (run.usage.cpu - start) for run in runs)
        figure = f"**{rate:,.0f}** requests/s a core, {work:,.0f} without start and imports; {count:,} events"
        yield Row("Traitly, one request an event", figure, "at least 20,000/s a core", rate >= 20_000)
        yield self._sink_row("Traitly", runs[-1])

    def memory(self) -> Iterator[Row]:
        """Peak memory, and that it does not grow with the input."""
        small = self.bench.product("teak", self.bench.events(self.count)).usage.peak
        large = self.bench.product("teak", self.bench.events(LARGE * self.count)).usage.peak
        yield Row(f"Peak memory, {self.count:,} events to Teak", f"**{small:,.0f} MB**", "under 400 MB", small < 400)
        yield Row(
            f"Peak memory, {LARGE * self.count:,} events",
            f"{large:,.0f} MB, **{large / small:.2f} x**",
            "at most 1.15 x",
            large <= 1.15 * small,
        )

    def sample(self) -> Iterator[Row]:
        """The whole command, as a person waits for it."""
        runs = [self.bench.product("sample", SAMPLE) for _ in range(self.repeat)]
        seconds = statistics.median(run.usage.seconds for run in runs)
        cpu = statistics.median(run.usage.cpu for run in runs)
        yield Row(
            "5,000 records to all five vendors, whole command",
            f"**{seconds:.2f} s** ({cpu:.2f} s of CPU); {runs[0].items:,} items, {runs[0].requests:,} requests",
            "under 3 s",
            seconds < 3,
        )

    def avro(self) -> Iterator[Row]:
        """Avro container files against JSON lines, both to Teak."""
        start = self._start_of("teak", lambda: self.bench.product("teak", self.few).usage.cpu)
        for codec in ("null", "deflate"):
            events, avro = self.bench.events(self.count), self.bench.avro(self.count, codec)
            whole, work = [], []
            for _ in range(self.repeat):
                lines = self.bench.product("teak", events).usage.cpu
                blocks = self.bench.product("teak", avro).usage.cpu
                whole.append(lines / blocks)
                work.append((lines - start) / (blocks - start))
            ratio, rest = statistics.median(whole), statistics.median(work)
            yield Row(
                f"Avro container input, codec `{codec}`",
                f"**{ratio:.2f} x** the rate of JSON lines, {rest:.2f} x without start and imports",
                "at least 0.4 x",
                min(ratio, rest) >= 0.4,
            )

    def compare(self) -> Iterator[Row]:
        """Others' ways, in events a second of CPU time."""
        count = max(1, self.count // 10)
        for title, module, number in (
            ("asyncio + aiohttp + orjson script", "compare_asyncio", self.count),
            ("Beam with GroupIntoBatches", "compare_group_into_batches", count),
        ):
            events = self.bench.events(number)
            start = self._start_of(module, functools.partial(self._other_start, module))
            used = statistics.median(self.bench.other(module, events, number).cpu for _ in range(self.repeat))
            figure = f"**{number / (used - start):,.0f}** events a second of CPU, start and imports left out"
            yield Row(f"For comparison: {title}", figure)
        start = self._start_of("teak", lambda: self.bench.product("teak", self.few).usage.cpu)
        events = self.bench.events(self.count)
        used = statistics.median(self.bench.product("teak", events).usage.cpu for _ in range(self.repeat))
        yield Row("The same of playrelay", f"**{self.count / (used - start):,.0f}** events a second of CPU")

    def _other_start(self, module: str) -> float:
        return self.bench.other(module, self.few, 1).cpu

    def sink(self) -> Iterator[Row]:
        """What the sink takes from libcurl alone."""
        batches = self.bench.blast("teak", 100, 20_000)
        singles = self.bench.blast("traitly", 0, 100_000)
        figure = f"{batches:,.0f} batches of 100 a second ({100 * batches:,.0f} events/s), {singles:,.0f} single events a second"
        yield Row("The sink alone, fed by bare libcurl", figure)


CASES = (*RATIOS, "traitly", "memory", "sample", "avro", "compare", "sink")


def machine() -> str:
    """What it was measured on."""
    names = ("apache-beam", "msgspec", "pycurl", "fastavro")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; Python {platform.python_version()}, {versions}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    default = Path(tempfile.gettempdir()) / "playrelay-bench"
    parser.add_argument("--folder", type=Path, default=default, help="where events are kept from run to run")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        with Sink(given.folder) as sink:
            table = Table(Bench(given.folder, sink), given.events, given.repeat)
            print(f"{given.events:,} events, {given.repeat} turns; {machine()}\n")
            print("| case | figure | goal | met |\n|---|---|---|---|", flush=True)
            for name in given.cases:
                rows = table.ratio(RATIOS[name]) if name in RATIOS else getattr(table, name)()
                for row in rows:
                    print(row, flush=True)
    except NoGo as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
