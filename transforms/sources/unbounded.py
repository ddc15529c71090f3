"""A subscription as an unbounded source of chunks, for runners without a Pub/Sub reader of their own (Flink)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import Coder, PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import Timestamp
from google.api_core.exceptions import DeadlineExceeded
from google.cloud import pubsub_v1

from transforms.elements import Chunk
from transforms.pull import IDS_A_REQUEST, MESSAGES_A_PULL
from transforms.sources.messages import MESSAGES, Message, pack_messages
from transforms.sources.subscription import check_subscription

PULL_S: Final = 1.0
"""Seconds that a pull waits for messages."""

BEHIND_S: Final = 10.0
"""Seconds that event time stays behind when there is nothing to read: for what was published and is not here yet."""


class AckMark(CheckpointMark):
    """Messages that are read: they are acknowledged when the runner has what was made of them."""

    def __init__(self, subscription: str, ack_ids: Sequence[str]) -> None:
        self.subscription = subscription
        self.ack_ids = list(ack_ids)

    def finalize_checkpoint(self) -> None:
        """Acknowledges. What was read and is never finalized comes again when its ack deadline is over."""
        if not self.ack_ids:
            return
        client = pubsub_v1.SubscriberClient()
        try:
            for at in range(0, len(self.ack_ids), IDS_A_REQUEST):
                client.acknowledge(subscription=self.subscription, ack_ids=self.ack_ids[at : at + IDS_A_REQUEST])
        finally:
            client.close()


class _Reader(UnboundedReader):
    """Pulls; what one pull gives is one chunk."""

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._ack_ids: list[str] = []
        self._client: Any = None
        self._watermark = Timestamp(0)

    def start(self) -> bool:
        """Connects, and reads a first time."""
        self._client = pubsub_v1.SubscriberClient()
        return self.advance()

    def advance(self) -> bool:
        """Reads on. False: there is nothing now."""
        try:
            pulled = self._client.pull(
                subscription=self._subscription, max_messages=MESSAGES_A_PULL, timeout=PULL_S, retry=None
            ).received_messages
        except DeadlineExceeded:
            pulled = []
        if not pulled:
            self._watermark = max(self._watermark, Timestamp.now() - BEHIND_S)
            return False
        self._ack_ids += [one.ack_id for one in pulled]
        messages = [
            Message(
                one.message.data,
                dict(one.message.attributes),
                one.message.message_id,
                one.message.ordering_key,
                int(one.message.publish_time.timestamp() * 1000),
            )
            for one in pulled
        ]
        self._earliest = min(message.published_ms for message in messages)
        self._watermark = max(self._watermark, Timestamp(micros=self._earliest * 1000))
        position = int(time.time() * 1000)
        self._current = Chunk(self._subscription, position, 0, MESSAGES, pack_messages(messages))
        return True

    def get_current(self) -> Chunk:
        """What was read."""
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        """When the earliest of its messages was published."""
        return Timestamp(micros=self._earliest * 1000)

    def get_watermark(self) -> Timestamp:
        """Event time, by when messages were published."""
        return self._watermark

    def get_checkpoint_mark(self) -> AckMark:
        """What was read since the last one."""
        ack_ids, self._ack_ids = self._ack_ids, []
        return AckMark(self._subscription, ack_ids)

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


class SubscriptionSource(UnboundedSource):
    """Chunks of a subscription's messages. Its ack deadline must be longer than the runner's checkpoints are apart."""

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription

    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        """As many readers as are asked for: Pub/Sub gives each message to one of them."""
        return [self] * max(1, desired_num_splits)

    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> UnboundedReader:
        """A reader; where it goes on is Pub/Sub's business."""
        return _Reader(self.subscription)

    def get_checkpoint_mark_coder(self) -> Coder:
        """How marks travel."""
        return PickleCoder()


class ReadUnbounded(beam.PTransform):
    """Reads a subscription without end. Out: Chunk of messages, acknowledged once they are kept.

    Raises SubscriptionError for a name that is no subscription's.
    """

    def __init__(self, subscription: str) -> None:
        super().__init__()
        check_subscription(subscription)
        self.source = SubscriptionSource(subscription)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        """Wires the step."""
        return begin | "Chunks" >> beam.io.Read(self.source)
