"""Dead letters: what went nowhere, with all that is needed to understand it and to send it again.

One shape and one writer, whatever went wrong and wherever. transforms/letters.py reads them.
"""

from __future__ import annotations

import base64
import datetime
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import apache_beam as beam
import msgspec
from msgspec import UNSET, UnsetType

from transforms.elements import Chunk, split_ref
from transforms.letter_shape import (
    AVRO_BINARY,
    AVRO_JSON,
    Earlier,
    Encoded,
    First,
    Letter,
    OfMessage,
    Source,
    as_json,
    as_line,
    as_text,
    letter_id,
)
from transforms.letter_stores import FILE_LETTERS, Line, Store, store_of
from transforms.originals import GONE, Original, originals
from transforms.sources.files import Corrupt
from transforms.sources.formats import Layout
from transforms.sources.forms import Form
from transforms.sources.json_values import ARRAY
from transforms.sources.messages import ENCODING, MESSAGES, Message, pack_messages, subscription_of
from transforms.sources.records import raw_records

REJECTED = "rejected"
UNDELIVERED = "undelivered"

OTHER_FORM = (
    "mapped by another relay file, into a form that the destination does not take now: playrelay replay maps it again"
)
"""Why an item that waited while the relay file was changed is undelivered."""

HELD_FAILURES = 20_000
"""Failures of a destination that a bundle holds before they are written: a compressed source is read once for them."""

_ENCODINGS: Final = {"BINARY": AVRO_BINARY, "JSON": AVRO_JSON}

_CARRIED_WHOLE: Final = ("json", ARRAY, "unreadable")
"""Formats of records that need nothing of their file to be understood."""


_decode_earlier: Final = msgspec.json.Decoder(Earlier).decode


class Failed(NamedTuple):
    """A record or item that was not delivered to a destination."""

    outcome: str
    """`rejected`: it can never be taken as it is; `undelivered`: it could not be sent."""
    reason: str
    source: str
    ref: int
    model: str = ""
    """Empty when the record could not be decoded."""
    user: str = ""
    time_ms: int | None = None
    payload: bytes | None = None
    """What was, or would have been, sent; None when the record was not mapped."""
    status: int = 0
    """HTTP status of the vendor's answer; 0 when there was none."""
    answer: str = ""
    """Start of the vendor's answer."""
    line: int = 0
    """1-based line number, where known."""
    original: bytes | None = None
    """The record's bytes, where they are at hand; else they are read again from the source."""
    segment: int = 0
    """Number of the segment on disk that held the item; 0 when there was none."""
    format: str = ""
    """How `original` is written, as in `Chunk.format`, where it is known."""
    message: Message | None = None
    """The message that the record came in, where it cannot be read again; `source` is its subscription then."""
    number: int = 0
    """The record's place in that message."""
    schema: str = ""
    """Of the payload, where another relay file than the present one may have mapped it."""
    mapping: str = ""
    """Version of the mapping that made the payload, where it waited on this machine's disk; empty: the present one."""


def _of_file(name: str, position: int, index: int, original: Original) -> Source:
    source = Source(name, original.form.format, original.line or None, position, index)
    if original.form.format == "csv":
        source.header, source.delimiter = as_text(original.form.header), original.form.delimiter
    if original.form.format == AVRO_BINARY:
        schema = msgspec.Raw(original.form.schema)
        source.avro = Encoded(base64.b64encode(original.avro).decode(), schema)
    return source


def _of_message(name: str, original: Original, message: Message) -> Source:
    about = OfMessage(message.id, message.ordering_key, message.published_ms or None, dict(message.attributes))
    format = _ENCODINGS.get(message.attributes.get(ENCODING, ""), "json")
    return Source(name, original.form.format or format, index=original.number, message=about)


@lru_cache(maxsize=256)
def _subscription(path: str) -> str:
    """Where the messages of a file came from; the file's name when that cannot be read."""
    try:
        return subscription_of(path)
    except Corrupt:
        return path


def _made(
    failed: Failed, destination: str, vendor: str, mapping: str, schema: str | UnsetType, original: Original, at: str
) -> Letter:
    """The dead letter of a failed item; `mapping` is the mapping's version, `schema` its payload's, `at` the time."""
    failures, first, text = 1, First(failed.reason, at), original.text
    payload = as_json(failed.payload)
    position, index = split_ref(failed.ref)
    record = original.text if original.text is not None else failed.payload or b""
    message = original.message
    if message is None:
        source = _of_file(failed.source, position, index, original)
        id = letter_id(destination, failed.model, source.name, (position, index), record)
    elif message.again is None:
        name = failed.source if failed.message is not None else _subscription(failed.source)
        source = _of_message(name, original, message)
        id = letter_id(destination, failed.model, name, (message.id, original.number), record)
    else:
        text = text or None  # a letter without its record came as a message without data
        earlier = _decode_earlier(message.again.letter)
        failures, first, source, id = earlier.failures + 1, earlier.first, earlier.source, earlier.id
        if failed.payload is not None and payload == earlier.payload:  # what was mapped then was sent as it was
            mapping = earlier.mapping or ""
        if (destination, failed.model or None) != (earlier.destination, earlier.model):
            # What could not be decoded before may now fail at several models.
            id = letter_id(destination, failed.model, "", (earlier.id, 0), b"")
    return Letter(
        id=id,
        destination=destination,
        vendor=vendor,
        model=failed.model or None,
        outcome=failed.outcome,
        reason=failed.reason,
        status=failed.status or None,
        answer=failed.answer or None,
        user=failed.user or None,
        time=failed.time_ms,
        payload=payload,
        original=None if text is None else as_text(text),
        source=source,
        mapping=mapping or None,
        at=at,
        failures=failures,
        first=first,
        schema=schema,
    )


