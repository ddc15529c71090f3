"""Messages of a Pub/Sub subscription: many of them in a chunk, and files of them.

A message file is what a stream pulled in one go: a line that tells what it is, the subscription's name, and blocks. A block
is its length and CRC-32 (4 bytes each, little endian) and the payload of one chunk.
"""

from __future__ import annotations

import array
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

import msgspec

from transforms.disk import naming, sync_folder
from transforms.elements import Chunk
from transforms.sources.files import Corrupt, Stream
from transforms.sources.lines import BLOCK
from transforms.sources.unreadable import unreadable_chunk

MESSAGES: Final = "messages"
"""`Chunk.format` of such chunks, and the layout of message files."""
MAGIC: Final = b"playrelay messages 1\n"
"""How a message file begins, whatever its name."""

ENCODING: Final = "googclient_schemaencoding"
"""Attribute that Pub/Sub sets on the messages of a topic with a schema: `BINARY` or `JSON` (Pub/Sub, "Create and manage
schemas", "Message attributes")."""
GZIP: Final = b"\x1f\x8b"
"""How gzip data begins."""

MAX_MESSAGE_RECORDS: Final = 250_000
"""Records that one message may hold. Pub/Sub takes messages of up to 10 MB; compressed, they could hold any number."""
MAX_CONTENT: Final = 64 << 20
"""Bytes that the data of a message may have when decompressed."""
_BESIDE: Final = 32
"""Bytes that a message counts beside its data, so that a chunk of empty ones is bounded too."""
_MAX_BLOCK: Final = 256 << 20
"""Bytes of a block; a larger size is a sign of damage."""
_HEAD: Final = struct.Struct("<II")
_NAME: Final = struct.Struct("<I")


