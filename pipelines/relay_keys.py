"""The keys of a relay file: one table a level, read by the loader and by the JSON Schema's generator."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipelines import quantities
from transforms.located import Node, Problem, suggestion

PRESETS = ("canonical", "aws-game-analytics", "playfab")
FORMATS = ("json", "csv", "avro")
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
OWN_PREFIX = "x-"
"""Top-level keys that start so are the user's own: a place for anchors."""


class Wrong(Exception):
    """A value that is not what its key takes; the text says what was expected."""


@dataclass(frozen=True)
class Kind:
    """A kind of value: how it is read, and its JSON Schema."""

    read: Callable[[Node], Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """A key of the relay file. `default` is what the reader is told, as text; `keys` are those of a table below it."""

    name: str
    kind: Kind
    doc: str
    default: str = ""
    keys: tuple[Key, ...] = ()
    examples: tuple[Any, ...] = ()


def _text(node: Node) -> str:
    if not isinstance(node.value, str) or not node.value.strip():
        raise Wrong(f"expected text, found {_found(node)}")
    return node.value


def _id(node: Node) -> str:
    """Text that may look like a number: a version 1.0, an id 007. It is taken as written."""
    return node.text if type(node.value) in (int, float) else _text(node)


def _boolean(node: Node) -> bool:
    if not isinstance(node.value, bool):
        raise Wrong(f"expected true or false, found {_found(node)}")
    return node.value


def _number(node: Node) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise Wrong(f"expected a number, found {_found(node)}")
    return node.value


def _map(node: Node) -> Node:
    if not isinstance(node.value, dict):
        raise Wrong(f"expected a map (key: value), found {node.kind}")  # never the value: it may be a secret
    return node


def _texts(node: Node) -> tuple[str, ...]:
    if not isinstance(node.value, list) or not node.value:
        raise Wrong(f"expected a list such as [one, two], found {_found(node) if node.value else 'an empty one'}")
    for item in node.value:
        if not isinstance(item.value, str):
            raise Wrong(f"expected a list of names, found {_found(item)} in it")
    return tuple(str(item.value) for item in node.value)


def whole(least: int, most: int) -> Kind:
    """A whole number between the two, both included."""

    def read(node: Node) -> int:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"expected a whole number, found {_found(node)}")
        if not least <= value <= most:
            raise Wrong(f"expected a whole number from {least:,} to {most:,}, found {value:,}")
        return value

    return Kind(read, {"type": "integer", "minimum": least, "maximum": most})


def choice(*choices: str) -> Kind:
    """One of the words."""

    def read(node: Node) -> str:
        if not isinstance(node.value, str):
            raise Wrong(f"expected one of {', '.join(choices)}, found {_found(node)}")
        if node.value not in choices:
            raise Wrong(f"no such choice: {clip(node.value)}{suggestion(node.value, choices)}")
        return node.value

    return Kind(read, {"type": "string", "enum": list(choices)})


def duration(least_s: float = 0.0, most_s: float = 30 * 86_400.0) -> Kind:
    """Seconds, written with a unit."""

    def read(node: Node) -> float:
        seconds = _quantity(quantities.duration, node)
        if not least_s <= seconds <= most_s:
            raise Wrong(f"expected a duration from {least_s:g}s to {most_s:g}s, found {seconds:g}s")
        return float(seconds)

    pattern = f"^{quantities.DURATION_PATTERN}$"
    text = {"type": "string", "pattern": pattern}
    return Kind(read, text if least_s > 0 else {"anyOf": [text, {"const": 0}]})


def size(least: int, most: int) -> Kind:
    """Bytes, written as a number or with a unit."""

    def read(node: Node) -> int:
        count: int = _quantity(quantities.size, node)
        if not least <= count <= most:
            shown = f"{quantities.show_size(least)} to {quantities.show_size(most)}"
            raise Wrong(f"expected a size from {shown}, found {quantities.show_size(count)}")
        return count

    pattern = f"^{quantities.BYTES_PATTERN}$"
    number = {"type": "integer", "minimum": least, "maximum": most}
    return Kind(read, {"anyOf": [{"type": "string", "pattern": pattern}, number]})


def _rate(node: Node) -> float | None:
    per_second: float | None = _quantity(quantities.rate, node)
    return per_second


