"""Outcomes gathered in the process that runs the pipeline: the end of a local run's accounting."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import apache_beam as beam

from transforms.dead_letter import Failed
from transforms.outcomes import RecordOutcomes
from transforms.tally import Tally


class Collected:
    """The sums of one run, by destination."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._records: dict[str, RecordOutcomes] = {}
        self._lock = threading.Lock()

    def add(self, destination: str, what: Tally | Sequence[Failed]) -> None:
        """Adds figures, or notes what failed."""
        with self._lock:
            if isinstance(what, Tally):
                self._tallies.setdefault(destination, Tally()).add(what)
            else:
                self._records.setdefault(destination, RecordOutcomes()).add(what)

    def of(self, destination: str) -> tuple[Tally, RecordOutcomes]:
        """A destination's sums."""
        with self._lock:
            return self._tallies.get(destination, Tally()), self._records.get(destination, RecordOutcomes())


_runs: dict[str, Collected] = {}


def collected(run: str) -> Collected:
    """The sums of a run in this process."""
    return _runs.setdefault(run, Collected())


def forget(run: str) -> None:
    """Drops the sums of a finished run."""
    _runs.pop(run, None)


class CollectFn(beam.DoFn):
    """In: (destination, Tally or list of Failed). Out: nothing. Only for runners inside this process."""

    def __init__(self, run: str) -> None:
        self.run = run

    def process(self, element: tuple[str, Tally | Sequence[Failed]]) -> None:
        """Adds one element to the run's sums."""
        collected(self.run).add(*element)