class Again(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a record that is relayed again is, as its dead letter says.

    It stands beside the message's attributes and not among them, so that nobody who may publish can pretend to it.
    """

    format: str
    """How the data is written: as in a letter's `source.format`. It is one record, whatever is in it."""
    letter: bytes
    """What a letter has of the one before, when the record fails again; transforms/dead_letter.py reads it."""
    header: bytes = b""
    """For CSV, the header row."""
    delimiter: str = ""
    """For CSV."""
    schema: bytes = b""
    """For a record of an Avro container, what it was written with, as JSON. The data is its binary encoding then."""


class Message(NamedTuple):
    """A message of a subscription."""

    data: bytes
    attributes: Mapping[str, str]
    id: str
    ordering_key: str = ""
    published_ms: int = 0
    """When it was published, in ms since 1970 UTC; 0 when not known."""
    again: Again | None = None
    """Set when it is no message that came, but a record relayed again."""


class _Rest(msgspec.Struct, array_like=True, gc=False):
    """What messages have beside their data, a list for each."""

    attributes: list[dict[str, str]]
    ids: list[str]
    ordering_keys: list[str]
    published_ms: list[int]
    again: list[Again | None] = []
    """Empty when no message is a record relayed again."""


class Packed(msgspec.Struct, array_like=True, gc=False):
    """The payload of a chunk of messages. The data stands apart, so that JSON is decoded in one go and the rest
    is looked at only where it is asked for."""

    plain: bool
    """No attribute of a message says that its data is anything else than JSON."""
    text: bytes
    """The messages' data, with a line end behind each."""
    lengths: bytes
    """Bytes of each message's data: 4 each, little endian."""
    rest: msgspec.Raw

    @property
    def count(self) -> int:
        """How many messages there are."""
        return len(self.lengths) // 4


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode
_decode_rest = msgspec.msgpack.Decoder(_Rest).decode


def pack_messages(messages: Sequence[Message]) -> bytes:
    """The payload of a chunk. `blocks` says how many messages go into one, so that it has no more records than a
    reference can tell apart."""
    given = [message[1] for message in messages]
    again = [message[5] for message in messages]
    relayed_again = any(again)
    rest = _Rest(
        [attributes if attributes.__class__ is dict else dict(attributes) for attributes in given],
        [message[2] for message in messages],
        [message[3] for message in messages],
        [message[4] for message in messages],
        again if relayed_again else [],
    )
    data = [message[0] for message in messages]
    plain = not relayed_again and not any(ENCODING in attributes for attributes in filter(None, given))
    return _encode(Packed(plain, b"\n".join((*data, b"")), _packed_lengths(data), msgspec.Raw(_encode(rest))))


def unpack_messages(payload: bytes) -> list[Message]:
    """The inverse of `pack_messages`."""
    packed = unpack(payload)
    rest = _decode_rest(packed.rest)
    columns = (rest.attributes, rest.ids, rest.ordering_keys, rest.published_ms)
    return list(map(Message, data_of(packed), *columns, rest.again or [None] * packed.count))


def unpack(payload: bytes) -> Packed:
    """A payload, taken apart only as far as it costs nothing."""
    return _decode(payload)


def lengths_of(packed: Packed) -> array.array[int]:
    """Bytes of each message's data."""
    lengths = array.array("I", packed.lengths)
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths


def data_of(packed: Packed) -> list[bytes]:
    """The data of each message."""
    found, at, text = [], 0, packed.text
    for length in lengths_of(packed):
        found.append(text[at : at + length])
        at += length + 1
    return found


def attributes_of(packed: Packed) -> list[dict[str, str]]:
    """The attributes of each message."""
    return _decode_rest(packed.rest).attributes


def parts_of(packed: Packed) -> Iterator[tuple[bytes, dict[str, str], Again | None]]:
    """What is looked at to decode each message: its data, its attributes and whether it is a record relayed again."""
    rest = _decode_rest(packed.rest)
    again = rest.again or [None] * packed.count
    return zip(data_of(packed), rest.attributes, again, strict=True)


def _packed_lengths(data: Sequence[bytes]) -> bytes:
    lengths = array.array("I", map(len, data))
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths.tobytes()


def blocks(messages: Iterable[Message], size: int = BLOCK) -> Iterator[list[Message]]:
    """The messages in groups of about `size` bytes of data, decompressed, each of which makes one chunk."""
    group: list[Message] = []
    held = 0
    for message in messages:
        if held >= size:
            yield group
            group, held = [], 0
        group.append(message)
        data = message[0]
        held += _BESIDE + content_size(data)
    if group:
        yield group


def content_size(data: bytes) -> int:
    """Bytes of a message's data, decompressed if it is gzip."""
    return size_inside(data) if data[:2] == GZIP else len(data)


def size_inside(data: bytes) -> int:
    """Bytes that gzip data may have when decompressed: as many as it says at its end (RFC 1952, ISIZE)."""
    return max(len(data), min(int.from_bytes(data[-4:], "little"), MAX_CONTENT))


def write_messages(path: str, name: str, messages: Iterable[Message]) -> int:
    """Writes a message file and returns its bytes. It is there as a whole or not at all, and on disk when this returns.

    name: the subscription. Raises OSError when it cannot be written.
    """
    partial = f"{path}.partial"
    try:
        with naming(path), open(partial, "wb") as file:
            encoded = name.encode()
            file.write(MAGIC + _NAME.pack(len(encoded)) + encoded)
            for group in blocks(messages):
                payload = pack_messages(group)
                file.write(_HEAD.pack(len(payload), zlib.crc32(payload)))
                file.write(payload)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
    sync_folder(os.path.dirname(os.path.abspath(path)))
    return size


def subscription_of(path: str) -> str:
    """The name that a message file was written with. Raises Corrupt when it is no message file, or gone."""
    with closing(Stream(path)) as stream:
        return _read_name(stream)


def _read_name(stream: Stream) -> str:
    if stream.read(len(MAGIC)) != MAGIC:
        raise Corrupt("not a message file")
    (length,) = _NAME.unpack(_read(stream, _NAME.size))
    return _read(stream, length).decode("utf-8", "replace")


def _read(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise Corrupt("the message file is cut off")
    return data


def chunks(stream: Stream, start: int = 0, stop: int | None = None) -> Iterator[Chunk]:
    """The blocks from start (0, or where a block begins) up to, not including, stop, as one chunk each.

    A chunk's position is that of its block. A damaged block comes as an unreadable chunk, and reading goes on behind
    it as far as there is a block there.
    """
    position = start
    try:
        if start:
            stream.seek(start)
        else:
            _read_name(stream)
        while stop is None or stream.position < stop:
            position = stream.position
            head = stream.read(_HEAD.size)
            if not head:
                return
            if len(head) != _HEAD.size:
                raise Corrupt("the message file is cut off")
            length, checksum = _HEAD.unpack(head)
            if length > _MAX_BLOCK:
                raise Corrupt("the message file is damaged: a block's length makes no sense")
            payload = _read(stream, length)
            if zlib.crc32(payload) == checksum:
                yield Chunk(stream.name, position, 0, MESSAGES, payload)
            else:
                problem = "the message file is damaged: a block's checksum is not that of its bytes"
                yield unreadable_chunk(stream.name, position, 0, problem, payload)
    except Corrupt as problem:
        yield unreadable_chunk(stream.name, position, 0, str(problem))
