"""Outcomes as Beam's counters, for the page that a runner shows of a job."""

from __future__ import annotations

from typing import Final

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.tally import Tally

NAMESPACE: Final = "playrelay"

FIGURES: Final = (
    "records", "undecodable", "mapped", "delivered", "rejected", "undelivered", "requests", "retries", "late",
)  # fmt: skip


class CountFn(beam.DoFn):
    """In: (destination, Tally). Out: nothing. Counters are named `DESTINATION.FIGURE`, and filtered records counted too.

    A runner counts what a bundle counted when it commits the bundle, and one that it commits twice, twice.
    """

    def process(self, element: tuple[str, Tally]) -> None:
        """Counts one tally."""
        destination, tally = element
        for figure in FIGURES:
            number = getattr(tally, figure)
            if number:
                Metrics.counter(NAMESPACE, f"{destination}.{figure}").inc(number)
        filtered = sum(tally.filtered.values())
        if filtered:
            Metrics.counter(NAMESPACE, f"{destination}.filtered").inc(filtered)
