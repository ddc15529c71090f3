"""The relay on one machine: one pipeline maps a slice of the input, and one a destination delivers.

Beam's local runner works through a pipeline's stages one after the other, so in one pipeline the slowest vendor
would set the pace of all. Between the two kinds of pipeline stands the spool (transforms/spool.py).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.plan import Plan
from pipelines.standing import standing
from transforms import dedupe, map_records, progress, spool
from transforms.collect import CollectFn, collected
from transforms.collect import forget as forget_collected
from transforms.dead_letter import WriteDeadLettersFn
from transforms.deliver import gate, parking
from transforms.deliver.segments import DeliverSegments
from transforms.deliver.sink import in_windows
from transforms.destination import Destination
from transforms.intake import Slice
from transforms.ledger import Ledger, Mapped
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.report import Report, Totals
from transforms.segments import Head
from transforms.vendors import get, schemas_of

SEGMENT_BYTES = 16 << 20
"""Packed items a segment for one destination alone; with several, they share this so that memory stays the same."""

SMALLEST_SEGMENT = 4 << 20

INTERRUPTED = gate.Halt("interrupted")

_log = logging.getLogger(__name__)

PARTS = 8
"""Parts in which segments are written when batches are of one user: a segment then holds an eighth of the users, with
eight times as much of each, which makes for fuller batches."""


class Run:
    """One relay on this machine, from slices of input to the report.

    ledger: where what waits and what is done is kept, so that the next run can go on; without it, what cannot be
    delivered is given up. park: destinations that are down are waited for.
    """

    def __init__(
        self, plan: Plan, *, dead_letters: str | None = None, ledger: Ledger | None = None, park: bool = False
    ) -> None:
        self.plan = plan
        self.ledger = ledger
        self.id = uuid.uuid4().hex
        self.reading = True
        self.started = time.monotonic()
        self.gates = {to.name: gate.gate(self.id, to.name, to.rate, to.shards) for to in plan.destinations}
        for to in plan.destinations:
            self.gates[to.name].enter(to.shards)
            if park:
                parking.put(self.id, to.name, parking.Parking(functools.partial(self._parked, to.name)))
        self.progress = progress.progress(self.id)
        self._open_letters = None if dead_letters is None else plan.letters_to(dead_letters)
        letters = None if self._open_letters is None else self._open_letters()
        share = max(SMALLEST_SEGMENT, SEGMENT_BYTES // max(1, len(plan.destinations)))
        self.spool = spool.open_spool(self.id, share, ledger, letters)
        self.slices = self.undecodable = 0
        self._seen: dedupe.Seen | None = None
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(to,), name=f"deliver-{to.name}", daemon=True)
            for to in plan.destinations
        ]

    @property
    def interrupted(self) -> bool:
        """Whether the run was told to stop before its end."""
        return self.progress.stopped

    def stopped(self) -> bool:
        """Whether nothing more is to be read."""
        return progress.reached(self.id, self.plan.selection.limit)

    def interrupt(self) -> None:
        """Nothing more is read or sent; what was read and is not delivered waits, or is undelivered."""
        self.progress.stopped = True
        for one in self.gates.values():
            one.stop(INTERRUPTED)

    def give_up_mapping(self, seconds: float) -> None:
        """A slice that is not mapped in so many seconds is not waited for."""
        self.progress.give_up_at = time.monotonic() + seconds

    def run(self, slices: Iterator[Slice]) -> Report:
        """Relays all slices. Raises what the steps raise for input that cannot be read at all (NoInput), and for a disk
        that takes nothing (OSError, sqlite3.Error)."""
        with self:
            for one in slices:
                self.map(one)
                if self._errors or self.stopped():
                    break
        return self.report

    def __enter__(self) -> Run:
        """Starts delivering: first what waits from an earlier run."""
        plan = self.plan
        if self.ledger is None:
            self.spool.folder = tempfile.mkdtemp(prefix="playrelay-")
        if plan.source.dedupe is not None:
            within_s = plan.source.dedupe.within_s
            seen = (
                dedupe.Seen(self.ledger.db, within_s, self.ledger.lock) if self.ledger else dedupe.Seen.alone(within_s)
            )
            dedupe.use(self.id, seen)
            self._seen = seen
        if self.ledger is not None:
            for kept in self.ledger.destinations():
                if kept.parked_since is not None and kept.name in self.gates:
                    parked = parking.of(self.id, kept.name)
                    parked.go_on(kept.reason) if parked else self.ledger.parked(kept.name, None)
            self.spool.release({to.name: self.ledger.waiting(to.name) for to in self.plan.destinations})
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits until what is spooled is delivered, unless there was an error, and makes the report."""
        try:
            if error is not None:
                self.interrupt()
            self.reading = False
            for to in self.plan.destinations:
                self.spool.close(to.name)
            _join(self._threads, self.interrupt)
            if error is None and self._errors:
                raise self._errors[0]
            self.report = self._report()
        finally:
            if self.spool.folder:
                shutil.rmtree(self.spool.folder, ignore_errors=True)
            if self._seen is not None:
                self._seen.close()
            for forget in (
                map_records.forget,
                dedupe.forget,
                spool.forget,
                progress.forget,
                gate.forget,
                parking.forget,
                forget_collected,
            ):
                forget(self.id)

    def check(self) -> None:
        """Raises what ended one of the deliveries."""
        if self._errors:
            raise self._errors[0]

    # Mapping -----------------------------------------------------------------------------------

    def map(self, one: Slice) -> int:
        """Reads and maps a slice, and hands it to delivery. Returns its number in the ledger, 0 without, or when mapping
        was given up: as if the process had been killed then, nothing of the slice counts."""
        chosen = [to for to in self.plan.destinations if to.name in one.destinations]
        if one.model is not None:
            chosen = [dataclasses.replace(to, models=(one.model,)) for to in chosen]
        sums = self.id if self.ledger is None else f"{self.id}/map"
        before = self.progress.records
        try:
            with _pipeline() as pipeline:
                self._wire(pipeline, one, chosen, sums)
        except BaseException as error:
            if not _by(error, progress.GivenUp):
                raise
            return 0
        self.slices += 1
        return self._keep(one, sums, self.progress.records - before) if self.ledger is not None else 0

    def _wire(self, pipeline: beam.Pipeline, one: Slice, chosen: Sequence[Destination], sums: str) -> None:
        plan = self.plan
        chunks = pipeline | "Read" >> one.read
        spread = [dataclasses.replace(to, shards=to.shards * self._parts(to)) for to in chosen]
        step = one.step or MapRecordsFn(plan.source, spread, plan.selection, self.id)
        mapped = chunks | "Map" >> beam.ParDo(step).with_outputs(TALLY, FAILED, *(tag(to.name) for to in chosen))
        for to in chosen:
            items = in_windows(mapped[tag(to.name)], to)
            items | f"Spool {to.name}" >> beam.ParDo(spool.WriteSegmentsFn(self.id, to.name, self._head(to)))
        self._count(mapped[TALLY], mapped[FAILED], sums)
        if self._open_letters is not None:
            mapped[FAILED] | "Write dead letters" >> beam.ParDo(WriteDeadLettersFn(self._open_letters))

    def _keep(self, one: Slice, sums: str, records: int) -> int:
        """Writes down that a slice is mapped; only then is it sent."""
        assert self.ledger is not None
        number = one.number or self.ledger.new_slice()
        found, all_ = self.spool.mapped(), collected(sums)
        forget_collected(sums)
        parts = {}
        for name in one.destinations:
            tally, outcomes = all_.of(name)
            segments = [segment._replace(slice=number) for segment in found.get(name, ())]
            parts[name] = Mapped(tally, outcomes, segments)
            self.spool.add_figures(name, tally)
        self.undecodable += max((part.tally.undecodable for part in parts.values()), default=0)
        self.ledger.mapped(
            number,
            records,
            parts,
            places=one.places(),
            selection=self.plan.selection.text(),
            messages=one.messages,
            beside=self._seen.write if self._seen else None,
        )
        self.spool.release({name: part.segments for name, part in parts.items()})
        return number

    def _head(self, to: Destination) -> Head:
        models = self.plan.models[to.name] if to.models is None or len(to.models) != 1 else to.models
        schemas = schemas_of(to.vendor, to.options)
        return Head(list(models), [schemas[model] for model in models], to.shards, self.plan.versions[to.name])

    def _parts(self, to: Destination) -> int:
        """In how many parts by user a destination's segments are written."""
        under = get(to.vendor).models_under(to.options)
        routes = [under[model].route for model in self.plan.models[to.name]]
        several = [route for route in routes if min(to.batch.items, route.limits.items) > 1]
        return PARTS if any(to.batch.by == "user" or route.by_user for route in several) else 1

    # Delivering --------------------------------------------------------------------------------

    def _guarded(self, to: Destination) -> None:
        try:
            with _pipeline() as pipeline:
                delivered = pipeline | "Deliver" >> DeliverSegments(to, self.plan.models[to.name], self.id)
                self._count(delivered.tallies, delivered.failed, self.id)
        except BaseException as error:  # handed to the thread that waits in run()
            self._errors.append(error)
            self.interrupt()

    def _parked(self, destination: str, halt: gate.Halt | None) -> None:
        reason = None if halt is None else parking.words(destination, halt)
        if reason is None:
            _log.info("%s takes items again: what waited goes out first", destination)
        else:
            _log.warning("%s is parked, its items wait: %s", destination, reason)
        if self.ledger is not None:
            self.ledger.parked(destination, reason)

    @staticmethod
    def _count(tallies: beam.PCollection, failed: beam.PCollection, sums: str) -> None:
        tallies | "Count" >> beam.ParDo(CollectFn(sums))
        failed | "Count failed" >> beam.ParDo(CollectFn(sums))

    def _report(self) -> Report:
        names = [to.name for to in self.plan.destinations]
        totals, reads = {}, {}
        if self.ledger is not None:
            for name in names:
                stands = standing(self.ledger, name)
                totals[name], reads[name] = stands.totals, stands.read
        else:
            for name in names:
                tally, records = collected(self.id).of(name)
                totals[name] = Totals(tally, records.rejected(), records.undelivered())
        read = max(reads.values() if reads else (total.tally.records for total in totals.values()), default=0)
        stopped = {
            name: parking.words(name, halt)
            for name in names
            if (halt := self._halt(name)) is not None and (halt is not INTERRUPTED or totals[name].undelivered)
        }
        return Report(totals, read, time.monotonic() - self.started, stopped, reads)

    def _halt(self, name: str) -> gate.Halt | None:
        """Why a destination takes nothing, or nothing more was sent to it."""
        parked = parking.of(self.id, name)
        return (parked and parked.halt) or self.gates[name].halt


def _by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error came of one of this kind: Beam puts its own in place of what a step raises."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


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
