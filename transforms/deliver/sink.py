"""The sink: grouped items of one destination in, requests to its vendor out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from apache_beam.utils.timestamp import Duration
from apache_beam.utils.windowed_value import WindowedValue

from transforms.credentials import resolve_all
from transforms.dead_letter import Failed
from transforms.deliver.gate import Gate, gate
from transforms.deliver.policy import Policy
from transforms.deliver.sender import Sender
from transforms.destination import Destination
from transforms.elements import Item, Origin, unpack_items
from transforms.pack import Packing, TooLarge, in_time_order, pack
from transforms.segments import start_of
from transforms.tally import Tally
from transforms.vendors import base, get

QUEUED_BYTES = 64 << 20
"""Bytes of items a bundle may queue before sending has to make room."""

FAILED = "failed"
"""Tag of the output that carries items without delivery."""


def settings_of(destination: Destination) -> base.Settings:
    """The destination with its references resolved; CredentialError when one cannot be."""
    vendor = get(destination.vendor)
    credentials = resolve_all(destination)
    url = destination.url or vendor.base_url(credentials, destination.options)
    return base.Settings(destination.name, url, credentials, destination.options)


def packing_of(destination: Destination, settings: base.Settings, models: Iterable[str]) -> Packing:
    """How the destination's items become batches; `models` in the order of the items' model index."""
    vendor = get(destination.vendor)
    under = vendor.models_under(destination.options)
    wrap = vendor.wrap

    def frame_size(route: base.Route, user: str) -> int:
        prefix, suffix = vendor.frame(settings, route, user, 0.0)
        return len(prefix) + len(suffix)

    return Packing(
        routes=[under[model].route for model in models],
        items=destination.batch.items,
        bytes=destination.batch.bytes,
        by_user=destination.batch.by == "user",
        in_order_across_routes=vendor.in_order_across_routes,
        frame_size=frame_size,
        wrap=(lambda route: wrap(settings, route)) if wrap else None,
    )


class Group(NamedTuple):
    """Items of one shard and window."""

    start: int
    """Window's start; the same for all without windows."""
    shard: int
    packed: list[tuple[int, bytes]]
    """(number of the segment they are from, packed items)."""


class SinkFn(beam.DoFn):
    """Base of the sinks: what every sink does once it has a shard's items."""

    def __init__(self, destination: Destination, models: tuple[str, ...], run: str) -> None:
        self.destination = destination
        self.models = models
        self.run = run
        self._sender: Sender | None = None

    def setup(self) -> None:
        """Resolves the references and opens the sender."""
        to = self.destination
        self._settings = settings_of(to)
        self._packing = packing_of(to, self._settings, self.models)
        pace = gate(self.run, to.name, to.rate, to.shards)
        pace.share(to.vendor, self._settings.url, self._settings.credentials)
        self._sender = self._open_sender(Policy.of(to), pace)

    def _open_sender(self, policy: Policy, pace: Gate) -> Sender:
        return Sender(get(self.destination.vendor), self._settings, self.models, policy, pace)

    def _send(self, grouped: list[Group], meanwhile: Callable[[], None] | None = None) -> tuple[Tally, list[Failed]]:
        """Sends groups: the windows of a shard one after the other, the shards side by side. Empties the list, and
        gives the outcomes. meanwhile: as of Sender.drain."""
        sender = self._sender
        assert sender is not None
        self._queue(grouped)
        sender.drain(meanwhile)
        outcomes = sender.tally, sender.failed
        sender.tally, sender.failed = Tally(), []
        return outcomes

    def _queue(self, grouped: list[Group]) -> None:
        assert self._sender is not None
        grouped.sort(key=lambda group: group.start)
        for group in grouped:
            self._sender.put(group.shard, self._batches(group.packed))
        grouped.clear()

    def _outcomes(self, tally: Tally, failed: list[Failed]) -> Iterator[Any]:
        yield self.destination.name, tally
        if failed:
            yield beam.pvalue.TaggedOutput(FAILED, (self.destination.name, failed))

    def _batches(self, packed: list[tuple[int, bytes]]) -> Iterator[base.Batch | TooLarge]:
        # A generator, so that items are taken apart when their shard's turn comes and freed when it is over.
        chunks = [self._items(segment, data) for segment, data in packed]
        packed.clear()
        yield from pack(in_time_order(chunks), self._packing)

    def _items(self, segment: int, packed: bytes) -> tuple[Origin, list[Item]]:
        """What is to be sent of packed items; `segment`: number of the segment that they are from, 0 for none."""
        source, items = unpack_items(packed)
        return Origin(source, segment), items

    def teardown(self) -> None:
        """Closes the connections."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None


class DeliverFn(SinkFn):
    """The sink behind a shuffle.

    In: (shard, packed items) of one destination, grouped. Out: (destination, Tally) for each bundle;
    tagged `failed`: (destination, list of Failed).
    """

    def start_bundle(self) -> None:
        """Begins with nothing queued."""
        self._grouped: list[Group] = []
        self._queued = 0

    def process(self, element: tuple[int, Iterable[bytes]], window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        """Queues a shard's items; sends when much is queued."""
        packed = [(0, data) for data in element[1]]
        self._window = window
        self._grouped.append(Group(start_of(window), element[0], packed))
        self._queued += sum(len(data) for _, data in packed)
        if self._queued > QUEUED_BYTES:
            self._queued = 0
            yield from self._outcomes(*self._send(self._grouped))

    def finish_bundle(self) -> Iterator[Any]:
        """Waits for every item's outcome."""
        if not self._grouped:
            return
        # The outcomes of several windows go out in one of them, as an element must lie in a window of its kind.
        window = self._window
        for value in self._outcomes(*self._send(self._grouped)):
            if isinstance(value, beam.pvalue.TaggedOutput):
                yield beam.pvalue.TaggedOutput(value.tag, WindowedValue(value.value, window.max_timestamp(), (window,)))
            else:
                yield WindowedValue(value, window.max_timestamp(), (window,))


def in_windows(items: beam.PCollection, destination: Destination) -> beam.PCollection:
    """A destination's items in its windows, by their event times; as they are when it has none."""
    window = destination.batch.window_ms
    if window is None:
        return items
    return items | f"Windows of {destination.name}" >> beam.WindowInto(FixedWindows(Duration(micros=window * 1000)))


class Delivered(NamedTuple):
    """What Deliver gives."""

    tallies: beam.PCollection
    """(destination, Tally)."""
    failed: beam.PCollection
    """(destination, list of Failed)."""


class Deliver(beam.PTransform):
    """Groups a destination's items by shard (and window) and sends them.

    In: (shard, packed items), with event times when the destination has windows. Out: Delivered.

        delivered = items | Deliver(destination, models=("event",), run="backfill")
        delivered.tallies | beam.Map(print)
    """

    def __init__(self, destination: Destination, models: tuple[str, ...], run: str) -> None:
        super().__init__()
        self.destination = destination
        self.models = models
        self.run = run

    def expand(self, items: beam.PCollection) -> Delivered:
        """Wires the steps."""
        items = in_windows(items, self.destination)
        sent = (
            items
            | "Group by shard" >> beam.GroupByKey()
            | "Send"
            >> beam.ParDo(DeliverFn(self.destination, self.models, self.run)).with_outputs(FAILED, main="tallies")
        )
        if self.destination.batch.window_ms is None:
            return Delivered(sent.tallies, sent[FAILED])
        everywhere = beam.WindowInto(GlobalWindows())
        return Delivered(sent.tallies | "Tallies" >> everywhere, sent[FAILED] | "Failed" >> everywhere)
