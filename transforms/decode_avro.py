"""Avro container chunks to typed records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

import schemas
from transforms.elements import Chunk
from transforms.sources import avro
from transforms.sources.avro_records import BAD_RECORD, ReadRecords, compile_records, fields_of
from transforms.sources.records import (
    BAD_BLOCK,
    Attempt,
    RawRecord,
    attempt,
    avro_records,
    decompress,
    raw_records,
    surrogates,
)

LEARNED_FROM: Final = 4_000
"""Records of a file after which it pays to make its reader again, for the fields that its records have."""
MAX_PLANS: Final = 64
"""Headers remembered; each file of a writer has its own, as the sync marker is in it."""


class Plan(NamedTuple):
    """How the containers with one header are read."""

    codec: str
    wanted: ReadRecords | None
    """Reads the fields that the relay's schema has, under its names."""
    whole: ReadRecords | None
    """Reads all fields, under the relay's names, and text that is not UTF-8 too."""
    refused: str
    """Why the file's schema does not fit; empty when it does."""
    schema: Any = None
    """The file's, with the relay's names."""
    read: int = 0
    """Records that were read, up to LEARNED_FROM."""


class AvroDecoder:
    """Decodes the payloads of Avro chunks to structs of a schema."""

    def __init__(self, schema: schemas.Schema, struct: type[msgspec.Struct]) -> None:
        self._schema, self._struct = schema, struct
        self._list: Any = list[struct]  # type: ignore[valid-type]  # a type made at run time
        self._plans: dict[bytes, Plan] = {}

    def all(self, chunk: Chunk) -> list[Any] | None:
        """All records of the chunk; None when one of them is bad, or the file's schema does not fit."""
        header, text = avro.unpack_payload(chunk.payload)
        plan = self._plan(header, chunk.source)
        if plan.wanted is None:
            return None
        records: list[Any] = []
        try:
            for _, count, stored in avro.blocks_of(text):
                data = decompress(plan.codec, stored)
                found: list[Any] = []  # converted block by block, so that the garbage collector sees few dicts
                if plan.wanted(data, count, found) != len(data):
                    return None
                records += msgspec.convert(found, self._list)
        except (*BAD_RECORD, *BAD_BLOCK):  # msgspec.ValidationError is a ValueError
            return None
        if plan.read < LEARNED_FROM and records:
            self._plans[header] = self._learned(plan, plan.read + len(records), found)
        return records

    def _learned(self, plan: Plan, read: int, records: list[Any]) -> Plan:
        """A plan once so many records were read, of which the last are given."""
        if read < LEARNED_FROM:
            return plan._replace(read=read)
        wanted = compile_records(plan.schema, self._schema.type, seen=fields_of(records))
        return plan._replace(read=read, wanted=wanted)

    def each(self, chunk: Chunk) -> Iterator[Attempt]:
        """The records one by one."""
        plan = self._plan(avro.unpack_payload(chunk.payload)[0], chunk.source)
        if plan.whole is None:
            for raw in raw_records(chunk):
                yield raw, None, ValueError(plan.refused)
            return
        # The same bytes, once under the file's names for the record as written, once under the relay's.
        for raw, renamed in zip(raw_records(chunk), avro_records(chunk, plan.codec, plan.whole), strict=True):
            found = attempt(renamed, self._record, (msgspec.ValidationError,))
            yield raw, found[1], found[2]

    def _record(self, raw: RawRecord) -> Any:
        return None if raw.problem else msgspec.convert(raw.values, self._struct)

    def _plan(self, header: bytes, source: str) -> Plan:
        if header not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[header] = self._make_plan(avro.parse_header(header), source)
        return self._plans[header]

    def _make_plan(self, header: avro.Header, source: str) -> Plan:
        try:
            schemas.resolve(header.schema, self._schema, source)
            schema = schemas.as_read(header.schema, self._schema)
            wanted = compile_records(schema, self._schema.type)
            return Plan(header.codec, wanted, compile_records(schema, decode=surrogates, ends=True), "", schema)
        except (ValueError, RecursionError) as error:  # SchemaError is a ValueError
            return Plan(header.codec, None, None, str(error))