class DeadLetterWriter:
    """Writes dead letters, as JSON lines under a folder (on disk or in cloud storage) or to a Pub/Sub topic.

    location: the folder, or projects/P/topics/T; LetterError when it is neither. vendors, versions: of each
    destination, its vendor and its mapping's version. source: how the sources are to be read, for the original records.
    schemas: of each destination, the schemas of its models' payloads.
    Any number of writers, threads and processes may write to one place.
    """

    def __init__(
        self,
        location: str,
        vendors: Mapping[str, str],
        versions: Mapping[str, str],
        source: Layout,
        schemas: Mapping[str, Mapping[str, str]] = {},
    ) -> None:
        self.location = location
        self._schemas = schemas
        self._vendors = vendors
        self._versions = versions
        self._source = source
        self._store: Store = store_of(location)

    def write(self, destination: str, failed: Sequence[Failed], key: str = "") -> None:
        """Writes the letters of a destination's failures; they are durable when it returns.

        key: what they are the failures of (a segment, a slice), for the names of objects in cloud storage. Raises
        OSError, or LetterError for a topic.
        """
        # After a crash the same failures may come a second time. They are written a second time: only what reads
        # letters sees all of them, and drops those whose id and count of failures it has seen. So an id must not
        # depend on the time, the process or the order.
        for outcome in (REJECTED, UNDELIVERED):
            chosen = [one for one in failed if one.outcome == outcome]
            for at in range(0, len(chosen), FILE_LETTERS):
                letters = self.letters(destination, chosen[at : at + FILE_LETTERS])
                lines = [Line(letter.id, letter.failures, letter.model or "", as_line(letter)) for letter in letters]
                self._store.add(destination, outcome, lines, key)

    def letters(self, destination: str, failures: Sequence[Failed]) -> list[Letter]:
        """The letters of failures, without writing them."""
        read = _read_again(failures, self._source)
        vendor, version = self._vendors[destination], self._versions.get(destination, "")
        schemas = self._schemas.get(destination, {})
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        return [
            _made(
                failed,
                destination,
                vendor,
                failed.mapping or version,
                _schema(failed, schemas),
                _original(failed, read.get((failed.source, failed.ref))),
                now,
            )
            for failed in failures
        ]

    def close(self) -> None:
        """Lets go of connections."""
        self._store.close()


def _schema(failed: Failed, schemas: Mapping[str, str]) -> str | UnsetType:
    return UNSET if failed.payload is None else failed.schema or schemas.get(failed.model, UNSET)


def _original(failed: Failed, read: Original | None) -> Original:
    """A failure's record: as it was read again, else as the failure carries it."""
    if failed.message is not None:
        text = failed.original
        if text is None:
            chunk = Chunk(failed.source, 0, 0, MESSAGES, pack_messages([failed.message]))
            text = next(itertools.islice(raw_records(chunk), failed.number, None)).text
        return Original(text, 0, failed.message, failed.number)
    if read is None or read.text is None:
        form = Form(failed.format if failed.format in _CARRIED_WHOLE else "")
        return GONE._replace(text=failed.original, line=failed.line, form=form)
    return read


def _read_again(failures: Iterable[Failed], source: Layout) -> dict[tuple[str, int], Original]:
    """(source, ref) -> the record of each failure that does not carry all that there is to know of it."""
    wanted: dict[str, set[int]] = {}
    for failed in failures:
        carried = failed.original is not None and failed.format in _CARRIED_WHOLE
        if not carried and failed.message is None:
            wanted.setdefault(failed.source, set()).add(failed.ref)
    return {
        (name, ref): found
        for name, refs in wanted.items()
        for ref, found in originals(name, sorted(refs), source).items()
    }


class WriteDeadLettersFn(beam.DoFn):
    """Writes dead letters with the writer that `open_writer` gives.

    In: (destination, list of Failed). Out: nothing.
    """

    def __init__(self, open_writer: Callable[[], DeadLetterWriter]) -> None:
        self.open_writer = open_writer

    def setup(self) -> None:
        """Opens the writer: connections do not travel in the job graph."""
        self._writer = self.open_writer()

    def start_bundle(self) -> None:
        """Begins with nothing held."""
        self._held: dict[str, list[Failed]] = {}

    def process(self, element: tuple[str, Sequence[Failed]]) -> None:
        """Holds the failures of one list; writes when many are held."""
        destination, failures = element
        held = self._held.setdefault(destination, [])
        held += failures
        if len(held) >= HELD_FAILURES:
            self._writer.write(destination, self._held.pop(destination))

    def finish_bundle(self) -> None:
        """Writes what is held."""
        for destination, failures in self._held.items():
            self._writer.write(destination, failures)
        self._held.clear()

    def teardown(self) -> None:
        """Lets go of connections."""
        self._writer.close()


__all__ = ["REJECTED", "UNDELIVERED", "DeadLetterWriter", "Failed", "Letter", "WriteDeadLettersFn"]
