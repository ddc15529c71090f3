"""Reading dead letters: from a folder, from cloud storage or from messages."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from apache_beam.io.filesystems import FileSystems

from transforms.dead_letter import REJECTED, UNDELIVERED
from transforms.letter_shape import AVRO_BINARY, Base64, Earlier, Letter, as_bytes
from transforms.letter_stores import ENCODING, LetterError, is_topic
from transforms.sources.avro_records import compile_records
from transforms.sources.cloud import check_reachable
from transforms.sources.files import Corrupt, Stream, is_local
from transforms.sources.formats import Layout
from transforms.sources.forms import Form
from transforms.sources.lines import BLOCK
from transforms.sources.message_records import gunzip
from transforms.sources.messages import Again, Message
from transforms.sources.unreadable import UNREADABLE

ENDINGS: Final = (".jsonl", ".jsonl.gz")
"""Of the files that hold letters."""

_BEGIN: Final = b'{"id":'
"""Of a letter as it is written."""
_NONE: Final = ": no dead letter: "
_PASSED: Final = "; passed over"

Age = tuple[str, int]
NEVER: Final = ("", 0)

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Letter).decode
MOST_LINE: Final = 256 << 20
"""Bytes of a letter's line, above which the rest is passed over."""

_NO_LETTER: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def read_letters(location: str, skipped: Callable[[str], None] = _log.warning) -> Iterator[Letter]:
    """The letters in a folder (on disk or in cloud storage), or of one file: of each id the latest, once.

    A letter that failed again is written with one failure more, and then stands for the earlier ones; one that was
    written twice is given once. What is written while this reads is not given, so a replay may write to where it reads.
    `skipped` is told of each line that is no letter, with file and line. Memory: some 300 bytes a letter. Raises
    LetterError when there is nothing at the location, or nothing but what is no letter, or it is a topic.
    """
    check_letters(location)
    files = _files(location)
    latest: dict[str, Age] = {}
    for letter in _letters(files, skipped):
        latest[letter.id] = max(latest.get(letter.id, NEVER), age_of(letter))
    for letter in _letters(files, _silent):
        if age_of(letter) == latest.get(letter.id):
            del latest[letter.id]
            yield letter


def age_of(letter: Letter) -> Age:
    """By which the latest letter of an id is found: a record that is relayed anew begins with one failure again."""
    return letter.first.at, letter.failures


def all_letters(location: str) -> Iterator[Letter]:
    """Every letter there is in a folder, if any, without a word of what is none."""
    return _letters(_files(location, may_be_empty=True), _silent)


def check_letters(location: str) -> None:
    """LetterError when there can be no letters at a location: nothing is there, or nothing but what is no letter."""
    first = ""

    def note(what: str) -> None:
        nonlocal first
        first = first or (what if _NONE in what else "")

    if next(_letters(_files(location), note), None) is None and first:
        raise LetterError(f"{first.removesuffix(_PASSED)}; expected lines of JSON as --dead-letters writes them")


def _files(location: str, may_be_empty: bool = False) -> list[str]:
    """The files of letters at a location, by name. Raises LetterError."""
    if is_topic(location):
        raise LetterError(
            f"{location}: a topic cannot be read; name a subscription to it where one can be, or a folder"
        )
    if not is_local(location):
        check_reachable(location)
        names = [file.path for file in FileSystems.match([FileSystems.join(location, "*")])[0].metadata_list]
        if not names and not may_be_empty:
            raise LetterError(f"{location}: there is nothing there")
    elif os.path.isfile(location):
        return [location]
    else:
        try:
            names = [os.path.join(location, name) for name in os.listdir(location)]
        except OSError as error:
            raise LetterError(f"{location}: {error.strerror}; expected a folder of dead letters") from error
    return sorted(
        name
        for name in names
        if name.endswith(ENDINGS) and not name.replace("\\", "/").rpartition("/")[2].startswith(".")
    )


def _letters(files: Iterable[str], skipped: Callable[[str], None]) -> Iterator[Letter]:
    for name in files:
        number = 0
        try:
            with closing(Stream(name)) as stream:
                for number, (line, ended) in enumerate(_lines(stream), 1):
                    if line.isspace() or not line:
                        continue
                    letter = _letter(line)
                    if isinstance(letter, Letter):
                        yield letter
                    elif ended or not line.startswith(_BEGIN):
                        skipped(f"{name}:{number}{_NONE}{letter}{_PASSED}")
                    else:
                        killed = "cut off: it is being written, or what wrote it was killed"
                        skipped(f"{name}:{number}: {killed}{_PASSED}")
        except Corrupt as problem:
            skipped(f"{name}:{number + 1}: {problem}; the rest of the file is passed over")


