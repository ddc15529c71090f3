"""How a record is written: what it takes to decode one record that stands alone, away from its file."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from transforms.elements import Chunk
from transforms.sources import avro
from transforms.sources.messages import MESSAGES
from transforms.sources.records import unpack_rows

NOT_NEEDED: Final = frozenset(("doc", "aliases", "default", "order", "java-class", "avro.java.string"))
"""Of a writer's schema, what reading does not look at."""


class Form(NamedTuple):
    """How a record of a file is written."""

    format: str
    """As in `Chunk.format`; empty for a record of a message, which says itself how it is written."""
    header: bytes = b""
    """For CSV, the header row."""
    delimiter: str = ""
    """For CSV."""
    schema: bytes = b""
    """For Avro, the schema it was written with, as JSON without documentation."""


def form_of(chunk: Chunk) -> Form:
    """How the records of a chunk are written."""
    if chunk.format == "csv":
        rows = unpack_rows(chunk.payload)
        return Form("csv", rows.header, rows.delimiter)
    if chunk.format == "avro":
        return Form("avro", schema=_schema(avro.unpack_payload(chunk.payload)[0]))
    return Form("" if chunk.format == MESSAGES else chunk.format)


@lru_cache(maxsize=64)
def _schema(header: bytes) -> bytes:
    return msgspec.json.encode(_bare(avro.parse_header(header).schema))


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # Names are what a schema says too: a field may be called doc, but it is not a key then.
    return {key: _bare(value) for key, value in schema.items() if key not in NOT_NEEDED}
