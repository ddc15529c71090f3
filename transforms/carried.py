"""Items that travel with their records as these were written.

A stream cannot be read again, and a dead letter holds its record's original bytes. A record and its items share most of
their text, so compressed together they take less room than the items alone would uncompressed.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
import zstandard

from transforms.dead_letter import Failed
from transforms.destination import Destination
from transforms.elements import Item
from transforms.sources.messages import Message
from transforms.sources.records import RawRecord
from transforms.vendors import schemas_of

_HEAD: Final = struct.Struct("<IIQ")
"""Items, bytes of their payloads, and `number_of_kinds`: what is asked for before anything is unpacked."""

Kind = tuple[str, str]
"""What an item is: the name of its model, and of the schema of its payload."""

LEVEL: Final = 1
"""Of zstd: 0.8 µs a record; level 3 takes a third longer for a tenth less."""


class _Record(msgspec.Struct, array_like=True, gc=False):
    """A record that items came from."""

    ref: int
    text: bytes
    message: int
    """Index of its message; -1: none."""
    number: int
    """Its place in that message."""


class _Packed(msgspec.Struct, array_like=True, gc=False):
    source: str
    items: list[Item]
    """Their reference is an index into `records`."""
    records: list[_Record | None]
    messages: list[tuple[dict[str, str], str, str, int]]
    """Attributes, id, ordering key and time of the messages; their data is in the records."""
    kinds: tuple[Kind, ...] = ()
    """By the items' model: another relay file may be in force when they are sent. None: they are those of then."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode

_local = threading.local()  # a compressor must not be used by two threads at a time


def _compress(data: bytes) -> bytes:
    if not hasattr(_local, "compress"):
        _local.compress = zstandard.ZstdCompressor(level=LEVEL).compress
        _local.decompress = zstandard.ZstdDecompressor().decompress
    compressed: bytes = _local.compress(data)
    return compressed


def _decompress(data: bytes) -> bytes:
    if not hasattr(_local, "decompress"):
        _compress(b"")
    text: bytes = _local.decompress(data)
    return text


class Size(NamedTuple):
    """How much is packed."""

    items: int
    bytes: int
    """Of the items' payloads."""


def kinds_of(to: Destination, models: Sequence[str]) -> tuple[Kind, ...]:
    """What items of a destination's models are."""
    schemas = schemas_of(to.vendor, to.options)
    return tuple((model, schemas[model]) for model in models)


@lru_cache(maxsize=64)
def number_of_kinds(kinds: tuple[Kind, ...]) -> int:
    """Tells whether two elements' items are of the same kinds; 0 for none."""
    return int.from_bytes(blake2b(_encode(kinds), digest_size=8).digest(), "little") if kinds else 0


class Carried:
    """Items of one source with their records. An item's reference is the place of its record in here."""

    def __init__(self, packed: _Packed) -> None:
        self._packed = packed

    @property
    def source(self) -> str:
        """File name, or subscription."""
        return self._packed.source

    @property
    def items(self) -> list[Item]:
        """The items, in order."""
        return self._packed.items

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the items are, by their model's number."""
        return self._packed.kinds

    def complete(self, failed: Failed, place: int) -> Failed:
        """A failed item with the record at a place: nothing has to be read again for its dead letter."""
        record = self._packed.records[place]
        assert record is not None
        message = None if record.message < 0 else Message(b"", *self._packed.messages[record.message])
        return with_record(failed._replace(source=self.source, ref=record.ref), record.text, message, record.number)

    def name(self, place: int) -> tuple[str, int]:
        """What names the record at a place wherever else it turns up: (id of its message, place in it)."""
        record = self._packed.records[place]
        assert record is not None
        if record.message < 0:
            return f"{self._packed.source} {record.ref}", 0
        return self._packed.messages[record.message][1], record.number

    def only(self, items: Sequence[Item], kinds: tuple[Kind, ...] | None = None) -> bytes:
        """Some of the items packed again, under other kinds if any are given; each record stays in its place."""
        kept = {item[4] for item in items}
        records = [record if place in kept else None for place, record in enumerate(self._packed.records)]
        return _pack(
            _Packed(self.source, list(items), records, self._packed.messages, self.kinds if kinds is None else kinds)
        )


def pack_carried(
    source: str, items: Collection[Item], records: Mapping[int, RawRecord], kinds: tuple[Kind, ...] = ()
) -> bytes:
    """One element of many items and their records; `records`: by reference, at least those of the items."""
    places: dict[int, int] = {}
    placed = [
        (payload, model, user, time, places.setdefault(ref, len(places))) for payload, model, user, time, ref in items
    ]
    known: dict[int, int] = {}
    messages: list[tuple[dict[str, str], str, str, int]] = []
    kept: list[_Record | None] = []
    for ref in places:
        record = records[ref]
        message = record.message
        at = -1
        if message is not None:
            at = known.setdefault(id(message), len(messages))
            if at == len(messages):
                messages.append((dict(message.attributes), message.id, message.ordering_key, message.published_ms))
        kept.append(_Record(ref, record.text, at, record.number))
    return _pack(_Packed(source, placed, kept, messages, kinds))


class CarryingPacker:
    """What transforms/elements.Packer is, for items that travel with their records."""

    def __init__(self, records: Mapping[int, RawRecord], kinds: tuple[Kind, ...]) -> None:
        self._records = records
        self._kinds = kinds
        self._items: list[Item] = []

    def add(self, items: Collection[Item], records: int) -> None:
        """Puts items behind those that are there."""
        self._items += items

    def packed(self, source: str) -> bytes:
        """What `unpack_carried` takes."""
        return pack_carried(source, self._items, self._records, self._kinds)


def _pack(packed: _Packed) -> bytes:
    size = sum(len(item[0]) for item in packed.items)
    return _HEAD.pack(len(packed.items), size, number_of_kinds(packed.kinds)) + _compress(_encode(packed))


def unpack_carried(data: bytes) -> Carried:
    """The inverse of `pack_carried`."""
    return Carried(_decode(_decompress(data[_HEAD.size :])))


def size_of(data: bytes) -> Size:
    """How much `data` holds, without unpacking it."""
    return Size(*_HEAD.unpack_from(data)[:2])


def kinds_in(data: bytes) -> int:
    """The `number_of_kinds` of `data`, without unpacking it."""
    return int(_HEAD.unpack_from(data)[2])


def with_record(failed: Failed, text: bytes, message: Message | None, number: int) -> Failed:
    """A failed record or item with its record: as written (Avro: its JSON text), its message, its place in that."""
    return failed._replace(original=text, message=message, number=number)
