"""A batch on its way."""

from __future__ import annotations

from collections.abc import Iterable

from transforms.vendors.base import Batch


class Send:
    """A batch on its way: how often and since when it has been tried."""

    __slots__ = ("attempts", "batch", "failed_at", "failing_since", "rounds", "started", "success_before")

    def __init__(self, batch: Batch, attempts: int = 0, failing_since: float = 0.0, failed_at: float = 0.0) -> None:
        self.batch = batch
        self.attempts = attempts
        self.failing_since = failing_since
        """Start of the first try that failed; 0 when none did."""
        self.failed_at = failed_at
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
