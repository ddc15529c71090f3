"""`playrelay run`: files in, report out."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
from collections.abc import Iterator, Sequence
from types import FrameType

from apache_beam.io.filesystems import FileSystems

from pipelines import display, outputs
from pipelines.local import Run
from pipelines.plan import check_credentials, make_plan
from pipelines.relay_file import Relay
from transforms.map_records import Selection
from transforms.read import check_schemas
from transforms.report import DONE, UNDELIVERED


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
) -> int:
    """Relays files and returns the exit code. Raises what a user can mend before anything is sent."""
    plan, _ = make_plan(relay, selection, only)
    check_credentials(plan)
    check_schemas(inputs, plan.layout, plan.source.schema)
    outputs.prepare(dead_letters, report)
    if not quiet:
        display.show_notes(plan.notes)
    job = Run(plan, inputs, dead_letters=dead_letters)
    with display.watching(job, quiet=quiet), stopped_by_signals(job), rarely_collecting():
        result = job.run()
    if report is not None:
        with FileSystems.create(report, mime_type="application/json") as file:
            file.write(json.dumps(result.as_json(), indent=2, ensure_ascii=False).encode() + b"\n")
    if not quiet:
        display.show_report(result, dead_letters)
    code = result.exit_code(max_rejected)
    if job.interrupted and not quiet:
        display.show_notes(["interrupted: input that was not read is in no figure above"])
    return UNDELIVERED if job.interrupted and code == DONE else code


@contextlib.contextmanager
def rarely_collecting() -> Iterator[None]:
    """Python's collector of cycles looks less often, and not at what was there before: a run makes millions of tuples,
    none of which is in a cycle, and would spend a twentieth of its time on being searched for them."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextlib.contextmanager
def stopped_by_signals(job: Run) -> Iterator[None]:
    """SIGINT and SIGTERM end a run in order, with its report; a second one ends the process."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        job.interrupt()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
