"""From outcomes of items to outcomes of records, exactly, whatever the order they arrive in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transforms.dead_letter import UNDELIVERED, Failed
from transforms.elements import split_ref

_REJECTED, _UNDELIVERED = 1, 2


class RecordOutcomes:
    """The records of one destination of which at least one item was not delivered.

    A record may give several items (a login is an action and a player login), and its outcome is the
    worst of theirs. A byte a record of each chunk in which something failed: 5,000,000 undelivered
    records take 5 MB.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], bytearray] = {}

    def add(self, failures: Iterable[Failed]) -> None:
        """Notes what failed."""
        for failed in failures:
            position, index = split_ref(failed.ref)
            marks = self._chunks.setdefault((failed.source, position), bytearray())
            if index >= len(marks):
                marks.extend(bytes(index + 1 - len(marks)))
            marks[index] = max(marks[index], _UNDELIVERED if failed.outcome == UNDELIVERED else _REJECTED)

    def chunks(self) -> Iterator[tuple[tuple[str, int], bytes]]:
        """((source, position of a chunk), marks of its records), for keeping."""
        return ((chunk, bytes(marks)) for chunk, marks in self._chunks.items())

    def merge(self, source: str, position: int, marks: bytes) -> None:
        """Adds what was kept of a chunk."""
        own = self._chunks.setdefault((source, position), bytearray())
        own.extend(bytes(max(0, len(marks) - len(own))))
        for index, mark in enumerate(marks):
            own[index] = max(own[index], mark)

    def rejected(self) -> int:
        """Records whose worst outcome is rejected."""
        return sum(marks.count(_REJECTED) for marks in self._chunks.values())

    def undelivered(self) -> int:
        """Records whose worst outcome is undelivered."""
        return sum(marks.count(_UNDELIVERED) for marks in self._chunks.values())
