"""What people see: live progress, tables, notes. Where the output is no terminal: plain text, 120 columns, no progress."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipelines.printable import one_line, printable
from transforms.sources.files import SUFFIXES, match
from transforms.vendors import get

if TYPE_CHECKING:
    from pipelines.local import Run
    from pipelines.plan import Plan
    from transforms.destination import Destination
    from transforms.mapping import Mapper
    from transforms.report import Report, Totals

REASONS_SHOWN = 5
"""Reasons a destination and outcome in the table; the report file has all."""

FIXED_WIDTH = 120
"""Columns where the output is no terminal, so that logs look the same everywhere."""

FIGURES = (
    "filtered",
    "delivered",
    "rejected",
    "undelivered",
    "items",
    "requests",
    "retries",
    "p50 ms",
    "p99 ms",
)


def console_of(file: TextIO) -> Console:
    """What writes to a terminal as wide as it is, and elsewhere 120 columns of plain text."""
    if file.isatty():
        return Console(file=file, highlight=False)
    return Console(file=file, highlight=False, width=FIXED_WIDTH, force_terminal=False, color_system=None)


def line(text: str, file: TextIO | None = None) -> None:
    """One line, which the terminal may fold but nothing cuts: paths in it can be copied."""
    console_of(file or sys.stdout).print(Text(printable(text)), soft_wrap=True)


def show_notes(notes: Sequence[str]) -> None:
    """What the user should know before the run."""
    for note in notes:
        line(f"note: {note}", sys.stderr)


@contextlib.contextmanager
def watching(run: Run, inputs: Sequence[str], *, quiet: bool) -> Iterator[None]:
    """Shows the progress of a run over files while it goes on."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    size = _size(inputs)
    with Live(
        console=console_of(sys.stderr),
        refresh_per_second=5,
        transient=True,
        get_renderable=lambda: _progress(run, size),
    ):
        yield


def _size(inputs: Sequence[str]) -> int:
    """Bytes of the input; 0 when sizes do not tell how much there is to read (compressed files)."""
    files = match(inputs)
    plain = not any(file.name.lower().endswith(tuple(SUFFIXES)) for file in files)
    return sum(file.size for file in files) if plain else 0


def _progress(run: Run, size: int) -> Table:
    seconds = max(time.monotonic() - run.started, 1e-9)
    records = run.progress.records
    table = Table.grid(padding=(0, 2))
    share = min(1.0, run.progress.bytes / size) if size else None
    state = "read" if share is None else f"read, {share:.0%} of the input"
    if share and run.reading:
        state += f", {duration(seconds / share - seconds)} left to read"
    table.add_row(Text(f"{records:,} records {state}"), Text(f"{records / seconds:,.0f}/s"), Text(duration(seconds)))
    for name, gate in run.gates.items():
        words = f"{gate.delivered:,} items delivered"
        if gate.failed:
            words += f", {gate.failed:,} not"
        if gate.halt is not None:
            words += f"; stopped: {one_line(gate.halt.reason, 60)}"
        table.add_row(Text(f"  {name}"), Text(words), Text(""))
    return table


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_report(report: Report, dead_letters: str | None, state: str | None = None) -> None:
    """The table that accounts for each record. state: folder where what is undelivered waits."""
    line(f"{report.read:,} records read in {report.seconds:.1f} s")
    console = console_of(sys.stdout)
    show_figures({name: _cells(total) for name, total in report.totals.items()}, FIGURES, console)
    _show_reasons(report, console)
    for name, reason in report.stopped.items():
        line(f"{name} stopped: {one_line(reason)}")
    sums = "the sums add up: read = filtered + delivered + rejected + undelivered for every destination"
    line(sums if report.balanced else "THE SUMS DO NOT ADD UP: records were lost or counted twice")
    waiting = sum(total.undelivered for total in report.totals.values())
    if state is not None and waiting:
        line(f"what is undelivered waits in {state}: the same command sends it")
    if any(total.rejected for total in report.totals.values()) or (waiting and state is None):
        kept = "nowhere; to keep what is not delivered, name a folder with --dead-letters"
        line(f"dead letters: {dead_letters or kept}")


