"""CSV and TSV with a header, cut into chunks of whole rows; a quoted field may hold line ends.

Quotes are read as Python's csv module reads them: a quote opens a quoted field only at the field's start.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from transforms.elements import Chunk
from transforms.sources.files import SUFFIXES, Corrupt, Stream
from transforms.sources.lines import BLOCK, MAX_RECORD, SHORT_READ, count_newlines, skip_bom, too_long, whole_records
from transforms.sources.unreadable import KEPT_BYTES, unreadable_chunk

DELIMITERS: Final = ",\t;|"
"""Tried, in this order among equals, when the relay file names no delimiter."""

csv.field_size_limit(1 << 30)  # max_record is the limit; the module's own 128 KiB would refuse a long receipt


class Header(NamedTuple):
    """The first row of a file."""

    text: bytes
    """As it stands in the file, with a line end."""
    end: int
    """Byte offset of what follows."""
    line: int
    """Line number of what follows."""
    delimiter: str


def find_delimiter(header: bytes, name: str = "") -> str:
    """The delimiter that a header row uses: a tab by the name, else the likely one that it has most of."""
    stem, ending = os.path.splitext(name.lower())
    if (os.path.splitext(stem)[1] if ending in SUFFIXES else ending) in (".tsv", ".tab"):
        return "\t"
    outside = re.sub(rb'"[^"]*"', b"", header).decode("utf-8", "replace")
    return max(DELIMITERS, key=outside.count)


@lru_cache(maxsize=16)
def _quoted(delimiter: str) -> re.Pattern[bytes]:
    """A quoted field, to its closing quote or to the end of the text."""
    return re.compile(rb'(?<![^%b\n])"[^"]*(?:""[^"]*)*("|\Z)' % re.escape(delimiter.encode()))


def row_ends(text: bytes, delimiter: str) -> Iterator[int]:
    """Offset behind the line end of each whole row of text, which begins at a row's start."""
    at = 0
    quoted = _quoted(delimiter).finditer(text) if b'"' in text else iter(())
    for begin, end in itertools.chain((match.span() for match in quoted), [(len(text), len(text))]):
        while (cut := text.find(b"\n", at, begin) + 1) > 0:
            yield cut
            at = cut
        at = end


def last_row_end(text: bytes, delimiter: str) -> int:
    """The last of `row_ends`; 0 when there is none."""
    if b'"' not in text:
        return text.rfind(b"\n") + 1
    after = len(text)
    for begin, end in reversed([match.span() for match in _quoted(delimiter).finditer(text)]):
        cut = text.rfind(b"\n", end, after) + 1
        if cut:
            return cut
        after = begin
    return text.rfind(b"\n", 0, after) + 1


def row_texts(text: bytes, delimiter: str) -> Iterator[bytes]:
    """All of text, row by row, line ends included; the last may be without one."""
    begin = 0
    for end in itertools.chain(row_ends(text, delimiter), [len(text)]):
        if end > begin:
            yield text[begin:end]
        begin = end


def is_blank(row: bytes, delimiter: str) -> bool:
    """Whether a row is no record, because nothing is in it; as `is_blank_row` says of its fields."""
    if row.strip(b'\r\n\t \x0b\x0c"'):
        return False
    try:
        return is_blank_row(next(csv.reader([row.decode()], delimiter=delimiter), []))
    except csv.Error:
        return False


def is_blank_row(fields: list[str]) -> bool:
    """Whether a row's fields are nothing: none, or a single one of spaces."""
    return not fields or (len(fields) == 1 and not fields[0].strip(" \t\r\n\x0b\x0c"))


def read_header(stream: Stream, delimiter: str | None, max_record: int) -> Header | None:
    """Reads the header from the start of the stream; None when there is no row at all. Raises Corrupt."""
    skip_bom(stream)
    text = b""
    while True:
        data = stream.read(SHORT_READ)
        text += data
        mark = delimiter or find_delimiter(text.lstrip().partition(b"\n")[0], stream.name)
        end = 0
        for row in row_texts(text, mark):
            end += len(row)
            if not is_blank(row, mark) and (end < len(text) or not data):
                stream.unread(text[end:])
                return Header(row.rstrip(b"\r\n") + b"\n", stream.position, 1 + count_newlines(text[:end]), mark)
        if not data:
            return None
        if len(text) > max_record:
            raise Corrupt(f"the header has more than max_record ({max_record:,}) bytes: is this a CSV file?")


