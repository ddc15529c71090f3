"""Segments: files of mapped items that wait for one destination, in order.

magic, length of the head, head (models, their schemas, shards), then for each element:
shard, window's start, length, packed items
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final, NamedTuple

import msgspec
from apache_beam.transforms.window import GlobalWindow

from transforms.elements import Item, pack_items, unpack_items

_MAGIC: Final = b"PRS\x01"
_LENGTH: Final = struct.Struct("<I")
_ELEMENT: Final = struct.Struct("<IqI")
"""Shard, window's start in microseconds (NO_WINDOW: none), length of the packed items."""

NO_WINDOW: Final = -(1 << 63)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """How a segment's items were made: another relay file may be in force when they are sent."""

    models: list[str]
    """In the order of the items' model index."""
    schemas: list[str]
    """Of each model's payloads."""
    shards: int


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
    file.write(_ELEMENT.pack(element.shard, element.start, len(element.packed)))
    file.write(element.packed)


def read_segment(path: str) -> tuple[Head, Iterator[Element]]:
    """A segment's head and elements. ValueError for a file that is no segment, or not a whole one."""
    file = open(path, "rb")  # noqa: SIM115  # closed by the iterator
    if file.read(len(_MAGIC)) != _MAGIC:
        file.close()
        raise ValueError(f"{path}: is no segment")
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    return _decode(file.read(length)), _elements(file, path)


def _elements(file: IO[bytes], path: str) -> Iterator[Element]:
    with file:
        while head := file.read(_ELEMENT.size):
            shard, start, length = _ELEMENT.unpack(head)
            packed = file.read(length)
            if len(packed) != length:
                raise ValueError(f"{path}: cut off")
            yield Element(start, shard, packed)


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
