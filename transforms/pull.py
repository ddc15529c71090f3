"""Pulling from a Pub/Sub subscription: messages into memory, their leases kept, their acknowledgements sent."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from google.api_core.exceptions import (
    GoogleAPICallError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from google.auth.exceptions import GoogleAuthError

from transforms.subscriber import EMULATOR, MESSAGES_A_PULL, STOPPED_TELL_S, Pulled, Subscriber, SubscriptionError

PULLS: Final = 3
"""Pulls at a time while answers are full; one when they are not, as Pub/Sub has no more to give then."""

BUFFER_MESSAGES: Final = 200_000
BUFFER_BYTES: Final = 64 << 20
"""What may wait in memory before pulling pauses."""

LEASE_S: Final = 20
"""Seconds for which a message is ours; after a kill it takes so long until it comes again."""

RENEW_S: Final = 6.0
"""Seconds between the renewals of leases."""

START_S: Final = 8.0
"""Seconds that the first call may take."""

LOOK_S: Final = 0.5

LONGEST_PAUSE_S: Final = 30.0

_log = logging.getLogger(__name__)


class Amount(NamedTuple):
    """Of messages; either number is a bound."""

    messages: int
    bytes: int


def number_of(message_id: str, published_ms: int = 0) -> int:
    """What a message is known by again, in 64 bits. Ids are decimal numbers, though no document promises it, and unique
    in their topic only: with the time of publishing they are so in all topics, and in an emulator that starts anew."""
    if message_id.isdecimal() and len(message_id) < 20:
        return (int(message_id) ^ published_ms * _SPREAD) & _BITS
    text = f"{message_id} {published_ms}" if published_ms else message_id
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


_BITS: Final = (1 << 64) - 1
_SPREAD: Final = 0x9E3779B97F4A7C15
"""Odd, and its bits look like chance: times that are near each other do not meet ids that are."""


class Puller:
    """Pulls in threads of its own. Messages that were taken stay leased until they are acknowledged or given back.

    SubscriptionError when this machine has no Google credentials.
    """

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription
        self.errors = 0
        """Calls that failed and are tried again, for displays."""
        self._failed = 0
        """Pulls in a row that failed."""
        self._calls = Subscriber(subscription)
        self._buffer: list[Pulled] = []
        self._bytes = self._count = 0
        self._wanted = Amount(0, 0)
        """What `take` waits for."""
        self._leased: dict[int, Pulled] = {}
        self._newest_ms = 0
        """When the newest message that was pulled was published."""
        self._stopping = threading.Event()
        """Nothing more is pulled."""
        self._closing = threading.Event()
        """No lease is kept any longer."""
        self._plenty = threading.Event()
        """Answers are full."""
        self._paused = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (
                ("pull", self._pull_on),
                *((("pull more", self._pull_more),) * (PULLS - 1)),
                ("lease", self._renew_on),
            )
        ]

    def start(self) -> None:
        """Begins. SubscriptionError when the subscription is not there, or may not be used."""
        try:
            self._add(self._calls.pull(wait=False, timeout=START_S))
        except NotFound as error:
            raise SubscriptionError(
                f"{self.subscription}: there is no such subscription; create it: gcloud pubsub subscriptions create "
                f"{self.subscription} --topic TOPIC"
            ) from error
        except PermissionDenied as error:
            raise SubscriptionError(
                f"{self.subscription}: the account that runs this needs the role roles/pubsub.subscriber on it"
            ) from error
        except (Unauthenticated, InvalidArgument) as error:
            raise SubscriptionError(f"{self.subscription}: {error.message}") from error
        except (GoogleAPICallError, GoogleAuthError) as error:
            where = os.environ.get(EMULATOR)
            remedy = f"start the emulator, or unset {EMULATOR} ({where})" if where else "is the network there?"
            raise SubscriptionError(f"{self.subscription}: cannot be pulled from: {error}; {remedy}") from error
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Pulls no more, and gives back what was not taken, so that it goes to others at once."""
        self._stopping.set()
        self._calls.tell_s = STOPPED_TELL_S
        with self._changed:
            self._changed.notify_all()
            buffered, self._buffer = self._buffer, []
        for pulled in buffered:
            self._forget(pulled)
        self._lease(buffered, 0)

    def give_back(self) -> None:
        """Gives back all that was taken and is not acknowledged."""
        with self._changed:
            leased = list(self._leased.values())
            self._leased.clear()
        self._lease(leased, 0)

    def close(self) -> None:
        """Ends the threads and the connection."""
        self._stopping.set()
        self._closing.set()
        self._calls.close()  # which ends the call that waits for messages
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(1.0)

    def pause(self, paused: bool) -> None:
        """Whether to pull nothing for a while. What is there stays leased."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    @property
    def failing(self) -> bool:
        """Whether the last pull failed."""
        return self._failed > 0

    @property
    def unacknowledged(self) -> int:
        """Messages that were pulled and not acknowledged."""
        with self._changed:
            return sum(len(pulled.ack_ids) for pulled in self._leased.values())

    @property
    def oldest_s(self) -> float | None:
        """Seconds since the oldest message that was pulled and is not acknowledged was published; None without any.

        While nothing is pulled, at the most as many as the oldest at Pub/Sub is old.
        """
        with self._changed:
            waiting = self._newest_ms if self._paused and self._newest_ms else None
            oldest = min((pulled.oldest_ms for pulled in self._leased.values()), default=waiting)
        return None if oldest is None else max(0.0, time.time() - oldest / 1000)

    def take(self, age_s: float, enough: Amount, most: Amount, until: float) -> list[Pulled]:
        """Waits for messages until a time of time.monotonic(), and until the oldest is `age_s` old or there are enough.
        What came is given then, up to `most` of it. Empty when nothing came by then, or what came does not get as old
        within LOOK_S more: the caller may have something else to see to, and asks again."""
        with self._changed:
            self._wanted = enough
            while not self._stopping.is_set():
                now = time.monotonic()
                if self._buffer:
                    if self._enough or now >= self._buffer[0].at + age_s:
                        return self._cut(most)
                    ready = self._buffer[0].at + age_s
                    if now >= until + LOOK_S:
                        break
                    self._changed.wait(min(ready, until + LOOK_S) - now)
                elif now >= until:
                    break
                else:
                    self._changed.wait(until - now)
            return []

    @property
    def _enough(self) -> bool:
        return self._count >= self._wanted.messages or self._bytes >= self._wanted.bytes

    def _cut(self, most: Amount) -> list[Pulled]:
        count = size = index = 0
        while index < len(self._buffer) and (not index or (count < most.messages and size < most.bytes)):
            count += len(self._buffer[index].messages)
            size += self._buffer[index].bytes
            index += 1
        taken, self._buffer = self._buffer[:index], self._buffer[index:]
        self._count -= count
        self._bytes -= size
        self._changed.notify_all()
        return taken

    def parts(self, pulled: Pulled, places: Sequence[int]) -> list[tuple[int, Pulled]]:
        """What was pulled, by the place of each message; each part is leased, and acknowledged, apart."""
        if len(set(places)) == 1:
            return [(places[0], pulled)]
        parts: dict[int, Pulled] = {}
        for message, ack_id, place in zip(pulled.messages, pulled.ack_ids, places, strict=True):
            part = parts.setdefault(place, Pulled([], [], pulled.at, pulled.oldest_ms, 0))
            part.messages.append(message)
            part.ack_ids.append(ack_id)
        with self._changed:
            self._leased.pop(id(pulled), None)
            self._leased.update({id(part): part for part in parts.values()})
        return list(parts.items())

    def acknowledge(self, pulled: Sequence[Pulled]) -> None:
        """Tells Pub/Sub that these are done with. GoogleAPICallError when it cannot be told; they stay leased then."""
        self._calls.acknowledge(_ack_ids(pulled))
        for one in pulled:
            self._forget(one)

    # In threads of their own -------------------------------------------------------------------

    def _pull_on(self) -> None:
        while not self._stopping.is_set():
            self._once()

    def _pull_more(self) -> None:
        while not self._stopping.is_set():
            if self._plenty.wait(0.5):
                self._once()

    def _once(self) -> None:
        """One pull; after one that failed, a pause."""
        with self._changed:
            if self._paused or self._count >= BUFFER_MESSAGES or self._bytes >= BUFFER_BYTES:
                self._changed.wait(0.5)
                return
        try:
            parts = self._calls.pull(wait=True)
        except (GoogleAPICallError, GoogleAuthError, ValueError) as error:
            if self._closing.is_set():  # ValueError: the channel was closed
                return
            self.errors += 1
            self._failed += 1
            pause = min(0.1 * 2 ** min(self._failed, 10), LONGEST_PAUSE_S)
            _log.warning("%s: pulling failed, tried again in %.1f s: %s", self.subscription, pause, error)
            self._stopping.wait(pause)
            return
        self._failed = 0
        if sum(len(pulled.messages) for pulled in parts) >= MESSAGES_A_PULL:
            self._plenty.set()
        else:
            self._plenty.clear()
        if self._stopping.is_set():
            self._lease(parts, 0)
        else:
            self._add(parts)

    def _renew_on(self) -> None:
        while not self._closing.wait(RENEW_S):
            with self._changed:
                leased = list(self._leased.values())
            self._lease(leased, LEASE_S)

    def _add(self, parts: Sequence[Pulled]) -> None:
        if not parts:
            return
        with self._changed:
            for pulled in parts:
                self._leased[id(pulled)] = pulled
                self._buffer.append(pulled)
                self._count += len(pulled.messages)
                self._bytes += pulled.bytes
                self._newest_ms = max(self._newest_ms, pulled.messages[-1].published_ms)
            # Who waits for messages to get old need not be woken for each pull: every switch of threads delays the next.
            if len(self._buffer) == len(parts) or self._enough:
                self._changed.notify_all()

    def _forget(self, pulled: Pulled) -> None:
        with self._changed:
            self._leased.pop(id(pulled), None)

    def _lease(self, pulled: Iterable[Pulled], seconds: int) -> None:
        try:
            self._calls.lease(_ack_ids(pulled), seconds)
        except (GoogleAPICallError, GoogleAuthError, ValueError) as error:
            if self._closing.is_set():  # ValueError: the channel was closed
                return
            # They come again, and are known by their ids.
            self.errors += 1
            _log.warning("%s: leases were not renewed: %s", self.subscription, error)


def _ack_ids(pulled: Iterable[Pulled]) -> list[str]:
    return [ack_id for one in pulled for ack_id in one.ack_ids]
