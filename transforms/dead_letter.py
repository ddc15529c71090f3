"""Dead letters: what went nowhere, with all that is needed to understand it and to send it again.

One shape and one writer, whatever went wrong and wherever.
"""

from __future__ import annotations

import base64
import datetime
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.io.filesystems import FileSystems

from transforms.elements import split_ref
from transforms.originals import originals
from transforms.sources.formats import Layout

REJECTED = "rejected"
UNDELIVERED = "undelivered"

_as_it_is = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode

FILE_LETTERS = 50_000
"""Dead letters a file at the most."""


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


def letter(
    failed: Failed, destination: str, vendor: str, mapping: str, original: bytes | None, line: int
) -> dict[str, Any]:
    """The dead letter of a failed item as it stands in a file; `mapping` is the mapping's version.

    Bytes that are not UTF-8 stand as {"base64": …}. A record whose source could not be read again has
    `original: null`.
    """
    position, index = split_ref(failed.ref)
    return {
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
        "original": None if original is None else _text(original),
        "source": {
            "name": failed.source,
            "line": line or None,
            "position": position,
            "index": index,
        },
        "mapping": mapping or None,
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
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


class WriteDeadLettersFn(beam.DoFn):
    """Writes dead letters as JSON lines under a folder, on disk or in cloud storage.

    In: (destination, list of Failed). Out: nothing. Files are named `OUTCOME-DESTINATION-….jsonl`; a file
    appears whole or not at all.
    """

    def __init__(self, folder: str, vendors: Mapping[str, str], versions: Mapping[str, str], source: Layout) -> None:
        self.folder = folder
        self.vendors = vendors
        self.versions = versions
        self.source = source

    def process(self, element: tuple[str, Sequence[Failed]]) -> None:
        """Writes the letters of one list, in files of at most FILE_LETTERS."""
        destination, failures = element
        for outcome in (REJECTED, UNDELIVERED):
            chosen = [failed for failed in failures if failed.outcome == outcome]
            for at in range(0, len(chosen), FILE_LETTERS):
                self._write(destination, outcome, chosen[at : at + FILE_LETTERS])

    def _write(self, destination: str, outcome: str, failures: Sequence[Failed]) -> None:
        name = f"{outcome}-{destination}-{uuid.uuid4().hex}.jsonl"
        if not FileSystems.exists(self.folder):
            FileSystems.mkdirs(self.folder)
        path = FileSystems.join(self.folder, name)
        partial = FileSystems.join(self.folder, f".{name}.partial")
        with FileSystems.create(partial, mime_type="application/x-ndjson") as file:
            for line in self.lines(destination, failures):
                file.write(line)
        FileSystems.rename([partial], [path])

    def lines(self, destination: str, failures: Sequence[Failed]) -> Iterator[bytes]:
        """The letters as JSON lines."""
        read = _read_again(failures, self.source)
        for failed in failures:
            original, line = failed.original, failed.line
            if original is None:
                original, line = read.get((failed.source, failed.ref), (None, failed.line))
            document = letter(
                failed, destination, self.vendors[destination], self.versions.get(destination, ""), original, line
            )
            yield _line(document)


def _read_again(failures: Iterable[Failed], source: Layout) -> dict[tuple[str, int], tuple[bytes | None, int]]:
    """(source, ref) -> (original bytes, line) of the failures that do not carry their record."""
    wanted: dict[str, set[int]] = {}
    for failed in failures:
        if failed.original is None:
            wanted.setdefault(failed.source, set()).add(failed.ref)
    return {
        (name, ref): (found.text, found.line)
        for name, refs in wanted.items()
        for ref, found in originals(name, sorted(refs), source).items()
    }


__all__ = ["REJECTED", "UNDELIVERED", "Failed", "WriteDeadLettersFn", "letter"]
