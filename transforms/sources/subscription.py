"""A subscription as chunks: a runner hands messages over one by one, and the pipeline's steps take many at a time."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms.elements import Chunk
from transforms.sources.lines import BLOCK
from transforms.sources.messages import MESSAGES, Message, blocks, pack_messages
from transforms.subscriber import short_name


class GatherFn(beam.DoFn):
    """A bundle's messages to chunks of about 1 MiB.

    In: PubsubMessage with attributes. Out: Chunk of the subscription, at the time of its earliest message.
    """

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription

    def start_bundle(self) -> None:
        """Begins with nothing held."""
        self._held: list[Message] = []
        self._bytes = 0
        self._earliest = MAX_TIMESTAMP
        # Only ever compared within a bundle, as the records travel with their items.
        self._position = int(time.time() * 1000)
        self._bundle, self._nameless = uuid.uuid4().hex, itertools.count()

    def process(self, message: PubsubMessage, stamp: Timestamp = beam.DoFn.TimestampParam) -> Iterator[Any]:
        """Takes one message."""
        published = message.publish_time
        one = Message(
            message.data or b"",
            message.attributes or {},
            message.message_id or self._name(),
            message.ordering_key or "",
            int(published.timestamp() * 1000) if published is not None else stamp.micros // 1000,
        )
        self._held.append(one)
        self._bytes += len(one.data)
        self._earliest = min(self._earliest, stamp)
        if self._bytes >= BLOCK:
            for chunk in self._chunks():
                yield TimestampedValue(chunk, self._earliest)
            self._earliest = MAX_TIMESTAMP

    def _name(self) -> str:
        """An id where the runner gives none: outcomes are written down by it."""
        return f"none-{self._bundle}-{next(self._nameless)}"

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Passes on what is held."""
        for chunk in self._chunks():
            yield WindowedValue(chunk, self._earliest, (GlobalWindow(),))

    def _chunks(self) -> Iterator[Chunk]:
        for group in blocks(self._held):
            yield Chunk(self.subscription, self._position, 0, MESSAGES, pack_messages(group))
            self._position += 1
        self._held, self._bytes = [], 0


class ReadSubscription(beam.PTransform):
    """Reads a Pub/Sub subscription without end.

    Out: Chunk of messages. Reading is the runner's own: Dataflow's loses nothing, that of Beam's local runner acknowledges
    what it was given before anything is done with it.

        chunks = pipeline | ReadSubscription("projects/my-project/subscriptions/game-events")

    Raises SubscriptionError for a name that is no subscription's.
    """

    def __init__(self, subscription: str) -> None:
        super().__init__()
        self.subscription = subscription
        short_name(subscription)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        """Wires the steps."""
        return (
            begin
            | "Messages" >> ReadFromPubSub(subscription=self.subscription, with_attributes=True)
            | "Chunks" >> beam.ParDo(GatherFn(self.subscription)).with_output_types(Chunk)
        )
