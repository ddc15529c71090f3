"""What people see of a stream while it goes on, and of a state folder."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.display import console_of, duration, line, show_figures
from pipelines.printable import one_line
from pipelines.standing import standing
from transforms.ledger_reader import LETTERS, LedgerReader
from transforms.snapshot import Snapshot

FIGURES = ("read", "filtered", "delivered", "rejected", "undelivered", "items waiting", "MB waiting")
"""Of a status: all records, how many had each outcome, and what is on disk."""


@contextlib.contextmanager
def watching_stream(snapshot: Callable[[], Snapshot], *, quiet: bool) -> Iterator[None]:
    """Shows how a stream goes, where there is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    view = _View(snapshot)
    with Live(console=console_of(sys.stderr), refresh_per_second=4, transient=True, get_renderable=view.render):
        yield


class _View:
    """The live view; rates are of the last seconds."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._then = snapshot()
        self._rate = 0.0

    def render(self) -> Table:
        """The view now."""
        now, then = self._snapshot(), self._then
        if now.seconds - then.seconds >= 2:
            self._rate = (now.records - then.records) / (now.seconds - then.seconds)
            self._then = now
        grid = Table.grid(padding=(0, 2))
        lag = "" if now.oldest_unacknowledged_s is None else f", the oldest for {now.oldest_unacknowledged_s:,.1f} s"
        state = (
            f"holding: {one_line(now.holding, 80)}" if now.holding else f"{now.unacknowledged:,} unacknowledged{lag}"
        )
        bad = f", {now.undecodable:,} undecodable" if now.undecodable else ""
        grid.add_row(Text(f"{now.records:,} records{bad}"), Text(f"{self._rate:,.0f}/s"), Text(duration(now.seconds)))
        grid.add_row(Text(state), Text(f"{now.slices:,} slices"), Text(f"{now.errors:,} errors" if now.errors else ""))
        for to in now.destinations:
            words = f"{to.delivered:,} items delivered"
            if to.rejected or to.undelivered:
                words += f", {to.rejected + to.undelivered:,} not"
            waiting = f"{to.parked_items:,} wait" if to.parked_items else ""
            parked = f"parked: {one_line(to.reason, 60)}" if to.state == "parked" else ""
            grid.add_row(Text(f"  {to.name}"), Text(words), Text("; ".join(filter(None, (waiting, parked)))))
        return grid


def show_status(ledger: LedgerReader) -> None:
    """What a state folder holds: by destination what became of records, as in a report, what waits, and why."""
    cells: dict[str, list[str]] = {}
    now, parked, undecodable, waiting = time.time(), [], 0, 0
    for kept in ledger.destinations():
        stands = standing(ledger, kept.name)
        totals = stands.totals
        undecodable, waiting = max(undecodable, totals.tally.undecodable), waiting + stands.items
        if kept.parked_since is not None:
            since = duration(max(0.0, now - kept.parked_since))
            parked.append(f"{one_line(kept.name)} is parked for {since}: {one_line(kept.reason)}")
        counts = (
            stands.read, totals.filtered, totals.delivered, totals.rejected, totals.undelivered, stands.items,
        )  # fmt: skip
        name = kept.name if kept.name == kept.vendor else f"{kept.name} ({kept.vendor})"
        cells[name] = [*(f"{count:,}" for count in counts), f"{stands.bytes / 1e6:,.1f}"]
    show_figures(cells, FIGURES, console_of(sys.stdout))
    if undecodable:
        line(f"{undecodable:,} of the records could not be decoded: they are rejected at every destination")
    if waiting:
        line("records of which an item waits count as undelivered until it is delivered")
    for text in parked:  # not in the table, which would cut the key to mend in pieces
        line(text)
    letters = os.path.join(ledger.folder, LETTERS)
    if os.path.isdir(letters) and os.listdir(letters):
        line(f"dead letters: {letters}")
    slices = ledger.messages()
    unacknowledged = sum(len(ids) for _, acknowledged, ids in slices if not acknowledged)
    if slices:
        line(f"{unacknowledged:,} messages pulled and not acknowledged")
    unfinished = ledger.fact("unfinished")
    line(
        "a run goes on, or was cut off: the same command goes on with it"
        if unfinished
        else "the last run came to its end"
    )
