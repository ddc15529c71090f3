"""A batch on its way."""

from __future__ import annotations

from collections.abc import Iterable

from transforms.vendors.base import Batch


class Send:
    """A batch on its way: how often and since when it has been tried."""

    __slots__ = ("attempts", "batch", "failed_at", "failing_since", "rounds", "started", "success_before")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.attempts = 0
        self.failing_since = 0.0
        """Start of the first try that failed; 0 when none did."""
        self.failed_at = 0.0
        """When that try was known to have failed."""
        self.started = 0.0
        self.rounds = 0
        """How often this used up its time with nothing else taken meanwhile, though something was since the last time."""
        self.success_before: float | None = None
        """`Gate.last_success` when this last used up its time."""


def some(batch: Batch, indexes: Iterable[int]) -> Batch:
    """A batch of these items of another."""
    chosen = list(indexes)
    return batch._replace(items=[batch.items[i] for i in chosen], parts=[batch.parts[i] for i in chosen])
