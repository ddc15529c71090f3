"""What travels between the steps of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, list[Item]]).decode


def pack_items(source: str, items: Iterable[Item]) -> bytes:
    """One bytes element of many items: Beam then moves one value where it would move thousands."""
    return _encode((source, items))


def unpack_items(data: bytes) -> tuple[str, list[Item]]:
    """The inverse of `pack_items`: (source, items)."""
    return _decode(data)
