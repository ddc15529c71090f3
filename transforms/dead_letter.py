"""Dead letters: what went nowhere, with all that is needed to understand it and to send it again.

One shape and one writer, whatever went wrong and wherever. transforms/letters.py reads them.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec

from transforms.elements import split_ref
from transforms.letter_stores import FILE_LETTERS, Line, Store, store_of
from transforms.originals import GONE, Original, originals
from transforms.sources.formats import Layout

REJECTED = "rejected"
UNDELIVERED = "undelivered"

_as_it_is = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode

HELD_FAILURES = 20_000
"""Failures of a destination that a bundle holds before they are written: a compressed source is read once for them."""


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


def letter_id(destination: str, model: str, source: str, place: Sequence[str | int], record: bytes) -> str:
    """Names a dead letter: the same each time the same record of the same source fails at a destination's model.

    place: position and index in a file, or the message's id and the index in it. The record is a part of it because
    a file may be written anew under its name.
    """
    parts = msgspec.msgpack.encode((destination, model, source.encode("utf-8", "surrogateescape"), place, record))
    return hashlib.blake2b(parts, digest_size=16).hexdigest()


def document(
    failed: Failed, destination: str, vendor: str, mapping: str, original: Original, at: str
) -> dict[str, Any]:
    """The dead letter of a failed item as it stands in a file; `mapping` is the mapping's version, `at` the time.

    Bytes that are not UTF-8 stand as {"base64": …}. A record whose source could not be read again has
    `original: null`.
    """
    position, index = split_ref(failed.ref)
    record = original.text if original.text is not None else failed.payload or b""
    return {
        "id": letter_id(destination, failed.model, failed.source, (position, index), record),
        "destination": destination,
        "vendor": vendor,
        "model": failed.model or None,
        "outcome": failed.outcome,
        "reason": failed.reason,
        "status": failed.status or None,
        "answer": failed.answer or None,
        "user": failed.user or None,
        "time": failed.time_ms,
        "payload": _payload(failed.payload),
        "original": None if original.text is None else _text(original.text),
        "source": {
            "name": failed.source,
            "line": original.line or None,
            "position": position,
            "index": index,
        },
        "mapping": mapping or None,
        "at": at,
        "failures": 1,
        "first": {"reason": failed.reason, "at": at},
    }


def _payload(payload: bytes | None) -> Any:
    if payload is None:
        return None
    try:
        payload.decode()  # the check of JSON does not look into texts
        # A payload that is the record itself may stand on several lines.
        return _as_it_is(msgspec.json.format(payload, indent=-1) if b"\n" in payload or b"\r" in payload else payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _text(payload)


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _line(document: dict[str, Any]) -> bytes:
    try:
        return _encode(document) + b"\n"
    except UnicodeEncodeError:  # the name of a file may be no Unicode
        return _encode(_unicode(document)) + b"\n"


def _unicode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unicode(inner) for key, inner in value.items()}
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


class DeadLetterWriter:
    """Writes dead letters, as JSON lines under a folder (on disk or in cloud storage) or to a Pub/Sub topic.

    location: the folder, or projects/P/topics/T; LetterError when it is neither. vendors, versions: of each
    destination, its vendor and its mapping's version. source: how the sources are to be read, for the original records.
    Any number of writers, threads and processes may write to one place.
    """

    def __init__(self, location: str, vendors: Mapping[str, str], versions: Mapping[str, str], source: Layout) -> None:
        self.location = location
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
                self._store.add(destination, outcome, self.lines(destination, chosen[at : at + FILE_LETTERS]), key)

    def lines(self, destination: str, failures: Sequence[Failed]) -> list[Line]:
        """The letters of failures."""
        read = _read_again(failures, self._source)
        vendor, version = self._vendors[destination], self._versions.get(destination, "")
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        found = []
        for failed in failures:
            original = read.get((failed.source, failed.ref), GONE)
            if original.text is None:
                original = original._replace(text=failed.original, line=failed.line)
            made = document(failed, destination, vendor, version, original, now)
            found.append(Line(made["id"], made["failures"], failed.model, _line(made)))
        return found


class WriteDeadLettersFn(beam.DoFn):
    """Writes dead letters; `folder` is any location that DeadLetterWriter takes.

    In: (destination, list of Failed). Out: nothing.
    """

    def __init__(self, folder: str, vendors: Mapping[str, str], versions: Mapping[str, str], source: Layout) -> None:
        self.folder = folder
        self.vendors = vendors
        self.versions = versions
        self.source = source

    def setup(self) -> None:
        """Opens the writer: connections do not travel in the job graph."""
        self._writer = DeadLetterWriter(self.folder, self.vendors, self.versions, self.source)

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


def _read_again(failures: Iterable[Failed], source: Layout) -> dict[tuple[str, int], Original]:
    """(source, ref) -> the record of each failure that does not carry its own."""
    wanted: dict[str, set[int]] = {}
    for failed in failures:
        if failed.original is None:
            wanted.setdefault(failed.source, set()).add(failed.ref)
    return {
        (name, ref): found
        for name, refs in wanted.items()
        for ref, found in originals(name, sorted(refs), source).items()
    }


__all__ = ["REJECTED", "UNDELIVERED", "DeadLetterWriter", "Failed", "WriteDeadLettersFn"]
