"""What a run on one machine reads, in slices: input that is mapped in one go, and then written down as read."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.elements import Chunk
from transforms.ledger import Ledger
from transforms.ledger_reader import Place, StateError
from transforms.read import Part, Read, chunks
from transforms.sources.files import Stream, is_local, match
from transforms.sources.formats import VALUES, Layout, layout_of

SLICE_BYTES: Final = 256 << 20
"""Bytes of input a slice of a backfill that keeps a ledger: starting Beam for it costs a hundredth of mapping it."""

PRINT_BYTES: Final = 64 << 10
"""Bytes at a file's start and end by which it is known again."""

Places = Mapping[tuple[str, str], Place]
"""(file, destination) -> how far it is read."""


@dataclass
class Slice:
    """Input that is mapped in one go."""

    read: beam.PTransform
    """The pipeline's begin -> Chunk."""
    destinations: tuple[str, ...]
    """Those that it is for."""
    places: Callable[[], Places] = dict
    """What is read when it is mapped."""
    messages: Sequence[int] = ()
    """Ids of the Pub/Sub messages that it was made of."""
    number: int = 0
    """Its number in the ledger; 0: it gets one."""
    model: str | None = None
    """The only model of the destinations that it is for; None: all."""
    step: beam.DoFn | None = None
    """What makes items of its chunks, with the outputs of MapRecordsFn; None: that."""


def whole(
    inputs: Sequence[str], layout: Layout, destinations: Sequence[str], stop: Callable[[], bool]
) -> Iterator[Slice]:
    """All files as one slice: for a run that keeps no ledger."""
    read = Read(inputs, layout.format, layout.max_record, layout.delimiter, split=False, stop=stop)
    yield Slice(read, tuple(destinations))


def look(
    ledger: Ledger, inputs: Sequence[str], destinations: Sequence[str], selection: str, again: bool
) -> dict[str, str]:
    """The files that a run is over -> what each is known by again, found before anything of the run is written down.

    selection, again: as of `backfill`. StateError for a file that is not what it was when it was begun.
    """
    # Under its whole path a file is the same from wherever the command is called.
    sizes = {os.path.abspath(name) if is_local(name) else name: size for name, size in match(inputs)}
    files = {name: file_print(name, size) for name, size in sizes.items()}
    known = {} if again else ledger.places(files, selection)
    for name, to in itertools.product(files, destinations):
        if (name, to) in known and known[name, to].print != files[name]:
            raise StateError(
                f"{name}: is not what it was when {to} was sent what is in it; give new content a name of its own, or send "
                "all of it anew with --again"
            )
    return files


def backfill(
    ledger: Ledger,
    run: str,
    files: Mapping[str, str],
    layout: Layout,
    destinations: Sequence[str],
    selection: str,
    stop: Callable[[], bool],
    again: bool,
) -> Iterator[Slice]:
    """What the files hold that was not read yet, in slices.

    run: name under which reading goes on from slice to slice. files: what `look` found. selection: `--since` and
    `--until`, as what they leave out counts as read. again: nothing counts as read but what a run with `again` read that
    was cut off, which this one goes on with.
    """
    if again:
        ledger.read_again(files, destinations)
    for chosen, begun in _passes(ledger, files, destinations, selection):
        reader = _Reader(begun, layout, stop)
        _readers[run] = reader
        try:
            while reader.more():
                yield Slice(_Next(run), chosen, functools.partial(reader.places, chosen))
                reader.touched.clear()
        finally:
            _readers.pop(run, None)


@dataclass
class _Begun:
    """A file and where reading it goes on."""

    name: str
    print: str
    position: int = 0
    line: int = 0


def _passes(
    ledger: Ledger, files: Mapping[str, str], destinations: Sequence[str], selection: str
) -> Iterator[tuple[tuple[str, ...], list[_Begun]]]:
    """(destinations, files), so that each file is read once for all destinations that lack the same of it."""
    known = ledger.places(files, selection)
    passes: dict[tuple[str, ...], list[_Begun]] = {}
    for file, print_ in files.items():
        lacking: dict[tuple[int, int], list[str]] = {}
        for name in destinations:
            place = known.get((file, name), Place(print_, 0))
            if place.position is not None:
                lacking.setdefault((place.position, place.line), []).append(name)
        for (position, line), chosen in lacking.items():
            passes.setdefault(tuple(chosen), []).append(_Begun(file, print_, position, line))
    yield from passes.items()


def file_print(name: str, size: int) -> str:
    """What a file is known by again: its size, and a digest of its start and end. OSError when it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    with FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        digest.update(file.read(PRINT_BYTES))
        if size > PRINT_BYTES:
            file.seek(max(PRINT_BYTES, size - PRINT_BYTES))
            digest.update(file.read(PRINT_BYTES))
    return f"{size}-{digest.hexdigest()}"


class _Reader:
    """Goes through files slice by slice, and knows how far it has come."""

    def __init__(self, files: Iterable[_Begun], layout: Layout, stop: Callable[[], bool]) -> None:
        self.touched: dict[str, Place] = {}
        """Files of this slice -> how far they are read."""
        self._files = iter(files)
        self._layout = layout
        self._stop = stop
        self._file: _Begun | None = None
        self._chunks: Iterator[Chunk] = iter(())
        self._ahead: Chunk | None = None
        self._advance()

    def more(self) -> bool:
        """Whether there is something left to read."""
        return (self._ahead is not None or bool(self.touched)) and not self._stop()

    def slice(self) -> Iterator[Chunk]:
        """The next chunks, SLICE_BYTES of them."""
        size = 0
        while self._ahead is not None and size < SLICE_BYTES and not self._stop():
            chunk = self._ahead
            yield chunk
            # Only now is it mapped, and the place behind it one to go on from.
            size += len(chunk.payload)
            self._advance()

    def places(self, destinations: Iterable[str]) -> Places:
        """How far the slice has come, for each destination that it was for."""
        return {(name, to): place for to in destinations for name, place in self.touched.items()}

    def _advance(self) -> None:
        """Looks one chunk ahead: it begins where reading goes on."""
        while True:
            self._ahead = next(self._chunks, None)
            if self._file is not None:
                ahead, known = self._ahead, self._file.print
                self.touched[self._file.name] = (
                    Place(known, None) if ahead is None else Place(known, ahead.position, ahead.line)
                )
            if self._ahead is not None:
                return
            self._file = next(self._files, None)
            if self._file is None:
                return
            self._chunks = _rest(self._file, self._layout)


def _rest(file: _Begun, layout: Layout) -> Iterator[Chunk]:
    """A file's chunks from where reading goes on. What is compressed must be gone through from its start, and so must
    JSON values, as only what stands before tells whether they are in an array."""
    if not file.position:
        return chunks(Part(file.name, 0, None), layout)
    with closing(Stream(file.name)) as stream:
        from_start = bool(stream.compression) or layout_of(stream, layout.format) == VALUES
    if from_start:
        return (chunk for chunk in chunks(Part(file.name, 0, None), layout) if chunk.position >= file.position)
    return chunks(Part(file.name, file.position, None, True, file.line), layout)


_readers: dict[str, _Reader] = {}


class _Next(beam.PTransform):
    """The next slice of a reader of this process."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        """Wires the steps."""
        return begin | beam.Impulse() | "Next slice" >> beam.FlatMap(_next_slice, self.run).with_output_types(Chunk)


def _next_slice(_: bytes, run: str) -> Iterator[Chunk]:
    return _readers[run].slice()
