"""JSON values that do not stand one on a line: the elements of an array, or objects over several lines.

The file is never held as a whole: complete elements are cut off block by block. Where a block holds nothing
but well formed elements, one parse by msgspec proves the cut; a scanner for the rest goes bracket by bracket.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from transforms.elements import Chunk
from transforms.sources.files import Corrupt, Stream
from transforms.sources.lines import BLOCK, MAX_RECORD, count_newlines, skip_bom, too_long
from transforms.sources.unreadable import KEPT_BYTES, unreadable_chunk

ARRAY: Final = "array"
"""`Chunk.format` of such chunks. The payload is a slice of the file, from the start of one element to the end of
another, with what stands between them."""

Span = tuple[int, int]

_STRING: Final = rb'[^"\\]*(?:\\.[^"\\]*)*("?)'
_TOKEN: Final = re.compile(rb'"' + _STRING + rb'|[{\[\]},]|[^\s"{\[\]},]+', re.DOTALL)
_BRACKET: Final = re.compile(rb'"' + _STRING + rb"|[{\[\]}]", re.DOTALL)
_STRING_END: Final = re.compile(_STRING, re.DOTALL)
_FIRST_KEY: Final = re.compile(rb'\{\s*"[^"\\]{1,200}"')
_OPENING: Final = re.compile(rb"\s*\[")
PROOFS: Final = 4
"""Places tried to end a chunk at before the scanner is taken."""
_raw_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Scanner:
    """Finds elements in text that arrives bit by bit. Bad JSON is cut where its brackets end; nothing is passed
    over but spaces, commas and the brackets of the array itself."""

    def __init__(self, inside: bool, slice: bool = False, at_element: bool = False) -> None:
        self._at_element = at_element
        """An element begins here, even if it is no more than a bracket that closes nothing."""
        self.inside = inside
        """Between the brackets of an array."""
        self._slice = slice
        """The text has elements of one array only, so that no bracket is its end."""
        self.at = 0
        """How far the text was scanned."""
        self.begin = -1
        """Where the unfinished element begins; -1 between elements."""
        self.stopped = False
        """There was more to go through than it was to."""
        self._depth = 0
        self._in_string = False

    def scan(self, text: bytes, ended: bool = False, most: float = math.inf) -> Iterator[Span | None]:
        """Start and end of each element completed in text, None where an array begins or ends.

        text is what was given before, and more. When `ended`, nothing will follow. most: how many brackets, strings and
        other marks are gone through; it is `stopped` when there are more.
        """
        while self.at < len(text):
            if most <= 0:
                self.stopped = True
                return
            most -= 1
            if self._in_string:
                match = _STRING_END.match(text, self.at)
                assert match  # it matches the empty text
            elif self._depth:
                match = _BRACKET.search(text, self.at)
            else:
                match = _TOKEN.search(text, self.at)
            if match is None:
                self.at = len(text)
                return
            token = match.group()
            first = token[:1]
            at_element, self._at_element = self._at_element, False
            if self._in_string or first == b'"':
                if self.begin < 0:
                    self.begin = match.start()
                self.at = match.end()
                self._in_string = not match.group(1)
                if self._in_string:
                    return  # the text, or what is not a lone backslash of it, ends here
            elif first == b"," and not self._depth:
                self.at = match.end()
                continue
            elif first in b"{[" and (self.inside or self._depth or first == b"{"):
                if self.begin < 0:
                    self.begin = match.start()
                self._depth += 1
                self.at = match.end()
            elif first == b"[":
                self.inside = True
                self.at = match.end()
                yield None
                continue
            elif first in b"]}" and self._depth:
                self._depth -= 1
                self.at = match.end()
            elif first == b"]" and self.inside and not self._slice and not at_element:
                self.inside = False
                self.at = match.end()
                yield None
                continue
            elif first == b"]" and not self._slice:  # it closes nothing; apart, as in a slice it could mean an end
                self.at = match.end()
                yield from (None, match.span(), None)
                continue
            else:  # a number, true, null, or no JSON at all
                if match.end() == len(text) and not ended:
                    return
                self.begin, self.at = match.start(), match.end()
            if not self._depth and self.begin >= 0:
                yield self.begin, self.at
                self.begin = -1

    def restart(self) -> None:
        """Goes back to the start of the unfinished element."""
        self.at, self.begin, self._depth, self._in_string = self.begin, -1, 0, False

    def forget(self, count: int) -> None:
        """The text's first bytes were dropped."""
        self.at = max(0, self.at - count)
        if self.begin >= 0:
            self.begin = max(0, self.begin - count)


def elements(text: bytes) -> list[Span]:
    """Start and end of each element in the payload of an ARRAY chunk."""
    return [span for span in Scanner(inside=True, slice=True).scan(text, ended=True) if span]


