"""Messages to typed records. One that is bad costs the others nothing but time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

import schemas
from transforms.decode_avro import AvroDecoder
from transforms.decode_csv import BAD_ROW, CsvDecoder
from transforms.decode_json import NOT_JSON, JsonDecoder
from transforms.elements import Chunk
from transforms.sources.avro_json import Plain, compile_plain
from transforms.sources.avro_records import BAD_RECORD, ReadRecords, compile_records
from transforms.sources.files import Corrupt
from transforms.sources.lines import count_newlines
from transforms.sources.message_records import Piece, bare, content, pieces
from transforms.sources.messages import (
    ENCODING,
    MAX_MESSAGE_RECORDS,
    Again,
    Packed,
    lengths_of,
    parts_of,
    unpack,
)
from transforms.sources.records import Attempt, RawRecord, attempt, container_chunk, json_text, raw_records

_BAD: Final = (*NOT_JSON, *BAD_ROW)
"""What decoding one record of a message may raise."""

_ENCODINGS: Final = {"avro": "BINARY", "avro json": "JSON"}
"""How the data of a record relayed again is encoded, by its format."""

_any = msgspec.json.Decoder().decode


class Whole(NamedTuple):
    """The records of a message, all of which were decoded."""

    records: list[Any]


class MessageDecoder:
    """Decodes the payloads of message chunks to structs of a schema."""

    def __init__(
        self,
        schema: schemas.Schema,
        struct: type[msgspec.Struct],
        json: JsonDecoder,
        csv: CsvDecoder,
        avro: AvroDecoder,
    ) -> None:
        self._schema, self._struct, self._json, self._csv, self._avro = schema, struct, json, csv, avro
        self._read: ReadRecords | None = None
        self._plain: Plain | None = None

    def all(self, packed: Packed) -> list[Any] | None:
        """All records of messages that hold one JSON object each; None when one of them is bad, or something else."""
        if not packed.plain:
            return None
        text = packed.text
        if text.endswith(b"\n\n"):  # messages end with line ends of their own; an empty one would not be noticed then
            if 0 in lengths_of(packed):
                return None
            text = text.replace(b"\n\n", b"\n")
        records = self._json.lines(text)
        return records if records is not None and len(records) == packed.count else None

    def each(self, chunk: Chunk) -> Iterator[Whole | list[Attempt]]:
        """Message by message, its records, or attempts at them when one of them is bad."""
        for data, attributes, again in parts_of(unpack(chunk.payload)):
            if again is not None and again.schema:
                yield list(self._avro.each(container_chunk(chunk, data, again)))
                continue
            records = None if again is not None else self._whole(data, attributes)
            if records is not None:
                yield Whole(records)
                continue
            decode = self._decoder(attributes, again)
            yield [self._attempt(piece, chunk.position, decode) for piece in pieces(data, attributes, again)]

    def raws(self, chunk: Chunk) -> list[bytes]:
        """The text of each record as a vendor can take it: what is encoded by Avro's rules becomes plain JSON."""
        texts: list[bytes] = []
        for data, attributes, again in parts_of(unpack(chunk.payload)):
            if again is not None and again.schema:
                texts += [raw.text for raw in raw_records(container_chunk(chunk, data, again))]
                continue
            values = self._values(attributes, again)
            for piece in pieces(data, attributes, again):
                texts.append(piece.text if values is None else _text(piece, values))
        return texts

    def _whole(self, data: bytes, attributes: Mapping[str, str]) -> list[Any] | None:
        """The records of a message of plain JSON; None when one of them is bad, or it is something else."""
        if ENCODING in attributes:
            return None
        try:
            text = bare(content(data, attributes))
        except Corrupt:
            return None
        if text.startswith(b"["):
            return None if text.count(b"{") > MAX_MESSAGE_RECORDS else self._json.array(text)
        try:
            return [self._json.record(text)]
        except NOT_JSON:
            return self._json.lines(text) if 0 < count_newlines(text) < MAX_MESSAGE_RECORDS else None

    def _attempt(self, piece: Piece, position: int, decode: Callable[[bytes], Any]) -> Attempt:
        raw = RawRecord(position, 0, piece.text, piece.problem)
        return (raw, None, None) if piece.problem else attempt(raw, lambda raw: decode(raw.text), _BAD)

    def _decoder(self, attributes: Mapping[str, str], again: Again | None) -> Callable[[bytes], Any]:
        """What decodes one record of a message with these attributes. It may raise one of _BAD."""
        values = self._values(attributes, again)
        if values is not None:
            return lambda text: msgspec.convert(values(text), self._struct)
        if again is not None and again.format == "csv":
            header = self._csv.header(again.header, again.delimiter)
            return lambda text: self._csv.row(text, header, again.delimiter)
        return self._json.record

    def _values(self, attributes: Mapping[str, str], again: Again | None) -> Callable[[bytes], Any] | None:
        """What makes plain values of a record that is encoded by Avro's rules; None when it is not."""
        encoding = attributes.get(ENCODING) if again is None else _ENCODINGS.get(again.format)
        if encoding == "BINARY":
            return self._binary
        return self._avro_json if encoding == "JSON" else None

    def _binary(self, data: bytes) -> Any:
        if self._read is None:
            self._read = compile_records(self._schema.avro, self._schema.type)
        found: list[Any] = []
        try:
            end = self._read(data, 1, found)
        except UnicodeDecodeError as error:
            raise ValueError("a text is not UTF-8") from error
        except BAD_RECORD as error:
            raise ValueError(f"not an Avro binary record of the source's schema ({error})") from error
        if end != len(data):
            raise ValueError(f"not an Avro binary record of the source's schema ({len(data) - end:,} bytes follow it)")
        return found[0]

    def _avro_json(self, text: bytes) -> Any:
        if self._plain is None:
            self._plain = compile_plain(self._schema.avro)
        if not text.isascii():
            text.decode()
        return self._plain(_any(text))


def _text(piece: Piece, values: Callable[[bytes], Any]) -> bytes:
    try:
        return json_text(values(piece.text))
    except _BAD:
        return b""  # it has no record either, so nobody asks for it