def chunks(
    stream: Stream,
    start: int = 0,
    stop: int | None = None,
    delimiter: str | None = None,
    max_record: int = MAX_RECORD,
    line: int = 0,
    block: int = BLOCK,
) -> Iterator[Chunk]:
    """Rows from start (0, or where a row begins) to stop (where one ends) as chunks of about `block` bytes.

    A chunk's payload is the delimiter, the header row and the rows; position and line are those of its first row.
    line: number of the line at start, 0 when not known.
    Rows longer than max_record bytes and what lies behind damaged data come as unreadable chunks.
    """
    try:
        header = read_header(stream, delimiter, max_record)
        if header is None:
            return
        if start > header.end:
            stream.seek(start)
    except Corrupt as problem:
        yield unreadable_chunk(stream.name, stream.position, 1, str(problem))
        return
    name, mark = stream.name, header.delimiter
    prefix = mark.encode() + header.text
    line = line if start > header.end else header.line
    position, text, data = stream.position, b"", b" "
    while data:
        try:
            size = block - stream.position % block  # as with lines: chunks end at the same places wherever one begins
            data = stream.read(size if stop is None else max(0, min(size, stop - stream.position)))
        except Corrupt as error:
            yield unreadable_chunk(name, position, line, str(error), text)
            return
        text = text + data if text else data
        end = last_row_end(text, mark) if data else len(text)
        if end:
            whole = Chunk(name, position, line, "csv", text[:end])
            yield from whole_records(whole, row_texts(whole.payload, mark), max_record, prefix)
            line = line and line + count_newlines(whole.payload)
            position, text = position + end, text[end:]
        elif len(text) > max_record:
            try:
                newlines, follows, text = _skip_row(stream, text, mark)
            except Corrupt as error:
                yield unreadable_chunk(name, position, line, str(error), text, stream.position - position)
                return
            length = stream.position - position - follows
            yield unreadable_chunk(name, position, line, too_long(length, max_record), text, length)
            if not follows:
                return
            line, position, text = line and line + newlines, stream.position, b""


def row_starts(stream: Stream, every: int, delimiter: str | None, max_record: int) -> Iterator[int]:
    """Offsets of rows, about `every` bytes from each other, beginning with the first row: where a file may be split.

    Found by reading the whole file, as only what stands before tells whether a line end is inside quotes;
    that is quick beside decoding. Raises Corrupt.
    """
    header = read_header(stream, delimiter, max_record)
    if header is None:
        return
    given = position = stream.position
    yield given
    text = b""
    while data := stream.read(BLOCK):
        if position - given >= every:
            given = position
            yield given
        text += data
        end = last_row_end(text, header.delimiter)
        if not end and len(text) > max_record:
            return  # the part that reads this row goes past it, however long it is
        position, text = position + end, text[end:]


def _skip_row(stream: Stream, text: bytes, delimiter: str) -> tuple[int, bool, bytes]:
    """Goes past a row too long, of which text was read. Returns its line ends, whether more follows, its first bytes."""
    newlines, head = text.count(b"\n"), text[:KEPT_BYTES]
    while data := stream.read(SHORT_READ):
        # All that matters of what came before is whether it ends in a quoted field, or at a field's start.
        before = _gist(text, delimiter)
        text = before + data
        end = next(row_ends(text, delimiter), 0)
        own = text[len(before) : end or None]
        newlines += own.count(b"\n")
        head = (head + own[: -1 if end else None])[:KEPT_BYTES]
        if end:
            stream.unread(text[end:])
            return newlines, True, head
    # An open quote took the file's last line end for content; a record is kept without one all the same.
    return newlines, False, head.removesuffix(b"\n") if len(head) < KEPT_BYTES else head


def _gist(text: bytes, delimiter: str) -> bytes:
    """A short text that leaves a reader of CSV in the same state as text does."""
    for match in _quoted(delimiter).finditer(text):
        if match.end() == len(text):
            return b'""' if match.group(1) else b'"'
    return text[-1:] if text.endswith(delimiter.encode()) else b"x"
