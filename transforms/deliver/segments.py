"""The sink of a run on one machine: takes what it delivers from the spool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from transforms import spool
from transforms.deliver.sink import FAILED, Delivered, SinkFn
from transforms.destination import Destination


class DeliverSegmentsFn(SinkFn):
    """The sink over the spool, which has gathered each segment's items: what a shuffle does elsewhere.

    In: one impulse. Out: as DeliverFn's, after each segment, until the destination's spool is closed. So all of a
    destination's segments are one pipeline's work: building a pipeline costs as much as sending a small segment.
    """

    def process(self, _: bytes) -> Iterator[Any]:
        """Sends segment after segment."""
        waiting = spool.of(self.run)
        for path in waiting.segments(self.destination.name):
            yield from self._send([(start, shard, packed) for (start, shard), packed in spool.gathered(path).items()])
            waiting.remove(path)


class DeliverSegments(beam.PTransform):
    """Sends a destination's segments of the spool as they come. In: the pipeline's begin. Out: Delivered."""

    def __init__(self, destination: Destination, models: tuple[str, ...], run: str) -> None:
        super().__init__()
        self.sink = DeliverSegmentsFn(destination, models, run)

    def expand(self, begin: beam.pvalue.PBegin) -> Delivered:
        """Wires the steps."""
        sent = begin | beam.Impulse() | "Send" >> beam.ParDo(self.sink).with_outputs(FAILED, main="tallies")
        return Delivered(sent.tallies, sent[FAILED])
