"""What is in a message: one record, an array of them, or records on lines; compressed or not."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from transforms.sources.files import Corrupt
from transforms.sources.json_values import Scanner
from transforms.sources.lines import BOM
from transforms.sources.messages import ENCODING, GZIP, MAX_CONTENT, MAX_MESSAGE_RECORDS, Again, size_inside
from transforms.sources.unreadable import UNREADABLE

SPACE: Final = b" \t\r\n"

MOST_MARKS: Final = 1_000_000
"""Of a message that is no valid JSON, gone through one by one: about a second of it. 10 MB of records have half as many."""

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_is_json = msgspec.json.Decoder(msgspec.Raw).decode


class Piece(NamedTuple):
    """A record of a message, as it was written."""

    text: bytes
    problem: str = ""
    """Why there is no record here; empty when there is one."""


def content(data: bytes, attributes: Mapping[str, str]) -> bytes:
    """A message's data, decompressed. Raises Corrupt.

    Gzip is told by its first bytes, except in Avro's binary encoding, which can begin with any. What begins otherwise
    is taken as it is whatever an attribute says: a record of a compressed message may come again without its wrapping.
    """
    if data[:2] != GZIP or (attributes.get(ENCODING) == "BINARY" and not _said_gzip(attributes)):
        return data
    return gunzip(data)


def _said_gzip(attributes: Mapping[str, str]) -> bool:
    """Whether an attribute such as Content-Encoding says gzip."""
    return any(
        value.lower() == "gzip" and "".join(filter(str.isalpha, name)).lower() in ("contentencoding", "compression")
        for name, value in attributes.items()
    )


def gunzip(data: bytes) -> bytes:
    """The content of gzip data. Raises Corrupt for damage, and for more bytes than `size_inside` says: data of one
    member has as many, and data of several is taken only as far as its last one says enough.
    """
    most = size_inside(data)
    parts: list[bytes] = []
    left = most + 1
    while data:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            parts.append(decompressor.decompress(data, left))
        except zlib.error as error:
            what = "is followed by bytes that are not" if parts else "is damaged"
            raise Corrupt(f"the gzip data of the message {what} ({error})") from error
        left -= len(parts[-1])
        if left <= 0 and most >= MAX_CONTENT:
            raise Corrupt(f"the message has over {MAX_CONTENT:,} bytes when decompressed")
        if left <= 0:
            raise Corrupt(f"the gzip data of the message has more than the {most:,} bytes that it says at its end")
        if not decompressor.eof:
            raise Corrupt("the gzip data of the message ends too early")
        data = decompressor.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def bare(text: bytes) -> bytes:
    """Text without a byte order mark, and without space around it."""
    return text.removeprefix(BOM).strip(SPACE)


def pieces(data: bytes, attributes: Mapping[str, str], again: Again | None = None) -> list[Piece]:
    """The records of a message, at most MAX_MESSAGE_RECORDS; what cannot be taken apart is one, with the problem.

    JSON that is one value is one record, or an array of them. Other text is a record a line, or, when it begins
    with a brace alone on its line, objects over several lines. A record relayed again is one.
    """
    if again is not None:
        return [_record_again(data, again)]
    try:
        text = content(data, attributes)
    except Corrupt as problem:
        return [Piece(data, str(problem))]
    if attributes.get(ENCODING) == "BINARY":
        return [Piece(text)]
    text = bare(text)
    if not text:
        return [Piece(data, "the message is empty: it has no data")]
    found = list(itertools.islice(_cut(text), MAX_MESSAGE_RECORDS + 1))
    if len(found) > MAX_MESSAGE_RECORDS:
        return [Piece(data, f"the message has over {MAX_MESSAGE_RECORDS:,} records")]
    return found


def _record_again(data: bytes, again: Again) -> Piece:
    if again.format == UNREADABLE:
        return Piece(data, "there was no record where this was read")
    blank = again.format != "avro" and not data.strip(SPACE)
    return Piece(data, "the dead letter has no record in it" if blank else "")


def _cut(text: bytes) -> Iterator[Piece]:
    if text.startswith(b"["):
        return _array(text)
    first, end, _ = text.partition(b"\n")
    if not end or _one_value(text):
        return iter([Piece(text)])
    if first.strip(SPACE) == b"{":
        return _values(text)
    return (Piece(line) for line in _lines(text))


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines that are not blank, one at a time: there may be many more than are wanted."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", at)
        end = end if end >= 0 else len(text)
        line = text[at:end].strip(SPACE)
        if line:
            yield line
        at = end + 1


def _array(text: bytes) -> Iterator[Piece]:
    if text.count(b",") < MAX_MESSAGE_RECORDS:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return map(Piece, map(bytes, _elements(text)))
    return _values(text)  # which finds what is good in it


def _values(text: bytes) -> Iterator[Piece]:
    """The elements of an array, or objects one behind the other."""
    scanner = Scanner(inside=False)
    for span in scanner.scan(text, ended=True, most=MOST_MARKS):
        if span:
            yield Piece(text[span[0] : span[1]])
    if scanner.stopped:
        yield Piece(
            text[scanner.begin if scanner.begin >= 0 else scanner.at :],
            f"it is no valid JSON, and its first {MOST_MARKS:,} brackets, strings and numbers do not say where it ends",
        )
    elif scanner.begin >= 0:
        yield Piece(text[scanner.begin :], "the message ends inside this record: a bracket or quote is missing")
    elif scanner.inside:
        yield Piece(b"", "the JSON array is not closed: the message is cut off")


def _one_value(text: bytes) -> bool:
    try:
        _is_json(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
