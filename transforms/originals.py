"""Reading records again by their references, for dead letters: the records themselves do not travel with the items."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from typing import Final, NamedTuple

from transforms.elements import Chunk, record_ref, split_ref
from transforms.read import Part, chunks
from transforms.sources.files import Corrupt, Stream, is_local
from transforms.sources.formats import AVRO, Layout, layout_of
from transforms.sources.forms import Form, form_of
from transforms.sources.lines import BLOCK, count_newlines
from transforms.sources.messages import MESSAGES, Message
from transforms.sources.records import raw_records
from transforms.sources.unreadable import UNREADABLE


class Original(NamedTuple):
    """A record, read again."""

    text: bytes | None
    """As written; for Avro its JSON text; of what could not be read, the first 64 KiB. None: no longer there."""
    line: int
    """1-based line number, 0 when not known: in Avro and messages, and in large files elsewhere than on disk."""
    message: Message | None = None
    """The message that it came in; None when it came from another file."""
    number: int = 0
    """Its place among the records of that message."""
    form: Form = Form("")
    """How it is written."""
    avro: bytes = b""
    """Of an Avro container's record, its own bytes."""


GONE: Final = Original(None, 0)
"""What stands for a record of a file that is gone, or has changed."""


def originals(source: str, refs: Collection[int], layout: Layout) -> dict[int, Original]:
    """The records of a file by their references; GONE for those that are no longer there.

    A compressed file is read once for all of them; in others only what is near the records, and on disk what
    stands before them for the line numbers. Memory: one chunk, and the records asked for.
    """
    wanted: dict[int, set[int]] = {}
    for ref in refs:
        position, index = split_ref(ref)
        wanted.setdefault(position, set()).add(index)
    found = dict.fromkeys(refs, GONE)
    if is_local(source) and not os.path.isfile(source):
        return found
    # BeamIOError is an OSError. What was found before it broke is kept.
    with suppress(Corrupt, OSError):
        stream = _seekable(source, layout)
        if stream is None:
            found.update(_in_one_go(source, wanted, layout))
            return found
        with closing(stream):
            lines = is_local(source) and layout_of(stream, layout.format) not in (AVRO, MESSAGES)
            found.update(_by_position(stream, wanted, layout, lines))
    return found


def _seekable(source: str, layout: Layout) -> Stream | None:
    """The file, when it can be read from anywhere; None when it is compressed, or cannot be read at all."""
    try:
        stream = Stream(source)
    except Corrupt:
        return None
    try:
        layout_of(stream, layout.format)
    except Corrupt:
        stream.close()
        return None
    if stream.compression:
        stream.close()
        return None
    return stream


def _in_one_go(source: str, wanted: dict[int, set[int]], layout: Layout) -> Iterator[tuple[int, Original]]:
    """From a file that can only be read from its start: the chunks are cut as they were the first time."""
    left = set(wanted)
    for chunk in chunks(Part(source, 0, None), layout):
        if chunk.position in left:
            indexes = wanted[chunk.position]
            for index, original in enumerate(_originals(chunk)):
                if index in indexes:
                    yield record_ref(chunk.position, index), original
            left.discard(chunk.position)
        if not left:
            return


def _by_position(
    stream: Stream, wanted: dict[int, set[int]], layout: Layout, lines: bool
) -> Iterator[tuple[int, Original]]:
    line, counted = 1, 0
    for position, indexes in sorted(wanted.items()):
        if lines:
            stream.seek(counted)
            while counted < position and (data := stream.read(min(BLOCK, position - counted))):
                line, counted = line + count_newlines(data), counted + len(data)
        part = Part(stream.name, position, None, True, line if lines else 0)
        # A chunk may end elsewhere than it did, where its end was that of a part of the file.
        records = itertools.chain.from_iterable(map(_originals, chunks(part, layout)))
        for index, original in enumerate(itertools.islice(records, max(indexes) + 1)):
            if index in indexes:
                yield record_ref(position, index), original


def _originals(chunk: Chunk) -> Iterator[Original]:
    form = form_of(chunk)
    for raw in raw_records(chunk):
        own = Form(UNREADABLE) if raw.problem and not raw.binary else form
        yield Original(raw.text, raw.line, raw.message, raw.number, own, raw.binary)
