"""A subscription as an unbounded source of chunks, for runners without a Pub/Sub reader of their own (Flink)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import Coder, PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import Timestamp
from google.api_core.exceptions import (
    Aborted,
    InternalServerError,
    ServiceUnavailable,
    TooManyRequests,
    Unknown,
)
from google.auth.exceptions import TransportError

from transforms.elements import Chunk
from transforms.sources.messages import MESSAGES, pack_messages
from transforms.subscriber import Pulled, Subscriber, short_name

PULL_S: Final = 1.0
"""Seconds that a pull waits for messages."""

BEHIND_S: Final = 10.0
"""Seconds that event time stays behind when there is nothing to read: for what was published and is not here yet."""


PASSING: Final = (Aborted, InternalServerError, ServiceUnavailable, TooManyRequests, Unknown, TransportError)
"""What is no reason to end a bundle, which would be done again with all that it has sent."""

_log = logging.getLogger(__name__)


class AckMark(CheckpointMark):
    """Messages that are read: they are acknowledged when the runner has what was made of them."""

    def __init__(self, subscription: str, ack_ids: Sequence[str]) -> None:
        self.subscription = subscription
        self.ack_ids = list(ack_ids)

    def finalize_checkpoint(self) -> None:
        """Acknowledges. What was read and is never finalized comes again when its ack deadline is over."""
        if not self.ack_ids:
            return
        with contextlib.closing(Subscriber(self.subscription, again=True)) as calls:
            calls.acknowledge(self.ack_ids)


class _Reader(UnboundedReader):
    """Pulls; what one pull gives is a chunk, or several when it is much."""

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._ack_ids: list[str] = []
        self._calls: Subscriber | None = None
        self._parts: deque[Pulled] = deque()
        """Pulled, and not read yet."""
        self._watermark = Timestamp(0)
        self._position = 0
        """Of the last chunk: no two have the same, as records are known by it."""

    def start(self) -> bool:
        """Connects, and reads a first time."""
        self._calls = Subscriber(self._subscription)
        return self.advance()

    def advance(self) -> bool:
        """Reads on. False: there is nothing now."""
        assert self._calls is not None
        if not self._parts:
            try:
                self._parts.extend(self._calls.pull(wait=True, timeout=PULL_S))
            except PASSING as error:
                _log.warning("%s: pulling failed, tried again: %s", self._subscription, error)
                time.sleep(PULL_S)
                return False
        if not self._parts:
            self._watermark = max(self._watermark, Timestamp.now() - BEHIND_S)
            return False
        part = self._parts.popleft()
        self._ack_ids += part.ack_ids
        self._earliest = part.oldest_ms
        self._watermark = max(self._watermark, Timestamp(micros=self._earliest * 1000))
        self._position = max(self._position + 1, int(time.time() * 1000))
        self._current = Chunk(self._subscription, self._position, 0, MESSAGES, pack_messages(part.messages))
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
        if self._calls is not None:
            self._calls.close()
            self._calls = None


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
        short_name(subscription)
        self.source = SubscriptionSource(subscription)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        """Wires the step."""
        return begin | "Chunks" >> beam.io.Read(self.source)
