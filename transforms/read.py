"""Reading files: globs to chunks of whole records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError

import schemas
from transforms.elements import Chunk
from transforms.sources import avro, delimited, json_values, lines, messages
from transforms.sources.files import Corrupt, File, NoInput, Stream, match
from transforms.sources.formats import AVRO, CSV, LINES, MAX_RECORD, VALUES, Layout, format_of_name, layout_of
from transforms.sources.messages import MESSAGES
from transforms.sources.unreadable import unreadable_chunk

__all__ = ["Layout", "NoInput", "Part", "Read", "check_schemas", "chunks", "split_file"]

PART: Final = 64 << 20
"""Bytes of a large file that one worker reads in one go."""


class Part(NamedTuple):
    """A range of a file."""

    name: str
    start: int
    stop: int | None
    """None: to the end, wherever that is."""
    at_record: bool = False
    """Whether a record begins at start, so that it need not be looked for."""
    line: int = 0
    """Number of the line that begins at start; 0 when not known. Not asked for when start is 0."""


def chunks(part: Part, layout: Layout) -> Iterator[Chunk]:
    """The chunks of a part of a file, in order. What cannot be read comes as unreadable chunks."""
    try:
        stream = Stream(part.name)
    except Corrupt as problem:
        yield unreadable_chunk(part.name, part.start, 0, str(problem))
        return
    with closing(stream):
        try:
            if not stream.peek(1):
                return
            kind = layout_of(stream, layout.format)
        except Corrupt as problem:
            yield unreadable_chunk(part.name, 0, 1, str(problem))
            return
        if kind == LINES:
            yield from lines.chunks(stream, part.start, part.stop, layout.max_record, part.at_record, part.line)
        elif kind == VALUES:
            yield from json_values.chunks(stream, part.start, layout.max_record, part.line)
        elif kind == CSV:
            mark, max_record = layout.delimiter, layout.max_record
            yield from delimited.chunks(stream, part.start, part.stop, mark, max_record, part.line)
        elif kind == MESSAGES:
            yield from messages.chunks(stream, part.start, part.stop)
        else:
            yield from avro.chunks(stream, part.start, part.stop)


def split_file(file: File, layout: Layout, size: int = PART) -> list[Part]:
    """A file in parts of about `size` bytes that can be read apart from each other; in one when it must be.

    Compressed files, JSON arrays and message files are read in one go, because only what stands before tells where
    a record begins.
    """
    whole = [Part(file.name, 0, None)]
    if file.size <= size:
        return whole
    try:
        with closing(Stream(file.name)) as stream:
            if stream.compression:
                return whole
            kind = layout_of(stream, layout.format)
            if kind in (VALUES, MESSAGES):
                return whole
            if kind == CSV:
                starts = list(delimited.row_starts(stream, size, layout.delimiter, layout.max_record))
            else:
                starts = list(range(0, file.size, size))
    except Corrupt:
        return whole  # reading says what is wrong
    stops = [*starts[1:], None]
    return [Part(file.name, start, stop) for start, stop in zip([0, *starts[1:]], stops, strict=True)]


def check_schemas(globs: Sequence[str], layout: Layout, schema: schemas.Schema) -> None:
    """Refuses Avro containers that cannot be read as the schema: SchemaError naming the first such file and each
    difference. Only file headers are read. To be called before a run: later, each record of such a file becomes a
    dead letter.
    """
    for file in match(globs):
        if (layout.format or format_of_name(file.name) or "avro") != "avro":
            continue
        with suppress(Corrupt), closing(Stream(file.name)) as stream:  # reading says what is wrong with it
            if layout_of(stream, layout.format) == AVRO:
                schemas.resolve(avro.read_header(stream).schema, schema, file.name)


class Read(beam.PTransform):
    """Reads files as chunks of whole records.

    Out: Chunk, of about 128 KiB. What cannot be read comes as a chunk of its own, and Decoder makes a dead letter of it.

        events = pipeline | Read(["gs://bucket/2026-01-*.jsonl.gz"])

    globs: file names with `*`, `?`, `[…]` and `**`, on disk or in cloud storage; NoInput when one matches nothing.
    format: `json`, `csv` or `avro`; None to go by the name, else by the content. Compression is found out.
    max_record: bytes beyond which a record is a dead letter. delimiter: of CSV; None to find it out.
    stop: asked between chunks, without `split`; once it says yes, nothing more is read.
    split: spread files, and parts of large ones, over workers. Without, each file is read in order in one go,
    files by name, and line numbers are known.
    """

    def __init__(
        self,
        globs: Sequence[str],
        format: str | None = None,
        max_record: int = MAX_RECORD,
        delimiter: str | None = None,
        split: bool = True,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__()
        self.globs = tuple(globs)
        self.layout = Layout(format, max_record, delimiter)
        self.split = split
        self.stop = stop

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        """Matches once now, so that a wrong glob is told before anything runs, and again when it runs."""
        with suppress(BeamIOError):  # a store that can be reached from the workers only
            match(self.globs)
        files = begin | "Impulse" >> beam.Impulse() | "Match" >> beam.FlatMap(_match, self.globs)
        if not self.split:
            return files | "Read" >> beam.FlatMap(_read_file, self.layout, self.stop).with_output_types(Chunk)
        return (
            files
            | "Spread files" >> beam.Reshuffle()
            | "Split" >> beam.FlatMap(split_file, self.layout)
            | "Spread parts" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(chunks, self.layout).with_output_types(Chunk)
        )


def _match(_: bytes, globs: Sequence[str]) -> list[File]:
    return match(globs)


def _read_file(file: File, layout: Layout, stop: Callable[[], bool] | None) -> Iterator[Chunk]:
    if stop is not None and stop():
        return
    for chunk in chunks(Part(file.name, 0, None), layout):
        yield chunk
        if stop is not None and stop():
            return
