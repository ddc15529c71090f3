"""The relay on one machine: one pipeline maps, and one a destination delivers.

Beam's local runner works through a pipeline's stages one after the other, so in one pipeline the slowest vendor
would set the pace of all. Between the two kinds of pipeline stands the spool (transforms/spool.py).
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.plan import Plan
from transforms import progress, spool
from transforms.collect import Collected, CollectFn, collected
from transforms.collect import forget as forget_collected
from transforms.dead_letter import WriteDeadLettersFn
from transforms.deliver import gate
from transforms.deliver.segments import DeliverSegments
from transforms.deliver.sink import in_windows
from transforms.destination import Destination
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.read import Read
from transforms.report import Report, Totals
from transforms.sources.files import SUFFIXES, match
from transforms.vendors import get

SEGMENT_BYTES = 16 << 20
"""Packed items a segment for one destination alone; with several, they share this so that memory stays the same."""

SMALLEST_SEGMENT = 4 << 20

PARTS = 8
"""Parts in which segments are written when batches are of one user: a segment then holds an eighth of the users, with
eight times as much of each, which makes for fuller batches."""


class Run:
    """One relay of files on this machine.

    `run()` returns when every record is accounted for. `watch`, when given, is called about ten times a second
    from a thread of its own with this object, for progress displays.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[str],
        *,
        dead_letters: str | None = None,
    ) -> None:
        self.plan = plan
        self.inputs = tuple(inputs)
        self.dead_letters = dead_letters
        self.id = uuid.uuid4().hex
        self.reading = True
        self.started = time.monotonic()
        self.gates = {to.name: gate.gate(self.id, to.name, to.rate, to.shards) for to in plan.destinations}
        for to in plan.destinations:
            self.gates[to.name].enter(to.shards)
        self.progress = progress.progress(self.id)
        self._size: int | None = None
        self._errors: list[BaseException] = []

    def share_read(self) -> float | None:
        """How much of the input has been gone through, 0 to 1; None when sizes do not tell (compressed files)."""
        if self._size is None:
            files = match(self.inputs)
            plain = not any(file.name.lower().endswith(tuple(SUFFIXES)) for file in files)
            self._size = sum(file.size for file in files) if plain else 0
        return min(1.0, self.progress.bytes / self._size) if self._size else None

    @property
    def interrupted(self) -> bool:
        """Whether the run was told to stop before its end."""
        return self.progress.stopped

    def interrupt(self) -> None:
        """Nothing more is read or sent; what was read and is not delivered is undelivered, and accounted for."""
        self.progress.stopped = True
        for one in self.gates.values():
            one.stop(gate.Halt("interrupted"))

    def run(self) -> Report:
        """Relays the files. Raises what the steps raise for input that cannot be read at all (NoInput)."""
        folder = tempfile.mkdtemp(prefix="playrelay-")
        share = max(SMALLEST_SEGMENT, SEGMENT_BYTES // max(1, len(self.plan.destinations)))
        self._spool = spool.open_spool(self.id, folder, share)
        threads = [
            threading.Thread(target=self._guarded, args=(to,), name=f"deliver-{to.name}", daemon=True)
            for to in self.plan.destinations
        ]
        try:
            for thread in threads:
                thread.start()
            try:
                self._map()
            except BaseException:
                self.interrupt()
                raise
            finally:
                self.reading = False
                for to in self.plan.destinations:
                    self._spool.close(to.name)
                _join(threads, self.interrupt)
            if self._errors:
                raise self._errors[0]
            return self._report(collected(self.id))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            for forget in (spool.forget, progress.forget, gate.forget, forget_collected):
                forget(self.id)

    def _map(self) -> None:
        """Reads and maps all input, into the spool."""
        plan = self.plan
        with _pipeline() as pipeline:
            chunks = pipeline | "Read" >> Read(
                self.inputs,
                format=plan.layout.format,
                max_record=plan.layout.max_record,
                delimiter=plan.layout.delimiter,
                split=False,
                stop=functools.partial(progress.reached, self.id, plan.selection.limit),
            )
            spread = [dataclasses.replace(to, shards=to.shards * self._parts(to)) for to in plan.destinations]
            mapped = chunks | "Map" >> beam.ParDo(
                MapRecordsFn(plan.source, spread, plan.selection, self.id)
            ).with_outputs(TALLY, FAILED, *(tag(to.name) for to in plan.destinations))
            for to in plan.destinations:
                items = in_windows(mapped[tag(to.name)], to)
                items | f"Spool {to.name}" >> beam.ParDo(spool.WriteSegmentsFn(self.id, to.name, to.shards))
            self._outcomes(mapped[TALLY], mapped[FAILED])

    def _parts(self, to: Destination) -> int:
        """In how many parts by user a destination's segments are written."""
        under = get(to.vendor).models_under(to.options)
        routes = [under[model].route for model in self.plan.models[to.name]]
        several = [route for route in routes if min(to.batch.items, route.limits.items) > 1]
        return PARTS if any(to.batch.by == "user" or route.by_user for route in several) else 1

    def _guarded(self, to: Destination) -> None:
        try:
            with _pipeline() as pipeline:
                delivered = pipeline | "Deliver" >> DeliverSegments(to, self.plan.models[to.name], self.id)
                self._outcomes(delivered.tallies, delivered.failed)
        except BaseException as error:  # handed to the thread that waits in run()
            self._errors.append(error)
            self.interrupt()
            for path in self._spool.segments(to.name):
                self._spool.remove(path)

    def _outcomes(self, tallies: beam.PCollection, failed: beam.PCollection) -> None:
        tallies | "Count" >> beam.ParDo(CollectFn(self.id))
        failed | "Count failed" >> beam.ParDo(CollectFn(self.id))
        if self.dead_letters is not None:
            failed | "Write dead letters" >> beam.ParDo(
                WriteDeadLettersFn(self.dead_letters, self.plan.vendors, self.plan.versions, self.plan.layout)
            )

    def _report(self, all_: Collected) -> Report:
        totals = {}
        for to in self.plan.destinations:
            tally, records = all_.of(to.name)
            totals[to.name] = Totals(tally, records.rejected(), records.undelivered())
        read = max((total.tally.records for total in totals.values()), default=0)
        stopped = {
            name: f"{one.halt.reason}; check {one.halt.key} in the relay file" if one.halt.key else one.halt.reason
            for name, one in self.gates.items()
            if one.halt is not None
        }
        return Report(totals, read, time.monotonic() - self.started, stopped)


def _join(threads: Sequence[threading.Thread], interrupt: Callable[[], None]) -> None:
    """Waits for the threads; a keyboard interrupt ends the sending, and they are waited for again."""
    while any(thread.is_alive() for thread in threads):
        try:
            for thread in threads:
                thread.join(0.2)
        except KeyboardInterrupt:
            interrupt()


def _pipeline() -> beam.Pipeline:
    # Named runner and options: Beam's default would first try to download another runner, and would read sys.argv.
    # Types are checked when the product is built; here the check would cost a tenth of each small pipeline.
    return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([], pipeline_type_check=False))
