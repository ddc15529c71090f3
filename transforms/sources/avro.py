"""Avro container files, cut into chunks of whole blocks. Nothing is decoded here.

A container is a header (schema, codec, a sync marker of 16 bytes) and blocks: count of records, size, the records,
the sync marker again (Avro specification, "Object Container Files").
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from transforms.elements import MAX_CHUNK_RECORDS, Chunk
from transforms.sources.avro_records import compile_records
from transforms.sources.files import Corrupt, Stream
from transforms.sources.formats import AVRO_MAGIC
from transforms.sources.lines import BLOCK, SHORT_READ
from transforms.sources.unreadable import KEPT_BYTES, unreadable_chunk

MAX_BLOCK: Final = 64 << 20
"""Bytes of a block; writers make blocks of 16 KiB to 1 MiB, so a larger size is a sign of damage."""
MAX_HEADER: Final = 16 << 20
SYNC: Final = 16
CHUNK_RECORDS: Final = 400
"""Records after which a chunk ends, about as many as a chunk of JSON lines has: their structs stay in the processor's
cache until they are mapped. Bytes do not tell, as the fields' names are not in them and they may be compressed."""


class Header(NamedTuple):
    """What stands at the start of a container."""

    schema: Any
    """The writer's schema, parsed JSON."""
    codec: str
    sync: bytes
    end: int
    """Byte offset of the first block."""
    text: bytes
    """The header as it stands in the file. Each chunk's payload begins with it."""


def read_header(stream: Stream) -> Header:
    """Reads the header from the start of the stream. Raises Corrupt."""
    text = b""
    while True:
        data = stream.read(SHORT_READ)
        text += data
        if not text.startswith(AVRO_MAGIC[: len(text)]) or not text:
            raise Corrupt("not an Avro container: it does not begin with Obj and the byte 1")
        file = io.BytesIO(text)
        file.seek(len(AVRO_MAGIC))
        try:
            meta = _read_meta(file)
            sync = _take(file, SYNC)
        except _Damaged as damage:
            raise Corrupt(str(damage)) from damage
        except EOFError:
            if not data or len(text) > MAX_HEADER:
                raise Corrupt("the Avro header is damaged or cut off") from None
            continue
        stream.unread(text[file.tell() :])
        return _header(meta, sync, text[: file.tell()])


def _header(meta: dict[bytes, bytes], sync: bytes, text: bytes) -> Header:
    try:
        schema = msgspec.json.decode(meta.get(b"avro.schema", b""))
        codec = meta.get(b"avro.codec", b"null").decode("ascii")
        compile_records(schema)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode's errors are ValueErrors
        raise Corrupt(f"the Avro header has no readable schema ({error})") from error
    return Header(schema, codec, sync, len(text), text)


def parse_header(text: bytes) -> Header:
    """The header that a chunk's payload begins with. `read_header` has read it before."""
    file = io.BytesIO(text)
    file.seek(len(AVRO_MAGIC))
    meta = _read_meta(file)
    return _header(meta, _take(file, SYNC), text)


