"""A shuffle that keeps what went into it, for steps that must not have those before them done again."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, Repeatedly
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Duration

LATENESS: Final = Duration(seconds=100 * 365 * 86_400)
"""Nothing is late here: what a job's drain gives may come when event time is over, and Reshuffle would drop it."""

KEYS: Final = 64


class Keep(beam.PTransform):
    """Gives what it is given, once it is kept. In: anything. Out: the same, in no order."""

    def expand(self, given: beam.PCollection) -> beam.PCollection:
        """Wires the steps."""
        return (
            given
            | "Whenever"
            >> beam.WindowInto(
                GlobalWindows(),
                trigger=Repeatedly(AfterCount(1)),
                accumulation_mode=AccumulationMode.DISCARDING,
                allowed_lateness=LATENESS,
            )
            | "Anywhere" >> beam.Map(_with_any_key).with_output_types(tuple[int, Any])
            | "Group" >> beam.GroupByKey()
            | "Each" >> beam.FlatMap(_values)
        )


def _with_any_key(value: Any) -> tuple[int, Any]:
    return random.randrange(KEYS), value


def _values(element: tuple[int, Iterable[Any]]) -> Iterable[Any]:
    return element[1]
