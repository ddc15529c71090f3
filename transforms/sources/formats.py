"""What is in a file: told by its name, else by its first bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from transforms.sources.files import SUFFIXES, Corrupt, Stream
from transforms.sources.lines import BOM, SHORT_READ
from transforms.sources.lines import MAX_RECORD as MAX_RECORD  # part of a layout
from transforms.sources.messages import MAGIC, MESSAGES

LINES, VALUES, CSV, AVRO = "lines", "values", "csv", "avro"
"""Layouts: a JSON value a line; a JSON array (or objects over several lines); CSV; an Avro container. MESSAGES is one too."""

NAMES: Final = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".avro": "avro",
}
AVRO_MAGIC: Final = b"Obj\x01"


@dataclass(frozen=True)
class Layout:
    """How files are to be read, as the relay file says."""

    format: str | None = None
    """`json`, `csv` or `avro`; None to go by the name, and where that says nothing by the content."""
    max_record: int = MAX_RECORD
    delimiter: str | None = None
    """Between the fields of CSV, one ASCII character; None to find it out."""

    def __post_init__(self) -> None:
        if self.format not in (None, "json", "csv", "avro"):
            raise ValueError(f"format: {self.format!r} is none of json, csv, avro")
        mark = self.delimiter
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '"\r\n\0'):
            raise ValueError(f"delimiter: {mark!r} must be one ASCII character, and no quote or line end")
        if self.max_record < 1:
            raise ValueError(f"max_record: {self.max_record} must be at least 1 byte")


def layout_of(stream: Stream, format: str | None = None) -> str:
    """The layout of the stream's content: LINES, VALUES, CSV, AVRO or MESSAGES. Leaves the stream where it is.

    format: `json`, `csv` or `avro`; None to go by the name, and where that says nothing by the content. A message
    file is one whatever format says, which is then that of other files.
    Raises Corrupt when the content cannot be read, or is UTF-16.
    """
    head = stream.peek(SHORT_READ)
    if head.startswith(MAGIC):
        return MESSAGES
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Corrupt("the text is UTF-16; write it as UTF-8")
    format = format or format_of_name(stream.name)
    if format == AVRO or (head.startswith(AVRO_MAGIC) and format != CSV):
        return AVRO
    if format == CSV:
        return CSV
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"["):
        return VALUES
    first = text.partition(b"\n")[0].strip()
    if format == "json" or first.startswith(b"{"):
        # An object's brace alone on the first line: one record over several lines.
        return VALUES if first == b"{" else LINES
    return CSV if any(mark in first for mark in b",\t;|") else LINES


def format_of_name(name: str) -> str | None:
    """`json`, `csv` or `avro` by the file name's ending, a compression's ending behind it passed over."""
    stem, ending = os.path.splitext(name.lower())
    if ending in SUFFIXES:
        ending = os.path.splitext(stem)[1]
    return NAMES.get(ending)
