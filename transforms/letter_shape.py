"""The shape of dead letters, for writing and for reading them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

AVRO_BINARY, AVRO_JSON = "avro", "avro json"
"""`Source.format` of a record in Avro's binary and JSON encodings; others are those of `Chunk.format`."""

_as_it_is = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


class Base64(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes that are not UTF-8."""

    base64: str


Text = str | Base64

Ms = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
"""Of a time since 1970 UTC. Like other numbers in letters it may be anybody's, and has to be one that can be worked with."""
Failures = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Encoded(msgspec.Struct):
    """A record of an Avro container, as Avro's binary encoding has it."""

    record: str
    """Base64."""
    schema: msgspec.Raw
    """What it was written with."""


class OfMessage(msgspec.Struct):
    """The message that a record came in."""

    id: str
    ordering_key: str = ""
    published: Ms | None = None
    """In ms since 1970 UTC."""
    attributes: dict[str, str] = {}


class Source(msgspec.Struct):
    """Where a record came from, and what it takes to decode it again."""

    name: str
    """The file or the subscription."""
    format: str = ""
    """How the original is written: `json`, `array` (JSON over several lines), `csv`, `avro` (of a container: as JSON text; of
    a message: in Avro's binary encoding), `avro json`; `unreadable`: it is no record, but what stood where none could be
    read. Empty when that is not known."""
    line: int | None = None
    """1-based number in the file."""
    position: int | None = None
    """Byte offset in the file of the chunk that it was read with."""
    index: int | None = None
    """Its place in that chunk, or in its message."""
    header: Text | UnsetType = UNSET
    """Of CSV."""
    delimiter: str | UnsetType = UNSET
    """Of CSV."""
    avro: Encoded | UnsetType = UNSET
    """Of a record of an Avro container."""
    message: OfMessage | UnsetType = UNSET


class First(msgspec.Struct):
    """The first time that the same failed."""

    reason: str
    at: str


class Earlier(msgspec.Struct):
    """What a letter takes over from the one before, when a replayed record fails again."""

    id: str
    destination: str
    model: str | None
    failures: Failures
    first: First
    source: Source
    payload: msgspec.Raw = msgspec.Raw()
    mapping: str | None = None


class Letter(msgspec.Struct):
    """A dead letter as it is kept, its fields in this order.

    Bytes that are not UTF-8 stand as {"base64": …}.
    """

    id: str
    destination: str
    vendor: str
    model: str | None
    """None when the record could not be decoded: no model of the destination got anything of it."""
    outcome: str
    reason: str
    status: int | None
    """HTTP status of the vendor's answer."""
    answer: str | None
    user: str | None
    time: Ms | None
    """Of the event, in ms since 1970 UTC."""
    payload: msgspec.Raw
    """What was, or would have been, sent, as JSON; null when the record was not mapped."""
    original: Text | None
    """The record as it was written; None when its source could not be read again."""
    source: Source
    mapping: str | None
    """The mapping's version."""
    at: str
    """When it failed, ISO 8601."""
    failures: Failures
    """How often the same has failed."""
    first: First
    schema: str | UnsetType = UNSET
    """Of the payload: a model has another one where the vendor is sent to in another way."""
    cut: dict[str, int] | UnsetType = UNSET
    """Fields left out because the letter was too large for a message, and the bytes they had."""


def letter_id(destination: str, model: str, source: str, place: Sequence[str | int], record: bytes) -> str:
    """Names a dead letter: the same each time the same record of the same source fails at a destination's model.

    place: position and index in a file, or the message's id and the index in it. The record is a part of it because
    a file may be written anew under its name.
    """
    parts = msgspec.msgpack.encode((destination, model, source.encode("utf-8", "surrogateescape"), place, record))
    return hashlib.blake2b(parts, digest_size=16).hexdigest()


def as_text(data: bytes) -> Text:
    """Bytes as they stand in a letter."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(data).decode())


def as_bytes(text: Text) -> bytes:
    """The inverse of `as_text`. ValueError for what is no base64."""
    return text.encode() if isinstance(text, str) else base64.b64decode(text.base64, validate=True)


def as_json(payload: bytes | None) -> msgspec.Raw:
    """A payload as it stands in a letter: null for None, text where it is no JSON."""
    if payload is None:
        return msgspec.Raw(b"null")
    try:
        payload.decode()  # the check of JSON does not look into texts
        # A payload that is the record itself may stand on several lines.
        found: msgspec.Raw = _as_it_is(
            msgspec.json.format(payload, indent=-1) if b"\n" in payload or b"\r" in payload else payload
        )
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(_encode(as_text(payload)))


def as_line(letter: Letter) -> bytes:
    """A letter as a line of JSON."""
    try:
        return _encode(letter) + b"\n"
    except UnicodeEncodeError:  # the name of a file may be no Unicode
        return _encode(_unicode(letter)) + b"\n"


def _unicode(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(
            value, **{name: _unicode(inner) for name, inner in msgspec.structs.asdict(value).items()}
        )
    if isinstance(value, dict):
        return {_unicode(key): _unicode(inner) for key, inner in value.items()}
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
