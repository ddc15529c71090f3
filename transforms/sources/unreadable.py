"""A stretch of a file that holds no readable record: it travels as a chunk of its own and becomes one dead letter."""

from __future__ import annotations

import msgspec

from transforms.elements import Chunk

UNREADABLE = "unreadable"
"""`Chunk.format` of such a stretch. The payload is an encoded `Unreadable`."""

KEPT_BYTES = 64 << 10
"""Bytes kept of what could not be read."""


class Unreadable(msgspec.Struct):
    """Why a stretch of a file could not be read, and how it begins."""

    reason: str
    length: int
    """Bytes of the stretch, as far as it was seen."""
    head: bytes
    """Its first bytes, at most KEPT_BYTES."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Unreadable).decode


def unreadable_chunk(source: str, position: int, line: int, reason: str, head: bytes = b"", length: int = -1) -> Chunk:
    """The chunk that stands for an unreadable stretch.

    position and line say where it begins; length defaults to that of head, of which the first 64 KiB are kept.
    """
    stretch = Unreadable(reason, len(head) if length < 0 else length, bytes(head[:KEPT_BYTES]))
    return Chunk(source, position, line, UNREADABLE, _encode(stretch))


def read_unreadable(chunk: Chunk) -> Unreadable:
    """What `unreadable_chunk` put into the chunk."""
    return _decode(chunk.payload)