class _Reader:
    """Where the reading of a file is: a window of text that begins at an unfinished element."""

    def __init__(self, stream: Stream, start: int, line: int, max_record: int) -> None:
        self.name, self.max_record = stream.name, max_record
        self.scanner = Scanner(inside=start > 0, at_element=start > 0)
        self.text, self.position, self.line = b"", stream.position, line
        self.head, self.head_at, self.head_line = b"", -1, 0
        """Of an element too long to be kept; head_at is -1 when there is none."""

    def line_of(self, offset: int) -> int:
        return self.line and self.line + self.text.count(b"\n", 0, offset)

    def unreadable(self, begin: int, end: int, problem: str = "") -> Chunk:
        """The text from begin to end; or, when an element was too long to be kept, that up to end."""
        if self.head_at >= 0:
            self.keep_head(end)
            at, line, head, length = self.head_at, self.head_line, self.head, self.position + end - self.head_at
            self.head_at = -1
        else:
            at, line, head, length = self.position + begin, self.line_of(begin), self.text[begin:end], end - begin
        return unreadable_chunk(self.name, at, line, problem or too_long(length, self.max_record), head, length)

    def proven(self) -> Iterator[Chunk]:
        """All but the last element of the text in one chunk, when they are plainly well formed."""
        scanner = self.scanner
        opening = None if scanner.inside or scanner.begin >= 0 else _OPENING.match(self.text, scanner.at)
        if opening:
            scanner.inside = True
            self.drop(opening.end())
        begin, end = _proven_cut(self.text, scanner, self.max_record)
        if end:
            yield Chunk(self.name, self.position + begin, self.line_of(begin), ARRAY, self.text[begin:end])
            self.drop(end)

    def scanned(self, ended: bool) -> Iterator[Chunk]:
        """The elements that end in the text."""
        spans = self.scanner.scan(self.text, ended)
        if self.head_at >= 0:
            long = next(spans, None)
            if long is None:
                return
            yield self.unreadable(*long)
        for begin, end, fits in _runs(spans, self.max_record):
            if fits:
                yield Chunk(self.name, self.position + begin, self.line_of(begin), ARRAY, self.text[begin:end])
            else:
                yield self.unreadable(begin, end)

    def trim(self, block: int) -> None:
        """Lets go of text that is not needed any more."""
        scanner = self.scanner
        if scanner.begin < 0 or self.head_at >= 0:
            self.keep_head(scanner.at)
            self.drop(scanner.at)
            return
        self.drop(scanner.begin)
        if len(self.text) > self.max_record:
            self.head, self.head_at, self.head_line = b"", self.position, self.line
            self.keep_head(scanner.at)
            self.drop(scanner.at)
        elif len(self.text) < block:
            scanner.restart()  # so that the next block may be proven as a whole

    def keep_head(self, end: int) -> None:
        """Keeps the first bytes of an element that is too long, of which the text up to `end` is let go."""
        if self.head_at >= 0:
            self.head += self.text[: min(end, KEPT_BYTES - len(self.head))]

    def drop(self, count: int) -> None:
        if self.line and count:
            self.line += count_newlines(self.text[:count])
        self.text, self.position = self.text[count:], self.position + count
        self.scanner.forget(count)


def chunks(
    stream: Stream, start: int = 0, max_record: int = MAX_RECORD, line: int = 0, block: int = BLOCK
) -> Iterator[Chunk]:
    """The elements from start (0, or where an element begins) to the file's end, as chunks of about `block` bytes.

    Elements longer than max_record bytes and what lies behind damaged data come as unreadable chunks.
    line: number of the line that start is in, 0 when not known.
    """
    line = line if start else 1
    try:
        stream.seek(start) if start else skip_bom(stream)
    except Corrupt as error:
        yield unreadable_chunk(stream.name, stream.position, line, str(error))
        return
    reader = _Reader(stream, start, line, max_record)
    scanner, problem, data = reader.scanner, "", b" "
    while data:
        try:
            data = stream.read(block)
        except Corrupt as error:
            data, problem = b"", str(error)
        reader.text = reader.text + data if reader.text else data
        done = False
        for chunk in reader.proven() if data else ():
            yield chunk
            done = True
        if not done:
            yield from reader.scanned(ended=not data and not problem)
            if data:
                reader.trim(block)
    if not problem and scanner.begin >= 0:
        problem = "the file ends inside this record: it is cut off, or a bracket or quote is missing"
    elif not problem and scanner.inside:
        problem = "the JSON array is not closed: the file is cut off"
    if problem:
        yield reader.unreadable(scanner.begin if scanner.begin >= 0 else scanner.at, len(reader.text), problem)


def _proven_cut(text: bytes, scanner: Scanner, max_record: int) -> Span:
    """Start of the first and end of the last element but one of text, when all there are well formed; else (0, 0).

    The last element is found by its first key, which the elements of an array usually share. If what lies before
    it parses as an array, then it ends between two elements: the same text cannot be read in two ways.
    """
    if not scanner.inside or scanner.at or scanner.begin >= 0 or len(text) > max_record:
        return 0, 0
    start = len(text) - len(text.lstrip(b" \t\r\n,"))
    key = _FIRST_KEY.match(text, start)
    end = len(text)
    for _ in range(PROOFS if key else 0):
        assert key
        end = text.rfind(key.group(), start + 1, end)
        if end < 0:
            break
        before = text[max(start, end - 1000) : end].rstrip()
        cut = max(start, end - 1000) + len(before) - 1
        if before.endswith(b",") and _is_array(b"[%b]" % text[start:cut]):
            return start, cut
    return 0, 0


def _is_array(text: bytes) -> bool:
    try:
        _raw_elements(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _runs(spans: Iterator[Span | None], max_record: int) -> Iterator[tuple[int, int, bool]]:
    """Elements of one array that follow each other, as (start, end, True); one that is too long as (…, False)."""
    begin = end = -1
    for span in spans:
        if begin >= 0 and (span is None or span[1] - span[0] > max_record):
            yield begin, end, True
            begin = -1
        if span is None:
            continue
        if span[1] - span[0] > max_record:
            yield *span, False
            continue
        begin, end = (begin if begin >= 0 else span[0]), span[1]
    if begin >= 0:
        yield begin, end, True
