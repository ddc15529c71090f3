"""Decoding: a chunk of raw records to typed records, one dead letter for each record that is not what the schema says.

The fast way takes a chunk as a whole. Only when that fails is it gone through record by record, so that a bad
record costs the others nothing but time.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

import schemas
from transforms.decode_avro import AvroDecoder
from transforms.decode_csv import BAD_ROW, CsvDecoder
from transforms.decode_json import NOT_JSON, JsonDecoder
from transforms.decode_messages import MessageDecoder, Whole
from transforms.elements import Chunk, record_ref
from transforms.sources.json_values import ARRAY
from transforms.sources.message_records import bare
from transforms.sources.messages import MESSAGES, Message, attributes_of, data_of, unpack, unpack_messages
from transforms.sources.records import Attempt, RawRecord, attempt, raw_records, unpack_rows

WORDS: Final = {
    "int": "whole number",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "bytes": "base64 text",
}
"""Python's names of types in msgspec's messages, as a reader of the report says them."""


class Undecodable(NamedTuple):
    """A record that could not be decoded."""

    ref: int
    line: int
    """1-based line number in the file, 0 when not known."""
    offset: int
    """Byte offset in the (decompressed) file; for Avro and messages, of the block."""
    reason: str
    original: bytes
    """The record as it was read, at most max_record bytes; of what could not be read, its first 64 KiB."""
    format: str
    """How it is written, as in `Chunk.format`."""


class Decoded(NamedTuple):
    """A chunk's records. len(records) + len(undecodable) is what was read."""

    records: list[Any]
    indexes: list[int] | None
    """Index in the chunk of each record; None when record i has index i, that is, all were decoded."""
    undecodable: list[Undecodable]
    starts: list[int] | None = None
    """Of messages: index of the first record of each; None when each holds one."""


class InMessage(NamedTuple):
    """A record's message."""

    message: Message
    number: int
    """The record's place in the message."""


class Decoder:
    """Decodes chunks of any format to structs of a schema (`schemas.struct_type`).

    Make it where it is used (a DoFn's setup): it holds compiled decoders.
    """

    def __init__(self, schema: schemas.Schema) -> None:
        self.struct: type[msgspec.Struct] = schemas.struct_type(schema)
        self._json = JsonDecoder(self.struct)
        self._csv = CsvDecoder(schema, self.struct)
        self._avro = AvroDecoder(schema, self.struct)
        self._messages = MessageDecoder(schema, self.struct, self._json, self._csv, self._avro)

    def decode(self, chunk: Chunk) -> Decoded:
        """The chunk's records. Never raises for what is in the payload."""
        if chunk.format == "json":
            records, each = self._json.lines(chunk.payload), self._each_json
        elif chunk.format == ARRAY:
            records, each = self._json.array(b"[%b]" % chunk.payload), self._each_json
        elif chunk.format == "csv":
            rows = unpack_rows(chunk.payload)
            header = self._csv.header(rows.header, rows.delimiter)
            records, each = self._csv.rows(rows.text, header, rows.delimiter), self._each_csv
        elif chunk.format == "avro":
            records, each = self._avro.all(chunk), self._avro.each
        elif chunk.format == MESSAGES:
            records = self._messages.all(unpack(chunk.payload))
            return self._by_message(chunk) if records is None else Decoded(records, None, [])
        else:
            records, each = None, self._each_json
        return Decoded(records, None, []) if records is not None else _one_by_one(chunk, each(chunk))

    def raws(self, chunk: Chunk, decoded: Decoded) -> list[bytes]:
        """The records of `decoded` as they were written (Avro: as JSON text), for models that pass them on."""
        if chunk.format == MESSAGES:
            one_each = decoded.starts is None
            texts = list(map(bare, data_of(unpack(chunk.payload)))) if one_each else self._messages.raws(chunk)
        else:
            texts = [raw.text for raw in raw_records(chunk)]
        return texts if decoded.indexes is None else [texts[index] for index in decoded.indexes]

    def in_messages(self, chunk: Chunk, decoded: Decoded) -> list[InMessage] | None:
        """The message of each record of `decoded`; None when the chunk is not of messages."""
        if chunk.format != MESSAGES:
            return None
        messages = unpack_messages(chunk.payload)
        return [InMessage(messages[at], number) for at, number in _places(decoded)]

    def attributes(self, chunk: Chunk, decoded: Decoded) -> list[dict[str, str]] | None:
        """The attributes of each record's message, as `Mapper.map_chunk` takes them; None when there are no messages."""
        if chunk.format != MESSAGES:
            return None
        own = attributes_of(unpack(chunk.payload))
        one_each = decoded.starts is None and decoded.indexes is None
        return own if one_each else [own[at] for at, _ in _places(decoded)]

    def _by_message(self, chunk: Chunk) -> Decoded:
        """The records of messages of any kind."""
        found = _Found(chunk)
        starts: list[int] = []
        for of_message in self._messages.each(chunk):
            starts.append(found.count)
            found.add(of_message)
        return found.decoded(starts)

    def _each_json(self, chunk: Chunk) -> Iterator[Attempt]:
        return (attempt(raw, self._json_record, NOT_JSON) for raw in raw_records(chunk))

    def _json_record(self, raw: RawRecord) -> Any:
        return None if raw.problem else self._json.record(raw.text)

    def _each_csv(self, chunk: Chunk) -> Iterator[Attempt]:
        rows = unpack_rows(chunk.payload)
        header = self._csv.header(rows.header, rows.delimiter)

        def row(raw: RawRecord) -> Any:
            return self._csv.row(raw.text, header, rows.delimiter)

        return (attempt(raw, row, BAD_ROW) for raw in raw_records(chunk))


