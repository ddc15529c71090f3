"""The journal: what became of each item of a segment, written down before anything else is sent.

One file a segment, appended to with one write for all answers that came in together, so it is there after a kill -9 of
the process, at a thousandth of what a database transaction an answer would cost. When all items of a segment have their
outcome, the ledger takes over the sums and the journal goes with its segment.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from transforms.dead_letter import Failed
from transforms.disk import naming
from transforms.elements import Item, Origin
from transforms.pack import SourcedItem

_HEAD: Final = struct.Struct("<cIQ")
"""Kind of entry, items (of _FAILED: bytes) that follow, digest of their source."""

OPEN_FILES: Final = 64
"""Journals that are open at a time: small segments may be in hand by the thousand."""

_DELIVERED, _FAILED = b"d", b"f"

Key = tuple[int, int, int]
"""Names an item in its segment: (digest of its source, model, record reference). A record gives a model one item."""


@lru_cache(maxsize=4096)
def _digest(source: str) -> int:
    """64 bits that stand for a source's name; a segment holds items of a handful of them."""
    return int.from_bytes(hashlib.blake2b(source.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


class _Failure(msgspec.Struct, array_like=True):
    """A failed item as the journal has it: its payload is in the segment."""

    outcome: str
    reason: str
    model: int
    ref: int
    status: int
    answer: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Failure).decode


class Done(NamedTuple):
    """What a segment's journal says."""

    delivered: set[Key]
    failed: dict[Key, _Failure]

    def __bool__(self) -> bool:
        return bool(self.delivered or self.failed)

    @staticmethod
    def key(origin: Origin, item: Item) -> Key:
        """The key of an item of this segment."""
        return _digest(origin.source), item[1], item[4]

    def failure(self, key: Key, item: Item, origin: Origin, models: Sequence[str]) -> Failed:
        """The failed item again; `models`: the segment's."""
        payload, model, user, time_ms, ref = item
        one = self.failed[key]
        return Failed(
            one.outcome,
            one.reason,
            origin.source,
            ref,
            models[model],
            user,
            time_ms,
            payload,
            one.status,
            one.answer,
            segment=origin.segment,
        )


def journal_of(segment: str) -> str:
    """Path of a segment's journal."""
    return f"{segment}.done"


class Journal:
    """The journals of the segments that are being sent. Errors of the disk are raised: what cannot be written down
    must not go on."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        self._own: dict[int, Mapping[int, int]] = {}
        self._held: dict[int, list[bytes]] = {}

    def open(self, segments: Mapping[int, str], own_models: Mapping[int, Mapping[int, int]]) -> None:
        """Takes up segments: number -> path. OSError when a journal cannot be written to.

        own_models: of segments whose models are not the destination's: number -> (index of a model now -> its own).
        """
        self._own.update(own_models)
        for number, path in segments.items():
            self._paths[number] = journal_of(path)
            file = self._file(number)
            if size := os.fstat(file).st_size:
                # What a kill cut off must not stand before what comes now.
                os.ftruncate(file, sum(len(entry) + _HEAD.size for *_, entry in _entries(os.pread(file, size, 0))))

    def _file(self, number: int) -> int:
        file = self._files.get(number)
        if file is None:
            if len(self._files) >= OPEN_FILES:  # that which was opened first
                os.close(self._files.pop(next(iter(self._files))))
            file = self._files[number] = os.open(self._paths[number], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return file

    def close(self) -> None:
        """Lets go of all segments."""
        self._held.clear()
        self._own.clear()
        self._paths.clear()
        while self._files:
            os.close(self._files.popitem()[1])

    def delivered(self, items: Sequence[SourcedItem]) -> None:
        """Notes items that the vendor took; written with the next flush."""
        first = items[0][1]
        if all(origin is first or origin == first for _, origin in items):
            self._note(first, [item for item, _ in items])
            return
        by_origin: dict[Origin, list[Item]] = {}
        for item, origin in items:
            by_origin.setdefault(origin, []).append(item)
        for origin, own in by_origin.items():
            self._note(origin, own)

    def _note(self, origin: Origin, items: Sequence[Item]) -> None:
        refs = array("Q", [item[4] for item in items]).tobytes()
        own = self._own.get(origin.segment)
        models = bytes([item[1] if own is None else own[item[1]] for item in items])
        head = _HEAD.pack(_DELIVERED, len(items), _digest(origin.source))
        self._held.setdefault(origin.segment, []).append(b"%b%b%b" % (head, models, refs))

    def failed(self, outcome: str, reason: str, status: int, answer: str, items: Iterable[SourcedItem]) -> None:
        """Notes items that went nowhere; written with the next flush."""
        for (_, model, _, _, ref), origin in items:
            own = self._own.get(origin.segment)
            index = model if own is None else own[model]
            entry = _encode(_Failure(outcome, reason, index, ref, status, answer))
            head = _HEAD.pack(_FAILED, len(entry), _digest(origin.source))
            self._held.setdefault(origin.segment, []).append(head + entry)

    def flush(self) -> None:
        """Writes what is noted. OSError when the disk does not take it."""
        if not self._held:
            return
        for number, entries in self._held.items():
            data = b"".join(entries)
            with naming(self._paths[number]):
                file = self._file(number)
                while data:
                    data = data[os.write(file, data) :]
        self._held.clear()


def read(segment: str) -> Done:
    """What a segment's journal says; nothing when there is none. An entry that a kill cut off at the end is none."""
    done = Done(set(), {})
    try:
        with open(journal_of(segment), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return done
    for kind, source, entry in _entries(data):
        if kind == _FAILED:
            failure = _decode(entry)
            done.failed[source, failure.model, failure.ref] = failure
        else:
            count = len(entry) // 9
            refs = array("Q", entry[count:])
            done.delivered.update((source, model, ref) for model, ref in zip(entry[:count], refs, strict=True))
    return done


def _entries(data: bytes) -> Iterator[tuple[bytes, int, Any]]:
    at = 0
    while at + _HEAD.size <= len(data):
        kind, count, source = _HEAD.unpack_from(data, at)
        size = 9 * count if kind == _DELIVERED else count
        at += _HEAD.size
        if at + size > len(data):
            return
        yield kind, source, data[at : at + size]
        at += size
