"""Decoding: a chunk of raw records to typed records, one dead letter for each record that is not what the schema says.

The fast way takes a chunk as a whole. Only when that fails is it gone through record by record, so that a bad
record costs the others nothing but time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy

import schemas
from transforms.decode_avro import AvroDecoder
from transforms.decode_csv import BAD_ROW, CsvDecoder
from transforms.elements import Chunk, record_ref
from transforms.sources.json_values import ARRAY
from transforms.sources.messages import MESSAGES, Packed, unpack
from transforms.sources.records import Attempt, RawRecord, attempt, raw_records, unpack_rows

NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for text that is no JSON or breaks the schema; RecursionError for deep nesting."""

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
    """Byte offset in the (decompressed) file; for Avro, of the block."""
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


class Decoder:
    """Decodes chunks of any format to structs of a schema (`schemas.struct_type`).

    Make it where it is used (a DoFn's setup): it holds compiled decoders.
    """

    def __init__(self, schema: schemas.Schema) -> None:
        self.struct: type[msgspec.Struct] = schemas.struct_type(schema)
        decoder = msgspec.json.Decoder(self.struct)
        self._decode_line = decoder.decode
        self._decode_lines = decoder.decode_lines
        self._decode_array = msgspec.json.Decoder(list[self.struct]).decode  # type: ignore[name-defined]  # made at run time
        self._csv = CsvDecoder(schema, self.struct)
        self._avro = AvroDecoder(schema, self.struct)

    def decode(self, chunk: Chunk) -> Decoded:
        """The chunk's records. Never raises for what is in the payload."""
        if chunk.format == "json":
            records, each = self._lines(chunk.payload), self._each_json
        elif chunk.format == ARRAY:
            records, each = self._array(chunk.payload), self._each_json
        elif chunk.format == "csv":
            rows = unpack_rows(chunk.payload)
            header = self._csv.header(rows.header, rows.delimiter)
            records, each = self._csv.rows(rows.text, header, rows.delimiter), self._each_csv
        elif chunk.format == "avro":
            records, each = self._avro.all(chunk), self._avro.each
        elif chunk.format == MESSAGES:
            records, each = self._messages(unpack(chunk.payload)), self._each_json
        else:
            records, each = None, self._each_json
        return Decoded(records, None, []) if records is not None else _one_by_one(chunk, each(chunk))

    def raws(self, chunk: Chunk, decoded: Decoded) -> list[bytes]:
        """The records of `decoded` as they were written (Avro: as JSON text), for models that pass them on."""
        texts = [raw.text for raw in raw_records(chunk)]
        return texts if decoded.indexes is None else [texts[index] for index in decoded.indexes]

    def _lines(self, payload: bytes) -> list[Any] | None:
        """All records; None when one of them is bad, or they do not stand one on a line."""
        try:
            if not payload.isascii():
                payload.decode()  # fields that the schema does not name are passed over unchecked otherwise
            records = self._decode_lines(payload)
        except NOT_JSON:
            return None
        return records if one_a_line(payload, len(records)) else None

    def _messages(self, packed: Packed) -> list[Any] | None:
        """All records of messages that hold one each; None when one of them is bad, or they are anything else."""
        records = self._lines(packed.text) if packed.plain else None
        return records if records is not None and len(records) == packed.count else None

    def _array(self, payload: bytes) -> list[Any] | None:
        try:
            if not payload.isascii():
                payload.decode()
            return self._decode_array(b"[%b]" % payload)
        except NOT_JSON:
            return None

    def _each_json(self, chunk: Chunk) -> Iterator[Attempt]:
        return (attempt(raw, self._json_record, NOT_JSON) for raw in raw_records(chunk))

    def _json_record(self, raw: RawRecord) -> Any:
        if not raw.text.isascii():
            raw.text.decode()
        return None if raw.problem else self._decode_line(raw.text)

    def _each_csv(self, chunk: Chunk) -> Iterator[Attempt]:
        rows = unpack_rows(chunk.payload)
        header = self._csv.header(rows.header, rows.delimiter)

        def row(raw: RawRecord) -> Any:
            return self._csv.row(raw.text, header, rows.delimiter)

        return (attempt(raw, row, BAD_ROW) for raw in raw_records(chunk))


def _one_by_one(chunk: Chunk, attempts: Iterator[Attempt]) -> Decoded:
    records: list[Any] = []
    indexes: list[int] = []
    undecodable: list[Undecodable] = []
    for index, (raw, record, error) in enumerate(attempts):
        if error is None and not raw.problem:
            records.append(record)
            indexes.append(index)
            continue
        why = raw.problem or reason(error)
        undecodable.append(
            Undecodable(record_ref(chunk.position, index), raw.line, raw.offset, why, raw.text, chunk.format)
        )
    return Decoded(records, indexes if undecodable else None, undecodable)


def one_a_line(payload: bytes, count: int) -> bool:
    """Whether `count` JSON objects, one behind the other in payload, stand one on each line, without blank lines.

    JSON takes a line end for any other space, so decoding alone does not tell. Here each line end must have
    the end of an object before it and the start of one behind it: then none lies inside an object.
    """
    if not payload:
        return count == 0
    text = numpy.frombuffer(payload, numpy.uint8)
    ends = numpy.flatnonzero(text == 10)
    last = text[-1] == 10
    if len(ends) + (not last) != count or text[0] != 123:
        return False
    before = text[ends - 1]
    if not (before == 125).all():
        before_cr = text[ends[before == 13] - 2]
        if not ((before == 125) | (before == 13)).all() or not (before_cr == 125).all():
            return False
    return bool((text[(ends[:-1] if last else ends) + 1] == 123).all())


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