def blocks_of(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(offset, count of records, bytes as stored) of each block in a payload."""
    file = io.BytesIO(text)
    while file.tell() < len(text):
        offset, count, size = file.tell(), read_long(file), read_long(file)
        yield offset, count, file.read(size)
        file.seek(SYNC, io.SEEK_CUR)


def chunks(stream: Stream, start: int = 0, stop: int | None = None, block: int = BLOCK) -> Iterator[Chunk]:
    """The blocks that begin at an offset from start up to, not including, stop, in chunks of about `block` bytes or
    CHUNK_RECORDS.

    A chunk's payload is `pack_payload` of the header and its blocks; its position is that of its first block.
    A damaged block comes as an unreadable chunk, and reading goes on at the next sync marker.
    """
    try:
        header = read_header(stream)
        if start > header.end:
            stream.seek(start - SYNC)  # a block at start has its marker before it
    except Corrupt as problem:
        yield unreadable_chunk(stream.name, 0, 0, str(problem))
        return
    blocks = _Blocks(stream, header.sync)
    if start > header.end and not blocks.to_sync(0):
        return
    parts: list[bytes] = []
    position = size = records = 0
    for found in blocks.go_on():
        ends = stop is not None and found.position >= stop
        unread = found.problem
        if found.records >= MAX_CHUNK_RECORDS:
            unread = f"an Avro block of {found.records:,} records; at most {MAX_CHUNK_RECORDS - 1:,} can be read"
        full = size >= block or records >= CHUNK_RECORDS or records + found.records >= MAX_CHUNK_RECORDS
        if parts and (ends or unread or full):
            yield Chunk(stream.name, position, 0, "avro", pack_payload(header.text, b"".join(parts)))
            parts, size, records = [], 0, 0
        if ends:
            return
        if unread:
            yield unreadable_chunk(stream.name, found.position, 0, unread, found.text, found.size)
            continue
        position = position if parts else found.position
        parts.append(found.text)
        size, records = size + found.size, records + found.records
    if parts:
        yield Chunk(stream.name, position, 0, "avro", pack_payload(header.text, b"".join(parts)))


class _Damaged(Exception):
    """What should be a block is none. The message says why."""


class _Block(NamedTuple):
    """A block, or a stretch that is none."""

    position: int
    size: int
    """Bytes, with what stands before and behind the records."""
    text: bytes
    """The bytes; of a stretch that is no block, only the first ones."""
    records: int = 0
    problem: str = ""
    """Why it is no block; empty when it is one."""


class _Blocks:
    """Cuts what a stream holds into blocks."""

    def __init__(self, stream: Stream, sync: bytes) -> None:
        self.stream, self.sync = stream, sync
        self.text, self.at, self.position = b"", 0, stream.position
        """The window that was read, how far it was used, and where it begins in the file."""
        self.problem = ""
        """Why the stream cannot be read further."""

    def go_on(self) -> Iterator[_Block]:
        """The blocks to the stream's end."""
        while True:
            try:
                found = self._measure()
                while found is None and self._more():
                    found = self._measure()
            except _Damaged as damage:
                problem = str(damage)
            else:
                if found:
                    count, end = found
                    yield _Block(self.position + self.at, end - self.at, self.text[self.at : end], count)
                    self.at = end
                    continue
                if self.at == len(self.text) and not self.problem:
                    return
                problem = self.problem or "the file ends inside an Avro block: it is cut off"
            begin, head = self.position + self.at, self.text[self.at : self.at + KEPT_BYTES]
            follows = self.to_sync(1)
            yield _Block(begin, self.position + self.at - begin, head, problem=problem)
            if not follows:
                return

    def to_sync(self, skip: int) -> bool:
        """Goes behind the next sync marker, which begins at least `skip` bytes on. Whether there is one."""
        self.at = min(self.at + skip, len(self.text))
        while (found := self.text.find(self.sync, self.at)) < 0:
            self.at = max(self.at, len(self.text) - SYNC + 1)
            if not self._more():
                self.at = len(self.text)
                return False
        self.at = found + SYNC
        return True

    def _more(self) -> bool:
        self.text, self.position, self.at = self.text[self.at :], self.position + self.at, 0
        try:
            data = b"" if self.problem else self.stream.read(BLOCK)
        except Corrupt as problem:
            self.problem, data = str(problem), b""
        self.text += data
        return bool(data)

    def _measure(self) -> tuple[int, int] | None:
        """Records and end of the block that begins at `at`; None when more must be read to tell."""
        file = io.BytesIO(self.text)
        file.seek(self.at)
        try:
            count, size = read_long(file), read_long(file)
        except EOFError:
            return None
        if count < 0 or not 0 <= size <= MAX_BLOCK:
            raise _Damaged("damaged Avro block: its count and size make no sense")
        end = file.tell() + size + SYNC
        if end > len(self.text):
            return None
        if self.text[end - SYNC : end] != self.sync:
            raise _Damaged("damaged Avro block: the sync marker is not where it should be")
        return count, end


def read_long(file: io.BytesIO) -> int:
    """Avro's variable length, zigzag encoded long. EOFError when the bytes end; _Damaged when it has over 64 bits."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value >> 1 ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise _Damaged("damaged Avro data: a number has more than 64 bits")


def _take(file: io.BytesIO, size: int) -> bytes:
    if not 0 <= size <= MAX_HEADER:
        raise _Damaged("damaged Avro header: a length makes no sense")
    data = file.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _read_meta(file: io.BytesIO) -> dict[bytes, bytes]:
    """The header's map of bytes."""
    meta: dict[bytes, bytes] = {}
    while count := read_long(file):
        if count < 0:
            read_long(file)  # the size in bytes follows a negative count
        for _ in range(abs(count)):
            key = _take(file, read_long(file))
            meta[key] = _take(file, read_long(file))
    return meta


def pack_payload(header: bytes, blocks: bytes) -> bytes:
    """A header (`Header.text`) and blocks as one payload."""
    return len(header).to_bytes(4, "big") + header + blocks


@lru_cache(maxsize=64)
def _header_of(schema: bytes) -> bytes:
    pairs = ((b"avro.schema", schema), (b"avro.codec", b"null"))
    meta = b"".join(write_long(len(text)) + text for pair in pairs for text in pair)
    return AVRO_MAGIC + write_long(len(pairs)) + meta + write_long(0) + bytes(SYNC)


def payload_of_one(schema: bytes, record: bytes) -> bytes:
    """A chunk's payload with one record alone, in its binary encoding; `schema` is what it was written with, as JSON."""
    return pack_payload(_header_of(schema), write_long(1) + write_long(len(record)) + record + bytes(SYNC))


def write_long(value: int) -> bytes:
    """The inverse of `read_long`."""
    left = value << 1 if value >= 0 else ~value << 1 | 1
    text = bytearray()
    while left > 127:
        text.append(left & 127 | 128)
        left >>= 7
    text.append(left)
    return bytes(text)


def unpack_payload(payload: bytes) -> tuple[bytes, bytes]:
    """The inverse of `pack_payload`."""
    end = 4 + int.from_bytes(payload[:4], "big")
    return payload[4:end], payload[end:]
