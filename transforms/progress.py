"""What a run has done so far, for people who watch it. Figures that must be exact come from outcomes instead."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass
class Progress:
    """Counters of one run in this process. Written by many threads without a lock: near enough to look at."""

    records: int = 0
    """Records decoded and mapped."""
    bytes: int = 0
    """Bytes of (decompressed) input gone through."""
    stopped: bool = False
    """Nothing more is to be read."""
    give_up_at: float = math.inf
    """Time of time.monotonic() at which mapping is given up."""

    @property
    def given_up(self) -> bool:
        """Whether what is being mapped is not to be finished."""
        return time.monotonic() >= self.give_up_at


class GivenUp(Exception):
    """Mapping ended before its end, as it was told to."""


_runs: dict[str, Progress] = {}


def progress(run: str) -> Progress:
    """The counters of a run, made when first asked for."""
    return _runs.setdefault(run, Progress())


def forget(run: str) -> None:
    """Drops the counters of a finished run."""
    _runs.pop(run, None)


def reached(run: str, limit: int | None) -> bool:
    """Whether a run was stopped, or has gone through as many records as it was asked to."""
    counters = progress(run)
    return counters.stopped or (limit is not None and counters.records >= limit)
