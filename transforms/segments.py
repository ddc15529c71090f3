"""Segments: files of mapped items that wait for one destination, in order.

magic, length of the head, head (models, their schemas, shards), then for each element:
shard, window's start, length, CRC-32 of the packed items, packed items
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final, NamedTuple

import msgspec
from apache_beam.transforms.window import GlobalWindow

from transforms.elements import Item, pack_items, unpack_items
from transforms.ledger_reader import StateError

_MAGIC: Final = b"PRS\x02"
_LENGTH: Final = struct.Struct("<I")
_ELEMENT: Final = struct.Struct("<IqII")
"""Shard, window's start in microseconds (NO_WINDOW: none), length and CRC-32 of the packed items."""

NO_WINDOW: Final = -(1 << 63)


class SegmentGone(StateError):
    """A segment that is not there."""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """How a segment's items were made: another relay file may be in force when they are sent."""

    models: list[str]
    """In the order of the items' model index."""
    schemas: list[str]
    """Of each model's payloads."""
    shards: int
    mapping: str = ""
    """The mapping's version; empty in segments of before it was kept."""

    def schema(self, model: str) -> str:
        """Of a model's payloads."""
        return self.schemas[self.models.index(model)]


class Element(NamedTuple):
    """Items of one shard and window, as they were written."""

    start: int
    """Window's start in microseconds; without windows one and the same number."""
    shard: int
    packed: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def start_of(window: Any) -> int:
    """A Beam window's start in microseconds."""
    return NO_WINDOW if isinstance(window, GlobalWindow) else int(window.start.micros)


def write_head(file: IO[bytes], head: Head) -> None:
    """Begins a segment."""
    data = _encode(head)
    file.write(_MAGIC + _LENGTH.pack(len(data)) + data)


def write_element(file: IO[bytes], element: Element) -> None:
    """Adds an element."""
    file.write(_ELEMENT.pack(element.shard, element.start, len(element.packed), zlib.crc32(element.packed)))
    file.write(element.packed)


def read_segment(path: str) -> tuple[Head, Iterator[Element]]:
    """A segment's head and elements. SegmentGone when it is not there, StateError when it is no segment or not as it was
    written: at once, or when its elements are read."""
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed by the iterator
    except FileNotFoundError:
        raise _damaged(path, "is gone", SegmentGone) from None
    try:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _damaged(path, "is no segment")
        return _decode(file.read(_LENGTH.unpack(file.read(_LENGTH.size))[0])), _elements(file, path)
    except BaseException as error:
        file.close()
        if isinstance(error, struct.error | msgspec.MsgspecError):
            raise _damaged(path, "is damaged") from None
        raise


def _elements(file: IO[bytes], path: str) -> Iterator[Element]:
    with file:
        while head := file.read(_ELEMENT.size):
            if len(head) != _ELEMENT.size:
                raise _damaged(path, "is cut off")
            shard, start, length, checksum = _ELEMENT.unpack(head)
            packed = file.read(length)
            if len(packed) != length:
                raise _damaged(path, "is cut off")
            if zlib.crc32(packed) != checksum:
                raise _damaged(path, "is damaged")
            yield Element(start, shard, packed)


def _damaged(path: str, what: str, kind: type[StateError] = StateError) -> StateError:
    return kind(
        f"{path}: {what}; items wait there for their vendor: put the file back from a copy of the folder, or name another "
        "folder with --state to go on without all that waits in this one"
    )


def shard_again(elements: Iterator[Element], shards: int) -> Iterator[Element]:
    """The same items under another number of shards."""
    for element in elements:
        source, items = unpack_items(element.packed)
        by_shard: dict[int, list[Item]] = {}
        for item in items:
            by_shard.setdefault(zlib.crc32(item[2].encode("utf-8", "surrogatepass")) % shards, []).append(item)
        for shard, own in by_shard.items():
            yield Element(element.start, shard, pack_items(source, own, len({item[4] for item in own})))


def translation(head: Head, models: Sequence[str], schemas: Mapping[str, str]) -> list[int | None]:
    """Index of each of a segment's models among `models`; None where it is there no longer, or its payloads are made
    otherwise. `schemas`: model -> schema of its payloads now."""
    return [
        models.index(model) if model in models and schemas.get(model) == schema else None
        for model, schema in zip(head.models, head.schemas, strict=True)
    ]
