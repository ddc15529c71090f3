"""What travels between the steps of the pipeline."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

INDEX_BITS = 20
"""Bits of a record reference that hold the record's index in its chunk."""

MAX_CHUNK_RECORDS = 1 << INDEX_BITS

Item = tuple[bytes, int, str, int, int]
"""One mapped payload: (payload JSON, model index, user, time in ms, record reference).

A plain tuple, because one is made, moved and taken apart for each event.
"""


class Chunk(NamedTuple):
    """Many raw records of one source, travelling as one element."""

    source: str
    """File name, or subscription."""
    position: int
    """Byte offset of the payload's first byte in the (decompressed) file; for Avro and messages, of the block."""
    line: int
    """1-based number of the payload's first line; 0 when it is not known."""
    format: str
    """How the payload is written: `json` (lines), `array`, `csv`, `avro`, `messages`; `unreadable`: why nothing could be
    read."""
    payload: bytes


def record_ref(position: int, index: int) -> int:
    """Names a record inside its source: the chunk's position and the record's index in the chunk."""
    return position << INDEX_BITS | index


def split_ref(ref: int) -> tuple[int, int]:
    """(position, index) of a record reference."""
    return ref >> INDEX_BITS, ref & (MAX_CHUNK_RECORDS - 1)


class Origin(NamedTuple):
    """Where an item comes from: what orders items of the same time, and what its outcome is written down for."""

    source: str
    """File name, or message file."""
    segment: int = 0
    """Number of the segment on disk that holds it; 0 when there is none to account to."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, list[Item]]).decode
_COUNTS = struct.Struct("<II")
"""Items and records, before (source, items)."""


class Packer:
    """Makes one bytes element of many items: Beam then moves one value where it would move thousands.

    Items are packed as they are added, not all at the end: then they are still in the processor's cache.
    """

    def __init__(self) -> None:
        self._items = self._records = 0
        self._body = bytearray()

    def add(self, items: Sequence[Item], records: int) -> None:
        """Puts the items of so many records behind those that are there."""
        # MessagePack writes an array's length before its elements: without it, arrays can be joined.
        length = 1 if len(items) < 1 << 4 else 3 if len(items) < 1 << 16 else 5
        self._body += _encode(items)[length:]
        self._items += len(items)
        self._records += records

    def packed(self, source: str) -> bytes:
        """What `unpack_items` and `counts` take."""
        counts = _COUNTS.pack(self._items, self._records)
        return b"%b\x92%b\xdd%b" % (counts, _encode(source), self._items.to_bytes(4, "big")) + self._body


def pack_items(source: str, items: Sequence[Item], records: int | None = None) -> bytes:
    """All items of an element in one go. records: how many records they are of; as many as items when None."""
    packer = Packer()
    packer.add(items, len(items) if records is None else records)
    return packer.packed(source)


def unpack_items(data: bytes) -> tuple[str, list[Item]]:
    """The inverse of `pack_items`: (source, items)."""
    return _decode(memoryview(data)[_COUNTS.size :])


def counts(data: bytes) -> tuple[int, int]:
    """(items, records) of packed items, without unpacking them."""
    items, records = _COUNTS.unpack_from(data)
    return items, records
