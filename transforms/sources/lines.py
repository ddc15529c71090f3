"""JSON lines, cut into chunks of whole lines."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import numpy

from transforms.elements import Chunk
from transforms.sources.files import Corrupt, Stream
from transforms.sources.unreadable import KEPT_BYTES, unreadable_chunk

BLOCK: Final = 128 << 10
"""Bytes read at a time, and about the size of a chunk: the records of a larger one do not fit into a processor's
cache, which makes decoding and mapping them half as fast. As a record takes two bytes at least (one and its
line end), and a chunk holds the end of one record and what one block adds, it has fewer than 2**20 records."""
SHORT_READ: Final = 64 << 10
"""Bytes read at a time where only the end of one line is looked for."""
BOM: Final = b"\xef\xbb\xbf"
MAX_RECORD: Final = 10_000_000
"""Bytes of a record beyond which it is a dead letter, unless the relay file says otherwise."""


def count_newlines(data: bytes) -> int:
    """Line ends in data; three times as fast as bytes.count with lines of usual length."""
    if not data:
        return 0
    return int(numpy.count_nonzero(numpy.frombuffer(data, numpy.uint8) == 10))


def skip_bom(stream: Stream) -> None:
    """Goes past a byte order mark at the start of the stream."""
    if stream.position == 0 and stream.peek(3) == BOM:
        stream.read(3)


def too_long(length: int, max_record: int) -> str:
    """The reason why a record of so many bytes (as far as it was read) is not taken."""
    return f"the record has {length:,} bytes, more than max_record ({max_record:,})"


def chunks(
    stream: Stream,
    start: int = 0,
    stop: int | None = None,
    max_record: int = MAX_RECORD,
    at_line: bool = False,
    line: int = 0,
    block: int = BLOCK,
) -> Iterator[Chunk]:
    """The lines that begin at an offset from start up to, not including, stop, as chunks of about `block` bytes.

    Neighbouring ranges of a file thus give each line once, wherever they meet. Lines longer than max_record
    bytes and what lies behind damaged data come as unreadable chunks. at_line: a line begins at start, `line` is
    its number or 0; line numbers are known then, and when start is 0.
    """
    line = line if start else 1
    end = float("inf") if stop is None else stop
    try:
        if at_line and start:
            stream.seek(start)
        elif start:
            _go_to_line(stream, start)
        else:
            skip_bom(stream)
            end = max(end, stream.position + 1)  # the first line is the first range's, however short that is
    except Corrupt as problem:
        yield unreadable_chunk(stream.name, stream.position, line, str(problem))
        return
    held: list[bytes] = []  # of the line that begins at `position`
    position = stream.position
    while position < end:
        inside = stream.position < end
        try:
            # To a multiple of `block`, so that chunks end at the same places wherever reading begins: a record that is
            # read again after a crash keeps its reference.
            data = stream.read(
                int(min(block - stream.position % block, end - stream.position)) if inside else SHORT_READ
            )
        except Corrupt as problem:
            yield unreadable_chunk(stream.name, position, line, str(problem), b"".join(held))
            return
        cut = (data.rfind(b"\n") if inside else data.find(b"\n")) + 1
        if not data or cut:
            payload = b"".join((*held, data[:cut]))
            if payload:
                whole = Chunk(stream.name, position, line, "json", payload)
                yield from whole_records(whole, io.BytesIO(payload), max_record)
            if not data:
                return
            position += len(payload)
            line = line and line + count_newlines(payload)
            held = [data[cut:]] if cut < len(data) else []
            continue
        held.append(data)
        if stream.position - position > max_record:
            follows = yield from _skip_line(stream, position, line, b"".join(held)[:KEPT_BYTES], max_record)
            if not follows:
                return
            position, line, held = stream.position, line and line + 1, []


def _go_to_line(stream: Stream, start: int) -> None:
    """Goes to the first line that begins at start or behind it."""
    stream.seek(start - 1)
    while data := stream.read(SHORT_READ):
        cut = data.find(b"\n") + 1
        if cut:
            stream.unread(data[cut:])
            return


def whole_records(start: Chunk, records: Iterable[bytes], max_record: int, prefix: bytes = b"") -> Iterator[Chunk]:
    """The payload of `start` as it is, or as several chunks where a record of it is too long.

    records: all of the payload, record by record, line ends included. prefix: what each payload is to begin with.
    """
    if len(start.payload) <= max_record:
        yield start._replace(payload=prefix + start.payload) if prefix else start
        return
    good: list[bytes] = []
    at, line = start.position, start.line
    for record in records:
        length = len(record) - record.endswith(b"\n")
        if length <= max_record:
            good.append(record)
            continue
        if good:
            text = b"".join(good)
            yield Chunk(start.source, at, line, start.format, prefix + text)
            at, line, good = at + len(text), line and line + text.count(b"\n"), []
        yield unreadable_chunk(start.source, at, line, too_long(length, max_record), record[:length], length)
        at, line = at + len(record), line and line + record.count(b"\n")
    if good:
        yield Chunk(start.source, at, line, start.format, prefix + b"".join(good))


def _skip_line(stream: Stream, position: int, line: int, head: bytes, max_record: int) -> Generator[Chunk, None, bool]:
    """The unreadable chunk of a line too long, of which head was read. Returns whether data follows it."""
    while True:
        try:
            data = stream.read(SHORT_READ)
        except Corrupt as problem:
            yield unreadable_chunk(stream.name, position, line, str(problem), head, stream.position - position)
            return False
        cut = data.find(b"\n") + 1
        head = (head + (data[: cut - 1] if cut else data))[:KEPT_BYTES]
        if cut or not data:
            stream.unread(data[cut:])
            length = stream.position - position - bool(cut)
            yield unreadable_chunk(stream.name, position, line, too_long(length, max_record), head, length)
            return bool(cut)