def _letter(line: bytes) -> Letter | str:
    """The letter, or why there is none."""
    try:
        letter = _decode(line)
    except _NO_LETTER as error:
        return " ".join(str(error).split())
    if letter.outcome not in (REJECTED, UNDELIVERED):
        return f"its outcome is {letter.outcome!r}"
    return letter


def _lines(stream: Stream) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it ends with a line end; of what is too long for a letter only so much that it is none."""
    parts: list[bytes] = []
    size = 0
    while data := stream.read(BLOCK):
        *ended, rest = data.split(b"\n")
        for line in ended:
            if parts:
                # Its end is not put behind a beginning that was cut: together they might be a letter.
                line = b"".join(parts if size > MOST_LINE else (*parts, line))
                parts, size = [], 0
            yield line, True
        if rest and size <= MOST_LINE:
            parts.append(rest)
            size += len(rest)
    if parts:
        yield b"".join(parts), False


def _silent(_: str) -> None:
    pass


def letter_of(data: bytes, attributes: Mapping[str, str]) -> Letter:
    """The letter in a message of a dead-letter topic. ValueError when there is none."""
    try:
        letter = _letter(gunzip(data) if attributes.get(ENCODING) == "gzip" else data)
    except Corrupt as error:
        raise ValueError(f"no dead letter: {error}") from error
    if isinstance(letter, str):
        raise ValueError(f"no dead letter: {letter}")
    return letter


def payload_of(letter: Letter) -> bytes | None:
    """The payload as it was sent, or would have been; None when the record was not mapped."""
    payload = bytes(letter.payload)
    if payload == b"null":
        return None
    if payload.startswith(b'"'):
        return msgspec.json.decode(payload, type=str).encode()
    if payload.startswith(b'{"base64":'):
        with contextlib.suppress(msgspec.ValidationError, ValueError):
            return as_bytes(msgspec.json.decode(payload, type=Base64))
    return payload


# Relaying them again -----------------------------------------------------------------------------


def letter_message(letter: Letter) -> Message:
    """A letter's record as a message that decodes to the same record again, for `write_messages`.

    Its id is the letter's; attributes, ordering key and time are those of the message that the record came in, if it
    did. When it fails again, DeadLetterWriter makes the letter that follows this one: with its first reason, and one
    failure more. What `unreplayable` speaks of becomes a message that cannot be decoded.
    """
    record = _record(letter)
    if isinstance(record, str):
        text = as_bytes(letter.original) if isinstance(letter.original, str) else b""
        record = _Record(text, Form(UNREADABLE))
    data, form = record
    source = letter.source
    earlier = Earlier(
        letter.id,
        letter.destination,
        letter.model,
        letter.failures,
        letter.first,
        source,
        letter.payload,
        letter.mapping,
    )
    again = Again(form.format, _encode(earlier), form.header, form.delimiter, form.schema)
    if not source.message:
        return Message(data, {}, letter.id, again=again)
    of = source.message
    return Message(data, of.attributes, letter.id, of.ordering_key, of.published or 0, again)


def unreplayable(letter: Letter) -> str:
    """Why a letter's record cannot be mapped again, in words; empty when it can."""
    record = _record(letter)
    return record if isinstance(record, str) else ""


class _Record(NamedTuple):
    data: bytes
    form: Form


def _record(letter: Letter) -> _Record | str:
    """A letter's record and how it is written, or why there is none."""
    source, form = letter.source, Form(letter.source.format or "json")
    if form.format == UNREADABLE:
        return "no record could be read there: get the file again and relay that"
    if letter.original is None:
        return "it does not hold the original record: its source was gone, or it was too large for a message"
    try:
        data = as_bytes(letter.original)
        if source.avro:
            form = Form(AVRO_BINARY, schema=_checked(bytes(source.avro.schema)))
            data = base64.b64decode(source.avro.record, validate=True)
        elif form.format == "csv":
            header, delimiter = as_bytes(source.header or ""), source.delimiter or ""
            Layout(delimiter=delimiter)  # whether it can be one
            if not header.strip():
                return "it does not say the header of its CSV file"
            form = Form("csv", header, delimiter)
    except (ValueError, RecursionError) as error:  # binascii.Error is a ValueError
        return f"its record is damaged: {error}"
    return _Record(data, form) if data.strip() or form.format == AVRO_BINARY else "its record is empty"


@lru_cache(maxsize=64)
def _checked(schema: bytes) -> bytes:
    """An Avro schema that records can be read by. ValueError when it is none."""
    compile_records(msgspec.json.decode(schema))
    return schema