def show_figures(cells: Mapping[str, Sequence[str]], figures: Sequence[str], console: Console) -> None:
    """Figures of destinations, and an empty line. cells: destination -> its figures, in the order of their names."""
    for table in _figures(cells, figures, console):
        console.print(table)
        console.print()


def _figures(cells: Mapping[str, Sequence[str]], figures: Sequence[str], console: Console) -> Iterator[Table]:
    """A row a destination; where that is too wide, a column a destination, in as many tables as it takes."""
    table = table_of(("destination",), figures)
    for name, own in cells.items():
        table.add_row(Text(name), *own)
    if _fits(table, console):
        yield table
        return
    names = list(cells)
    while names:
        several = range(len(names), 1, -1)
        taken = next((count for count in several if _fits(_turned(names[:count], cells, figures), console)), 1)
        yield _turned(names[:taken], cells, figures)
        names = names[taken:]


def _cells(total: Totals) -> list[str]:
    tally = total.tally
    counts = (
        total.filtered, total.delivered, total.rejected, total.undelivered, tally.mapped, tally.requests, tally.retries,
    )  # fmt: skip
    latency = [tally.percentile(share) for share in (0.5, 0.99)]
    return [*(f"{count:,}" for count in counts), *("" if ms is None else f"{ms:,.1f}" for ms in latency)]


def _turned(names: Sequence[str], cells: Mapping[str, Sequence[str]], figures: Sequence[str]) -> Table:
    table = table_of(("",), names)
    for index, figure in enumerate(figures):
        table.add_row(figure, *(cells[name][index] for name in names))
    return table


def table_of(left: Sequence[str], right: Sequence[str] = ()) -> Table:
    """A table of text columns and, right-aligned, columns of figures. Cells that are too wide are folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in left:
        table.add_column(Text(name), overflow="fold")
    for name in right:
        table.add_column(Text(name), overflow="fold", justify="right")
    return table


def _fits(table: Table, console: Console) -> bool:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width


def _show_reasons(report: Report, console: Console) -> None:
    rows = [
        row
        for name, total in report.totals.items()
        for outcome, reasons in (("filtered", total.tally.filtered), ("not delivered", total.tally.reasons))
        for row in _reasons(name, outcome, reasons)
    ]
    if not rows:
        return
    table = table_of(("destination", "outcome"), ("items",))
    table.add_column("reason", overflow="fold")
    for name, outcome, count, reason in rows:
        table.add_row(Text(name), outcome, count, Text(reason))
    console.print(table)
    console.print()


def _reasons(name: str, outcome: str, reasons: Mapping[str, int]) -> Iterator[tuple[str, str, str, str]]:
    ordered = sorted(reasons.items(), key=lambda pair: -pair[1])
    for reason, number in ordered[:REASONS_SHOWN]:
        yield name, outcome, f"{number:,}", one_line(reason)
    rest = ordered[REASONS_SHOWN:]
    if rest:
        yield name, outcome, f"{sum(number for _, number in rest):,}", f"{len(rest):,} other reasons: see the report"


def show_plan(plan: Plan, mappers: Mapping[str, Mapper]) -> None:
    """What a relay file says, once it is found to hold together."""
    show_notes(plan.notes)
    table = table_of(("destination", "vendor", "models", "batch", "shards", "rate", "mapping"))
    for to in plan.destinations:
        window = f", window {to.batch.window_ms / 1000:g} s" if to.batch.window_ms else ""
        table.add_row(
            Text(to.name),
            to.vendor,
            ", ".join(mappers[to.name].models),
            _batch(to, mappers[to.name].models) + window,
            str(to.shards),
            f"{to.rate:g}/s" if to.rate else "unlimited",
            mappers[to.name].version,
        )
    console_of(sys.stdout).print(table)


def _batch(to: Destination, models: Sequence[str]) -> str:
    if to.batch.items == 1:
        return "one item a request"
    under = get(to.vendor).models_under(to.options)
    by = "user" if all(under[model].route.by_user for model in models) else to.batch.by
    return f"by {by}, {to.batch.items:,} items, {to.batch.bytes:,} bytes"
