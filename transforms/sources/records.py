"""The single records of a chunk, as they were written: for dead letters, for models that pass the record on, and
for going through a chunk of which one record is bad."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow
import zstandard

from transforms.elements import Chunk
from transforms.sources import avro
from transforms.sources.avro_records import BAD_RECORD, ReadRecords, compile_records
from transforms.sources.delimited import is_blank, row_texts
from transforms.sources.json_values import ARRAY, elements
from transforms.sources.message_records import pieces
from transforms.sources.messages import MESSAGES, Again, Message, unpack_messages
from transforms.sources.unreadable import UNREADABLE, read_unreadable

MAX_CONTENT: Final = avro.MAX_BLOCK
"""Bytes that an Avro block may have when decompressed: as many as one that is not compressed. A damaged one is read three
times over, so this is also what bounds the memory."""
BAD_BLOCK: Final = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, ValueError, EOFError)
"""What decompressing an Avro block raises for bytes that are not of the codec."""


class RawRecord(NamedTuple):
    """A record of a chunk; its index is its place in `raw_records`."""

    offset: int
    """Byte offset in the (decompressed) file; for Avro and messages, of the block."""
    line: int
    """1-based line number in the file where it begins, 0 when not known."""
    text: bytes
    """As written, without line end; for Avro, its JSON text."""
    problem: str = ""
    """Why there is no record here; empty when there is one."""
    values: Any = None
    """For Avro, the record as a dict."""
    message: Message | None = None
    """The message that it came in."""
    number: int = 0
    """Its place in that message."""
    binary: bytes = b""
    """For Avro, the record's own bytes; empty when there are none, or they cannot be told from the others'."""


Attempt = tuple[RawRecord, Any, Exception | None]
"""A record as written, as a struct, and why there is none."""


def attempt(raw: RawRecord, decode: Callable[[RawRecord], Any], errors: tuple[type[Exception], ...]) -> Attempt:
    """Decodes one record, of which decoding may raise one of `errors`."""
    try:
        return raw, decode(raw), None
    except errors as error:
        return raw, None, error


def raw_records(chunk: Chunk) -> Iterator[RawRecord]:
    """The records of a chunk in order. Blank lines are none."""
    return _READERS[chunk.format](chunk)


def _lines(chunk: Chunk) -> Iterator[RawRecord]:
    offset, line, step = chunk.position, chunk.line, 1 if chunk.line else 0
    for text in io.BytesIO(chunk.payload):
        if not text.isspace():
            yield RawRecord(offset, line, text.rstrip(b"\r\n"))
        offset += len(text)
        line += step


def _elements(chunk: Chunk) -> Iterator[RawRecord]:
    line, counted = chunk.line, 0
    for begin, end in elements(chunk.payload):
        if line:
            line += chunk.payload.count(b"\n", counted, begin)
            counted = begin
        yield RawRecord(chunk.position + begin, line, chunk.payload[begin:end])


class Rows(NamedTuple):
    """The payload of a CSV chunk, taken apart."""

    delimiter: str
    header: bytes
    """The header row, with its line end."""
    text: bytes
    """The rows."""


def unpack_rows(payload: bytes) -> Rows:
    """Takes the payload of a CSV chunk apart."""
    delimiter = payload[:1].decode()
    header = next(row_texts(payload[1:], delimiter))
    return Rows(delimiter, header, payload[1 + len(header) :])


def _rows(chunk: Chunk) -> Iterator[RawRecord]:
    rows = unpack_rows(chunk.payload)
    offset, line = chunk.position, chunk.line
    for text in row_texts(rows.text, rows.delimiter):
        if not is_blank(text, rows.delimiter):
            yield RawRecord(offset, line, text.rstrip(b"\r\n"))
        offset += len(text)
        line = line and line + text.count(b"\n")


def _avro(chunk: Chunk) -> Iterator[RawRecord]:
    return avro_records(chunk, *_whole_reader(avro.unpack_payload(chunk.payload)[0]))


def avro_records(chunk: Chunk, codec: str, read: ReadRecords) -> Iterator[RawRecord]:
    """The records of an Avro chunk as a function reads them, with their ends; it must not raise for text that is not
    UTF-8.

    What cannot be read of a block comes as one, with the problem.
    """
    _, text = avro.unpack_payload(chunk.payload)
    for offset, count, stored in avro.blocks_of(text):
        found: list[Any] = []
        problem = ""
        data, begin, at = b"", 0, chunk.position + offset
        try:
            data = decompress(codec, stored)
            if read(data, count, found) != len(data):
                problem = f"the Avro block has bytes left behind its {count:,} records"
        except (*BAD_RECORD, *BAD_BLOCK) as error:
            problem = f"damaged Avro block: {count - len(found):,} of its {count:,} records cannot be read ({error})"
        for values, end in found:
            body = json_text(values)
            problem_of_it = "" if body else "a text is not UTF-8"
            yield RawRecord(at, 0, body, problem_of_it, values, binary=data[begin:end])
            begin = end
        if problem:
            yield RawRecord(at, 0, stored[:64], problem)


def _messages(chunk: Chunk) -> Iterator[RawRecord]:
    for message in unpack_messages(chunk.payload):
        if message.again is not None and message.again.schema:
            for raw in _avro(container_chunk(chunk, message.data, message.again)):
                yield raw._replace(message=message)
            continue
        for number, piece in enumerate(pieces(message.data, message.attributes, message.again)):
            yield RawRecord(chunk.position, 0, piece.text, piece.problem, None, message, number)


def container_chunk(chunk: Chunk, data: bytes, again: Again) -> Chunk:
    """A record of an Avro container relayed again, as a chunk of such a container."""
    return chunk._replace(format="avro", payload=avro.payload_of_one(again.schema, data))


def _unreadable(chunk: Chunk) -> Iterator[RawRecord]:
    stretch = read_unreadable(chunk)
    where = f"{chunk.source}, byte {chunk.position:,}: {stretch.reason}"
    yield RawRecord(chunk.position, chunk.line, stretch.head, where)


_READERS: Final[Mapping[str, Callable[[Chunk], Iterator[RawRecord]]]] = {
    "json": _lines,
    ARRAY: _elements,
    "csv": _rows,
    "avro": _avro,
    MESSAGES: _messages,
    UNREADABLE: _unreadable,
}


@lru_cache(maxsize=64)
def _whole_reader(header: bytes) -> tuple[str, ReadRecords]:
    """The codec of a container, and what reads all of its records' fields."""
    parsed = avro.parse_header(header)
    return parsed.codec, compile_records(parsed.schema, decode=surrogates, ends=True)


