"""What travels between the steps of the pipeline."""

from __future__ import annotations

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
    """Byte offset of the payload's first byte in the (decompressed) file; for Avro, of the block."""
    line: int
    """1-based number of the payload's first line; 0 when it is not known."""
    format: str
    """How the payload is written: `json` (lines), `array`, `csv`, `avro`; `unreadable`: why nothing could be read."""
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
_decode = msgspec.msgpack.Decoder(tuple[str, int, list[Item]]).decode
_head = msgspec.msgpack.Decoder(tuple[str, int, msgspec.Raw]).decode


def pack_items(source: str, items: Sequence[Item], records: int | None = None) -> bytes:
    """One bytes element of many items: Beam then moves one value where it would move thousands.

    records: how many records they are of; as many as items when None.
    """
    return _encode((source, len(items) if records is None else records, items))


def unpack_items(data: bytes) -> tuple[str, list[Item]]:
    """The inverse of `pack_items`: (source, items)."""
    source, _, items = _decode(data)
    return source, items


def counts(data: bytes) -> tuple[int, int]:
    """(items, records) of packed items, without unpacking them: MessagePack says an array's length first."""
    _, records, items = _head(data)
    start = bytes(memoryview(items)[:5])
    if start[0] < 0xA0:
        return start[0] & 0x0F, records
    return int.from_bytes(start[1:3] if start[0] == 0xDC else start[1:5], "big"), records
