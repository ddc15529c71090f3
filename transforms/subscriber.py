"""The calls to Pub/Sub of one subscription: pulling, acknowledging, and keeping what was pulled.

Unary pulls, as they give as many messages as there are at once; the client library's streaming pull hands each message
to a callback of its own, which costs more than all that is done with it here.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.api_core import gapic_v1
from google.api_core.exceptions import DeadlineExceeded, FailedPrecondition, GoogleAPICallError, InvalidArgument
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.pubsub_v1 import types
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from transforms.sources.messages import Message, content_size

MESSAGES_A_PULL: Final = 1_000

PART_BYTES: Final = 8 << 20
"""Bytes, decompressed, after which what one pull gave is taken apart: as gzip, it may hold more than a slice should."""

IDS_A_REQUEST: Final = 2_000
"""Ids in a request to acknowledge: Pub/Sub takes requests of up to 512 KiB ("Quotas and limits", Resource limits)."""

CALL_S: Final = 30.0
"""Seconds that a pull waits."""

TELL_S: Final = 5.0
STOPPED_TELL_S: Final = 1.0
"""Seconds that Pub/Sub has to take what it is told: acknowledgements and leases; less when all is to end."""

EMULATOR: Final = "PUBSUB_EMULATOR_HOST"
"""Environment variable with the address of Google's emulator; their clients heed it."""

_NAME: Final = re.compile(r"projects/[^/\s]+/subscriptions/([A-Za-z][A-Za-z0-9._~+%-]{2,254})")
"""Names of subscriptions (Pub/Sub, "Guidelines to name a topic, subscription, schema, or snapshot")."""

_log = logging.getLogger(__name__)


class SubscriptionError(Exception):
    """A subscription that cannot be pulled from; the text names it and says what to do."""


def short_name(subscription: str) -> str:
    """What a subscription is called in its project. SubscriptionError for a name that is no subscription's."""
    found = _NAME.fullmatch(subscription)
    if found is None:
        raise SubscriptionError(f"{subscription}: expected projects/PROJECT/subscriptions/NAME")
    return found[1]


@dataclass
class Pulled:
    """What one pull gave, or a part of it."""

    messages: list[Message]
    ack_ids: list[str]
    at: float
    """When it came, in seconds of time.monotonic()."""
    oldest_ms: int
    """When the oldest message was published, in ms since 1970 UTC."""
    bytes: int
    """Of data, decompressed."""


class Subscriber:
    """One subscription. SubscriptionError when this machine has no Google credentials.

    Calls raise GoogleAPICallError and GoogleAuthError when they fail, ValueError when it was closed.

    again: what Pub/Sub is told is told again when that fails, as Google's client does by itself.
    """

    def __init__(self, subscription: str, again: bool = False) -> None:
        self.subscription = subscription
        self.tell_s = TELL_S
        """Seconds that Pub/Sub has to take what it is told."""
        self._retry = gapic_v1.method.DEFAULT if again else None
        try:
            self._client = _client()
        except GoogleAuthError as error:
            raise SubscriptionError(
                f"{subscription}: no Google credentials here; run: gcloud auth application-default login"
            ) from error

    def close(self) -> None:
        """Ends the connection, and the calls that wait."""
        self._client.close()

    def pull(self, wait: bool, timeout: float = CALL_S) -> list[Pulled]:
        """Messages, taken apart by PART_BYTES. wait: until some come, for the time of a call at the most."""
        request: dict[str, Any] = {"subscription": self.subscription, "max_messages": MESSAGES_A_PULL}
        if not wait:
            request["return_immediately"] = True
        try:
            response = self._client.pull(request=request, timeout=timeout, retry=None)
        except DeadlineExceeded:
            if not wait:
                raise
            return []  # nothing came
        now, now_ms = time.monotonic(), int(1000 * time.time())
        parts: list[Pulled] = []
        part: Pulled | None = None
        for one in types.PullResponse.pb(response).received_messages:
            message = one.message
            data = message.data
            if part is None or part.bytes >= PART_BYTES:
                part = Pulled([], [], now, now_ms, 0)
                parts.append(part)
            part.bytes += content_size(data)
            published = message.publish_time
            published_ms = published.seconds * 1000 + published.nanos // 1_000_000
            if published_ms < part.oldest_ms:
                part.oldest_ms = published_ms
            part.messages.append(
                Message(data, dict(message.attributes), message.message_id, message.ordering_key, published_ms)
            )
            part.ack_ids.append(one.ack_id)
        return parts

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Messages are done with."""
        for ids in _pieces(ack_ids):
            self._tell(ids, self._client.acknowledge)

    def lease(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Messages are ours for so long; 0 gives them back. What fails for some is raised when the others are told."""
        failed: Exception | None = None
        for ids in _pieces(ack_ids):
            try:
                self._tell(ids, self._client.modify_ack_deadline, ack_deadline_seconds=seconds)
            except (GoogleAPICallError, GoogleAuthError) as error:
                failed = failed or error
                if self.tell_s < TELL_S:  # all is to end
                    break
        if failed is not None:
            raise failed

    def _tell(self, ids: Sequence[str], call: Callable[..., None], **more: int) -> None:
        """Ids that are refused for good, as their time was over, are left out: those messages come again under others."""
        request = {"subscription": self.subscription, "ack_ids": ids, **more}
        try:
            call(request=request, timeout=self.tell_s, retry=self._retry)
        except (InvalidArgument, FailedPrecondition) as error:
            if len(ids) == 1:
                _log.warning("%s: a message's id is no longer taken, it comes again: %s", self.subscription, error)
                return
            # One is enough for all of a request to be refused.
            half = len(ids) // 2
            self._tell(ids[:half], call, **more)
            self._tell(ids[half:], call, **more)


def _client() -> pubsub_v1.SubscriberClient:
    host = os.environ.get(EMULATOR)
    if not host:
        return pubsub_v1.SubscriberClient()
    # Google's client lifts gRPC's limit of 4 MiB an answer for the real Pub/Sub only.
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host, unlimited)))


def _pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(ids), IDS_A_REQUEST):
        yield ids[at : at + IDS_A_REQUEST]