def surrogates(text: bytes) -> str:
    """Text of any bytes; what is not UTF-8 in them cannot be encoded again."""
    return text.decode("utf-8", "surrogateescape")


def json_text(values: Any) -> bytes:
    """A record's JSON text (bytes as base64); empty when it holds text that is not UTF-8."""
    try:
        return msgspec.json.encode(values)
    except UnicodeEncodeError:
        return b""


def decompress(codec: str, data: bytes) -> bytes:
    """The content of an Avro block. Raises one of BAD_BLOCK."""
    if codec == "null":
        return data
    if codec == "deflate":
        return _bounded(zlib.decompressobj(-zlib.MAX_WBITS), data)
    if codec == "bzip2":
        return _bounded(bz2.BZ2Decompressor(), data)
    if codec == "xz":
        return _bounded(lzma.LZMADecompressor(), data)
    if codec == "zstandard":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return _checked(reader.read(MAX_CONTENT + 1))
    if codec == "snappy":
        return _snappy(data)
    raise ValueError(f"the codec {codec} is not supported; write the file with deflate or zstandard")


def _snappy(data: bytes) -> bytes:
    """Snappy's block format, then the content's CRC (Avro specification, "snappy"). It begins with the content's length."""
    length = shift = 0
    for byte in data[:5]:
        length |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    if length > MAX_CONTENT:
        raise ValueError(f"the block has over {MAX_CONTENT:,} bytes")
    content: bytes = pyarrow.decompress(data[:-4], decompressed_size=length, codec="snappy", asbytes=True)
    if zlib.crc32(content) != int.from_bytes(data[-4:], "big"):
        raise ValueError("the block's checksum is wrong")
    return content


def _bounded(decompressor: Any, data: bytes) -> bytes:
    content = _checked(decompressor.decompress(data, MAX_CONTENT + 1))
    if not decompressor.eof:
        raise EOFError("the compressed data ends too early")
    return content


def _checked(content: bytes) -> bytes:
    if len(content) > MAX_CONTENT:
        raise ValueError(f"the block has over {MAX_CONTENT:,} bytes")
    return content