def _delimiter(node: Node) -> str:
    value = "\t" if node.value == "tab" else node.value
    if not isinstance(value, str) or len(value) != 1 or not (value == "\t" or " " < value <= "~") or value in "\"'\\":
        raise Wrong(f'expected one character such as ";" or "|", or tab, found {_found(node)}')
    if value.isalnum():
        raise Wrong(f"expected a character that is no letter or digit, found {_found(node)}")
    return value


def _url(node: Node) -> str:
    """Base URL without its trailing slash. The value is never part of a message: it may hold a password."""
    value = node.value
    if not isinstance(value, str):
        raise Wrong("expected a URL such as https://api.example.com/prefix")
    if re.search(r"[^\x21-\x7e]|[\\<>\"{}|^`]", value):
        raise Wrong(
            "expected a URL of printable ASCII characters without spaces; write others as %XX, hosts in punycode"
        )
    try:
        parts = urlsplit(value)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise Wrong(
            "expected a URL such as https://api.example.com:8443/prefix; its host or port is not valid"
        ) from error
    if parts.scheme not in ("http", "https"):
        raise Wrong("expected a URL that starts with https:// (or http:// to this machine)")
    if "@" in parts.netloc:
        raise Wrong("a URL must hold no user name or password; credentials go under credentials:")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+", host) or port == 0:
        raise Wrong("expected a URL with a host, such as https://api.example.com/prefix")
    if "?" in value or "#" in value:
        raise Wrong("a base URL has no query (?) and no fragment (#); the vendor's paths are added to it")
    return value.rstrip("/")


def plain_http(url: str) -> bool:
    """Whether the URL would send over plain HTTP to another machine."""
    return urlsplit(url).scheme == "http" and not loopback(url)


def loopback(url: str) -> bool:
    """Whether the URL is of this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


def _quantity(read: Callable[[object], Any], node: Node) -> Any:
    try:
        return read(node.value)
    except ValueError as error:
        found = f", found {clip(node.text)}" if isinstance(node.value, str) else ""
        raise Wrong(f"{error}{found}") from error


def _found(node: Node) -> str:
    if isinstance(node.value, str):
        return clip(node.value) if node.value.strip() else "empty text"
    if isinstance(node.value, bool | int | float):
        return clip(node.text)
    return node.kind


def clip(text: str) -> str:
    """A short form of a user's text for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


TEXT = Kind(_text, {"type": "string", "minLength": 1})
ID = Kind(_id, {"type": ["string", "number"], "minLength": 1})
BOOLEAN = Kind(_boolean, {"type": "boolean"})
NUMBER = Kind(_number, {"type": "number"})
MAP = Kind(_map, {"type": "object"})
TEXTS = Kind(_texts, {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True})
RATE = Kind(_rate, {"type": "string", "pattern": f"^({quantities.RATE_PATTERN})$"})
DELIMITER = Kind(_delimiter, {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 1}, {"const": "tab"}]})
URL = Kind(_url, {"type": "string", "pattern": "^https?://[^?#@\\s]+$"})

TOP = (
    Key("source", MAP, "Where records come from and what they look like."),
    Key("destinations", MAP, "The vendors to send to, by a name of your choice."),
    Key(
        "allow_literal_secrets",
        BOOLEAN,
        "Accept secrets written in this file, with a warning. For trying only.",
        "false",
    ),
)

DEDUPE = (
    Key(
        "by", choice("id", "message"),
        "What makes two the same: the event's event_id, or the Pub/Sub message's id and the record's place in it.", "id",
    ),
    Key("within", duration(1.0, 7 * 86_400.0), "How long what was seen is remembered.", "10m", examples=("10m",)),
)  # fmt: skip

SOURCE = (
    Key("preset", choice(*PRESETS), "A known source: its schema and its mapping to the canonical event."),
    Key("schema", TEXT, "Avro schema (.avsc) of one record; a path relative to this file.", "the preset's"),
    Key("format", choice(*FORMATS), "How files are written.", "guessed from each file's name"),
    Key("delimiter", DELIMITER, "Between the columns of CSV.", "a comma; a tab in .tsv files", examples=(";", "tab")),
    Key(
        "event", MAP, "Hop one: from your record to the canonical event. With a preset, what differs from it.", "the preset's"
    ),
    Key(
        "max_record", size(1, 1024**3), "A longer record is a dead letter instead of filling the memory.", "10MB",
        examples=("10MB",),
    ),
    Key("dedupe", MAP, "Leave out events that came a short time ago.", "nothing is left out", keys=DEDUPE),
)  # fmt: skip

