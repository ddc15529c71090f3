"""What the tests of the unbounded pipeline share: streams of items, run on Beam's local streaming runner."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from transforms.deliver.stateful import DeliverStream
from transforms.deliver.visit import Patience
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


def elements(to: Destination, items: Iterable[Item]) -> list[TimestampedValue]:
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


class Script:
    """What comes when, in the test's own words; TestStream plays it, one step after all work of the one before.

    Processing time begins a little ahead of the real time, by which items are dated.
    """

    def __init__(self) -> None:
        self.stream = TestStream().advance_processing_time(math.ceil(time.time()) + 2)
        self.calls: list[Callable[[], None]] = []

    def add(self, made: Sequence[Any]) -> Script:
        """Elements come in."""
        self.stream = self.stream.add_elements(made)
        return self

    def passes(self, seconds: float, steps: int = 1) -> Script:
        """Processing time goes on, so many times by so much: what waits for a time set during a step goes on in the next."""
        for _ in range(steps):
            self.stream = self.stream.advance_processing_time(seconds)
        return self

    def watermark(self, ms: int) -> Script:
        """Event time goes on."""
        self.stream = self.stream.advance_watermark_to(Timestamp(micros=ms * 1000))
        return self

    def does(self, what: Callable[[], None]) -> Script:
        """Something else happens, or is checked."""
        self.calls.append(what)
        return self.add([TimestampedValue(("call", len(self.calls) - 1), Timestamp(0))])

    def play(self, pipeline: beam.Pipeline, run: str) -> beam.PCollection:
        """The elements as they come."""
        _calls[run] = self.calls
        return pipeline | self.stream | "Calls" >> beam.FlatMap(_call, run)


_calls: dict[str, list[Callable[[], None]]] = {}


def _call(element: Any, run: str) -> Iterator[Any]:
    if isinstance(element, tuple) and element[0] == "call":
        _calls[run][element[1]]()
    else:
        yield element


class Outcome:
    """What the steps gave."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.failed: list[Failed] = []
        self.tallies: list[Tally] = []
        """One for each flight, and for whatever else was counted."""

    def numbers(self, outcome: str) -> list[int]:
        """Numbers of the items with this outcome other than delivered."""
        return sorted(failed.ref for failed in self.failed if failed.outcome == outcome)

    def check_records(self) -> None:
        """What failed has its own record with it."""
        for failed in self.failed:
            assert failed.source == SUBSCRIPTION
            assert failed.original == b"record %d" % failed.ref
            assert failed.message is not None and failed.message.id == f"m{failed.ref}"


_outcomes: dict[str, Outcome] = {}


class _CollectFn(beam.DoFn):
    def __init__(self, run: str) -> None:
        self.run = run

    def process(self, element: tuple[str, Any]) -> None:
        what = element[1]
        if isinstance(what, Tally):
            _outcomes[self.run].tally.add(what)
            _outcomes[self.run].tallies.append(what)
        else:
            _outcomes[self.run].failed += what


class Stream(Script):
    """A script of one destination's items. It ends as a job that drains: the watermark goes to infinity."""

    def __init__(self, to: Destination, models: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.to = to
        self.models = models or (KINDS[to.vendor].model,)
        self.id = uuid.uuid4().hex
        self.so_far = Outcome()

    def comes(self, *items: Item) -> Stream:
        """Items come in, in one bundle."""
        self.add(elements(self.to, items))
        return self

    def run(self, patience: Patience | None = None) -> Outcome:
        """Plays the script to its end."""
        _outcomes[self.id] = self.so_far
        pipeline = beam.Pipeline(runner=BundleBasedDirectRunner(), options=PipelineOptions(["--streaming"]))
        deliver = DeliverStream(self.to, self.models, self.id, patience or Patience())
        delivered = self.play(pipeline, self.id) | deliver
        delivered.tallies | "Count" >> beam.ParDo(_CollectFn(self.id))
        delivered.failed | "Count failed" >> beam.ParDo(_CollectFn(self.id))
        try:
            pipeline.run().wait_until_finish()
        finally:
            courier.forget(self.id)
            del _outcomes[self.id], _calls[self.id]
        return self.so_far


def by_request(sandbox: Running, slug: str) -> list[list[int]]:
    """Numbers of the items of each request, in order of arrival."""
    number = KINDS[slug].number
    requests: dict[int, list[int]] = {}
    for one in sandbox.items(slug):
        requests.setdefault(one["request"], []).append(int(number(one["item"])))
    return list(requests.values())
