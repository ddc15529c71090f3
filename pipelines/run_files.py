"""`playrelay run`: files in, report out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from apache_beam.io.filesystems import FileSystems

from pipelines import display, outputs
from pipelines.local import Run
from pipelines.plan import Plan, check_credentials, make_plan
from pipelines.relay_file import Relay
from transforms import intake, progress
from transforms.destination import Destination
from transforms.ledger import Ledger
from transforms.map_records import Selection
from transforms.read import check_schemas
from transforms.report import DONE, UNDELIVERED, Report
from transforms.vendors import get


def run_files(
    relay: Relay,
    inputs: Sequence[str],
    *,
    selection: Selection = Selection(),
    only: Sequence[str] = (),
    dead_letters: str | None = None,
    report: str | None = None,
    max_rejected: int | None = None,
    quiet: bool = False,
    state: str | None = None,
    again: bool = False,
) -> int:
    """Relays files and returns the exit code. Raises what a user can mend before anything is sent.

    state: folder in which is kept what is done, so that a run that was cut off goes on; again: what is done there is
    done again.
    """
    plan, _ = make_plan(relay, selection, only)
    check_credentials(plan)
    check_schemas(inputs, plan.layout, plan.source.schema)
    outputs.prepare(dead_letters, report)
    with contextlib.ExitStack() as stack:
        ledger, files = None, {}
        if state is not None:
            ledger = stack.enter_context(contextlib.closing(Ledger(state)))
            # Before the ledger begins a run: one that is refused leaves the figures of the last one as they are.
            files = intake.look(ledger, inputs, [to.name for to in plan.destinations], selection.text(), again)
        notes = [*plan.notes, *(begin(ledger, plan) if ledger else ())]
        if not quiet:
            display.show_notes(notes)
        if again:  # what is sent again was seen before: that is no reason to leave it out
            plan = dataclasses.replace(plan, source=dataclasses.replace(plan.source, dedupe=None))
        job = Run(plan, dead_letters=dead_letters, ledger=ledger)
        with display.watching(job, inputs, quiet=quiet), stopped_by_signals(job.interrupt), rarely_collecting():
            result = job.run(slices(job, inputs, files, again))
        if ledger is not None:
            ledger.end(complete=not job.interrupted)
    write_report(result, report)
    if not quiet:
        display.show_report(result, dead_letters, state)
    code = result.exit_code(max_rejected)
    if job.interrupted and not quiet:
        display.show_notes(["interrupted: input that was not read is in no figure above"])
    return UNDELIVERED if job.interrupted and code == DONE else code


def write_report(result: Report, path: str | None) -> None:
    """Writes the report as JSON, on disk or in cloud storage; nothing when no path is given."""
    if path is not None:
        with FileSystems.create(path, mime_type="application/json") as file:
            file.write(json.dumps(result.as_json(), indent=2, ensure_ascii=False).encode() + b"\n")


def begin(ledger: Ledger, plan: Plan) -> list[str]:
    """Goes on with what a ledger holds, or begins. Returns notes for the user."""
    return ledger.begin({to.name: (to.vendor, target(to)) for to in plan.destinations})


def target(to: Destination) -> str:
    """Where a destination's items go, without anything that is secret."""
    vendor = get(to.vendor)
    public = [one.name for one in vendor.credentials if not one.secret and one.name in to.credentials]
    ids = "".join(f", {name} {to.credentials[name]}" for name in public)
    return f"{to.url or vendor.title}{ids}"


def slices(job: Run, inputs: Sequence[str], files: Mapping[str, str], again: bool) -> Iterator[intake.Slice]:
    """The slices of a run over files. files: what `intake.look` found, of a run with a ledger."""
    plan, ledger = job.plan, job.ledger
    names = [to.name for to in plan.destinations]
    stop = functools.partial(progress.reached, job.id, plan.selection.limit)  # which travels in the job graph
    if ledger is None:
        return intake.whole(inputs, plan.layout, names, stop)
    return intake.backfill(ledger, job.id, files, plan.layout, names, plan.selection.text(), stop, again)


@contextlib.contextmanager
def rarely_collecting() -> Iterator[None]:
    """Python's collector of cycles looks less often, and not at what was there before: a run makes millions of tuples,
    none of which is in a cycle, and would spend a twentieth of its time on being searched for them."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 50)  # tuples; fewer are alive at a time
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextlib.contextmanager
def stopped_by_signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM end the work in order, with its report; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)  # not Python's own, which would wait for what is on its way
        interrupt()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
