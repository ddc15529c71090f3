"""The accounting of a pipeline that runs anywhere: outcomes summed through a shuffle, so that retries count once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from transforms.dead_letter import Failed
from transforms.elements import split_ref
from transforms.outcomes import RecordOutcomes
from transforms.report import Report, Totals
from transforms.tally import Tally, total


class SumTallies(beam.CombineFn):
    """Tallies of one destination to their sum."""

    def create_accumulator(self) -> Tally:
        """Nothing yet."""
        return Tally()

    def add_input(self, accumulator: Tally, tally: Tally) -> Tally:
        """Adds one."""
        accumulator.add(tally)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        """Adds sums."""
        return total(accumulators)

    def extract_output(self, accumulator: Tally) -> Tally:
        """The sum."""
        return accumulator


def by_chunk(element: tuple[str, Sequence[Failed]]) -> Iterator[tuple[tuple[str, str, int], list[tuple[int, str]]]]:
    """Failed items of a destination -> ((destination, source, chunk position), [(ref, outcome)]).

    The items of a record may fail in different bundles; they meet again under their chunk.
    """
    destination, failures = element
    chunks: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for failed in failures:
        chunks.setdefault((failed.source, split_ref(failed.ref)[0]), []).append((failed.ref, failed.outcome))
    for (source, position), marks in chunks.items():
        yield (destination, source, position), marks


def records_of_chunk(
    element: tuple[tuple[str, str, int], Iterable[list[tuple[int, str]]]],
) -> tuple[str, tuple[int, int]]:
    """Grouped marks of a chunk -> (destination, (records rejected, records undelivered))."""
    (destination, source, _), lists = element
    outcomes = RecordOutcomes()
    for marks in lists:
        outcomes.add(Failed(outcome, "", source, ref) for ref, outcome in marks)
    return destination, (outcomes.rejected(), outcomes.undelivered())


def sum_pairs(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Sums pairs by place."""
    first = second = 0
    for one, other in pairs:
        first, second = first + one, second + other
    return first, second


class WriteReport(beam.PTransform):
    """In: (tallies, failed), as MapRecordsFn and Deliver give them. Out: the report as a dict, also written to `path`.

    path: on disk or in cloud storage; None: only logged.
    """

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self.path = path
        self.started = time.time()

    def expand(self, outcomes: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Sums by destination, then brings all destinations together."""
        tallies, failed = outcomes
        sums = tallies | "Sum tallies" >> beam.CombinePerKey(SumTallies())
        records = (
            failed
            | "By chunk" >> beam.FlatMap(by_chunk)
            | "Group by chunk" >> beam.GroupByKey()
            | "Records of chunk" >> beam.Map(records_of_chunk)
            | "Sum records" >> beam.CombinePerKey(sum_pairs)
        )
        return (
            {"tally": sums, "records": records}
            | "Join" >> beam.CoGroupByKey()
            | "Gather" >> beam.combiners.ToList()
            | "Write" >> beam.Map(self._write)
        )

    def _write(self, joined: list[tuple[str, dict[str, list[Any]]]]) -> dict[str, Any]:
        totals = {}
        for name, parts in sorted(joined):
            rejected, undelivered = sum_pairs(parts["records"])
            totals[name] = Totals(total(parts["tally"]), rejected, undelivered)
        read = max((one.tally.records for one in totals.values()), default=0)
        report = Report(totals, read, time.time() - self.started).as_json()
        text = json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"
        if self.path is not None:
            with FileSystems.create(self.path, mime_type="application/json") as file:
                file.write(text)
        return report