BATCH = (
    Key("by", choice("vendor", "user"), "What a request holds: items of all users, or of one.", "the vendor's"),
    Key("items", whole(1, 1_000_000), "Most items a request.", "the vendor's limit"),
    Key("bytes", size(1_000, 1024**3), "Largest body of a request, exactly counted.", "the vendor's limit", examples=("1MB",)),
    Key("window", duration(0.001), "Event time a request may span; requests never cross its edge.", "none", examples=("1m",)),
    Key("age", duration(0.001, 3600.0), "Streaming: the longest an item waits for its batch to fill.", "1s", examples=("5s",)),
)  # fmt: skip

RETRY = (
    Key(
        "for", duration(), "How long a request is tried again before its items count as undelivered; 0 for never.", "5m",
        examples=("5m",),
    ),
)  # fmt: skip

PARK = (
    Key(
        "max", size(1_000_000, 1024**5), "Most bytes that may wait on disk; beyond, nothing is pulled until they are fewer.",
        "10GB", examples=("10GB",),
    ),
)  # fmt: skip

TIMEOUT = (
    Key("connect", duration(0.001, 3600.0), "To connect.", "10s", examples=("10s",)),
    Key("total", duration(0.001, 3600.0), "From connecting to the answer's last byte.", "60s", examples=("60s",)),
)

DESTINATION = (
    Key("vendor", TEXT, "Which vendor this is, when the name does not say it."),
    Key("credentials", MAP, "References to credentials, by the vendor's names for them."),
    Key("url", URL, "Base URL in place of the vendor's; a path prefix is kept.", "the vendor's"),
    Key("models", TEXTS, "Which of the vendor's models to send.", "all that have a mapping"),
    Key("map", MAP, "Hop two: what differs from the shipped mapping, model by model, field by field.", "the shipped one"),
    Key("batch", MAP, "How items are put together into requests.", keys=BATCH),
    Key("shards", whole(1, 4096), "Groups of users; each group has one request in flight at a time.", "16"),
    Key("rate", RATE, "Most requests a second, over all workers.", "the vendor's limit", examples=("100/s", "unlimited")),
    Key("retry", MAP, "Trying again after a network error, 408, 429 or 5xx.", keys=RETRY),
    Key("park", MAP, "Streaming: what waits on disk while the vendor is down or slow.", keys=PARK),
    Key("timeout", MAP, "When an answer is given up.", keys=TIMEOUT),
    Key("gzip", BOOLEAN, "Send compressed request bodies.", "true where the vendor takes them"),
    Key("allow_insecure", BOOLEAN, "Allow plain HTTP to another machine.", "false"),
)  # fmt: skip


def unknown_key(name: str, node: Node, keys: tuple[Key, ...], also: tuple[str, ...] = ()) -> Problem:
    """The problem of a key that its table does not have, with the nearest one or the table it belongs in."""
    known = (*(key.name for key in keys), *also)
    for table in keys:
        if any(key.name == name for key in table.keys):
            return node.key_problem(f"unknown key; {name} belongs under {table.name}:")
    return node.key_problem(f"unknown key{suggestion(name, known)}")


def read_table(node: Node, keys: tuple[Key, ...], problems: list[Problem]) -> dict[str, Any]:
    """The values of a map by key, read by their kinds; tables below it as dicts. Absent and faulty keys are left out.

    Keys that the table does not have are the caller's to judge.
    """
    values: dict[str, Any] = {}
    children = node.value if isinstance(node.value, dict) else {}
    for key in keys:
        child = children.get(key.name)
        if child is None:
            continue
        try:
            values[key.name] = key.kind.read(child)
        except Wrong as wrong:
            problems.append(child.problem(str(wrong)))
            continue
        if key.keys:
            values[key.name] = read_table(child, key.keys, problems)
            below = child.value if isinstance(child.value, dict) else {}
            for name, grandchild in below.items():
                if all(name != known.name for known in key.keys):
                    problems.append(unknown_key(name, grandchild, key.keys))
    return values


def absolute(path: str, folder: str) -> str:
    """A path of the relay file, relative to the file's folder."""
    return os.path.join(folder, os.path.expanduser(path))
