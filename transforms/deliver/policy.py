"""How a destination's requests are sent, and how long to wait before one is tried again."""

from __future__ import annotations

import random
from typing import NamedTuple

from transforms.destination import Destination

CONNECTIONS = 64
"""Connections a worker opens to one destination at the most; there is never use for more than it has shards."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between tries: they double from the first to the longest, with jitter."""


class Policy(NamedTuple):
    """How requests are sent. Times in seconds."""

    retry: float
    """Longest time that one batch is tried for."""
    connect_timeout: float
    timeout: float
    gzip: bool
    connections: int
    first_pause: float = FIRST_PAUSE

    @classmethod
    def of(cls, to: Destination) -> Policy:
        """As the relay file sets a destination up."""
        return cls(to.retry_s, to.connect_timeout_s, to.timeout_s, to.gzip, min(to.shards, CONNECTIONS))


def pause_after(tries: int, first: float | None = None) -> float:
    """Seconds to wait when so many tries of a request have failed; first: the first of these pauses, about."""
    return min(LONGEST_PAUSE, (FIRST_PAUSE if first is None else first) * 2.0 ** min(tries - 1, 16)) * random.uniform(
        0.5, 1.0
    )
