"""What the tests of the unbounded pipeline share: streams of items, run on Beam's local streaming runner."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from deliveries import KINDS, shard_of

from sandbox.server import Running
from transforms.carried import pack_carried
from transforms.dead_letter import Failed
from transforms.deliver import courier
from transforms.deliver.stateful import DeliverStream, Patience
from transforms.destination import Destination
from transforms.elements import Item
from transforms.sources.messages import Message
from transforms.sources.records import RawRecord
from transforms.tally import Tally

SUBSCRIPTION = "projects/p/subscriptions/s"


def record(item: Item) -> RawRecord:
    """The record that an item is said to come from: message `m<number>` with the text `record <number>`."""
    text = b"record %d" % item[4]
    return RawRecord(0, 0, text, message=Message(text, {"n": str(item[4])}, f"m{item[4]}"))


def elements(to: Destination, items: Iterable[Item]) -> list[Any]:
    """Items as the mapping gives them: an element a shard (and window)."""
    window = to.batch.window_ms
    groups: dict[tuple[int, int], list[Item]] = {}
    for one in items:
        start = 0 if window is None else one[3] // window * window
        groups.setdefault((start, shard_of(one[2], to.shards)), []).append(one)
    made = []
    for (start, shard), own in groups.items():
        element = shard, pack_carried(SUBSCRIPTION, own, {item[4]: record(item) for item in own})
        made.append(TimestampedValue(element, Timestamp(micros=start * 1000)))
    return made


class Stream:
    """A script of what comes when. Processing time begins now."""

    def __init__(self, to: Destination) -> None:
        self.to = to
        self.script = TestStream().advance_processing_time(int(time.time()))

    def comes(self, items: Sequence[Item]) -> Stream:
        """Items come in."""
        self.script = self.script.add_elements(elements(self.to, items))
        return self

    def passes(self, seconds: float) -> Stream:
        """Processing time goes on."""
        self.script = self.script.advance_processing_time(seconds)
        return self

    def watermark(self, ms: int) -> Stream:
        """Event time goes on."""
        self.script = self.script.advance_watermark_to(Timestamp(micros=ms * 1000))
        return self

    def call(self, what: str, *arguments: Any) -> Stream:
        """Something is done to the world, such as a fault set: see CALLS."""
        raise NotImplementedError

    def run(self, patience: Patience = Patience(), watch: Any = None) -> Outcome:
        """Runs the stream to its end, which is as a drain is: the watermark goes to infinity."""
        run = uuid.uuid4().hex
        outcome = _outcomes[run] = Outcome()
        options = PipelineOptions(["--streaming"])
        pipeline = beam.Pipeline(runner=BundleBasedDirectRunner(), options=options)
        items = pipeline | self.script
        delivered = items | DeliverStream(self.to, (KINDS[self.to.vendor].model,), run, patience)
        delivered.tallies | "Count" >> beam.ParDo(_CollectFn(run))
        delivered.failed | "Count failed" >> beam.ParDo(_CollectFn(run))
        try:
            pipeline.run().wait_until_finish()
        finally:
            courier.forget(run)
            del _outcomes[run]
        return outcome


class Outcome:
    """What the steps gave."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.failed: list[Failed] = []


_outcomes: dict[str, Outcome] = {}


class _CollectFn(beam.DoFn):
    def __init__(self, run: str) -> None:
        self.run = run

    def process(self, element: tuple[str, Any]) -> None:
        what = element[1]
        if isinstance(what, Tally):
            _outcomes[self.run].tally.add(what)
        else:
            _outcomes[self.run].failed += what