class _Found:
    """Gathers a chunk's records and those that are none."""

    def __init__(self, chunk: Chunk) -> None:
        self._position, self._format = chunk.position, chunk.format
        self._records: list[Any] = []
        self._indexes: list[int] = []
        self._undecodable: list[Undecodable] = []
        self.count = 0

    def add(self, records: Whole | Iterable[Attempt]) -> None:
        """Takes the next records of the chunk."""
        if isinstance(records, Whole):
            self._indexes += range(self.count, self.count + len(records.records))
            self._records += records.records
            self.count += len(records.records)
            return
        for raw, record, error in records:
            if error is None and not raw.problem:
                self._records.append(record)
                self._indexes.append(self.count)
            else:
                ref, why = record_ref(self._position, self.count), raw.problem or reason(error)
                self._undecodable.append(Undecodable(ref, raw.line, raw.offset, why, raw.text, self._format))
            self.count += 1

    def decoded(self, starts: list[int] | None = None) -> Decoded:
        """All of them."""
        return Decoded(self._records, self._indexes if self._undecodable else None, self._undecodable, starts)


def _places(decoded: Decoded) -> Iterator[tuple[int, int]]:
    """For each record, the index of its message in the chunk, and its own in the message."""
    starts = decoded.starts
    for index in range(len(decoded.records)) if decoded.indexes is None else decoded.indexes:
        if starts is None:
            yield index, 0
        else:  # of messages that start at the same record, all but the last have none
            at = bisect.bisect_right(starts, index) - 1
            yield at, index - starts[at]


def _one_by_one(chunk: Chunk, attempts: Iterator[Attempt]) -> Decoded:
    found = _Found(chunk)
    found.add(attempts)
    return found.decoded()


_MESSAGE: Final = re.compile(r"(.*?)(?: - at `(?:key` in `)?\$(?:\[\d+\])?\.?(.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TYPE: Final = re.compile(r"`([^`]*)`")


def reason(error: Exception | None) -> str:
    """Why a record is not what the schema says, in words: the field, what was expected and what was there."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start} of the record"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    message = str(error)
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        malformed = message.removeprefix("JSON is malformed: ")
        return "not JSON: " + malformed.replace("Input data was truncated", "it ends inside a value")
    if not isinstance(error, msgspec.ValidationError):
        return message
    found = _MESSAGE.fullmatch(message)
    what, path = (found.group(1), found.group(2) or "") if found else (message, "")
    missing = _MISSING.fullmatch(what)
    if missing:
        return f"{path}.{missing.group(1)}".lstrip(".") + ": required, but absent"
    if what.endswith(", got `null`"):
        return f"{path or 'the record'}: required, but empty"
    return f"{path or 'the record'}: {_TYPE.sub(_in_words, what[:1].lower() + what[1:])}"


def _in_words(name: re.Match[str]) -> str:
    return " or ".join(WORDS.get(part, part) for part in name.group(1).split(" | "))
