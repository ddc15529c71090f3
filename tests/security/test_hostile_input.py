"""Ids, names and values that no one would send on purpose: they arrive as they are, or are dead letters that hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import CONTROL, call, relay_file

from sandbox.server import Running

VENDORS = ("12traits", "traitly", "parcelvoy", "swrve", "teak")

TEXTS = {
    "quotes": "a\"b'c`d\\e",
    "newlines": "one\ntwo\r\nthree\u2028four",
    "nul": "a\x00b",
    "controls": "\x1b[31mred\x07\x08\x7f\x9b",
    "right-to-left": "abc\u202edef\u2066ghi",
    "sql": "'; DROP TABLE segments; --",
    "template": "{user_id} $user_id ${HOME} %s",
    "url": "a&b=c?d#e/../f;g+h%20",
    "emoji": "\U0001f3ae\U0001f468\u200d\U0001f469\u200d\U0001f467 é e\u0301",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "1 MiB": "x" * (1 << 20),
}


def record(**fields: object) -> bytes:
    """A canonical event as JSON text in UTF-8."""
    event = {"event_type": "spin", "event_timestamp": 1_764_000_000_000, "user_id": "u1", **fields}
    return json.dumps(event, ensure_ascii=False).encode()


RECORDS: dict[str, bytes] = {}
for name, text in TEXTS.items():
    RECORDS[f"user: {name}"] = record(user_id=text)
    RECORDS[f"type: {name}"] = record(event_type=text, user_id=f"of type: {name}")
    RECORDS[f"value: {name}"] = record(params={"k": text}, user_id=f"of value: {name}")
    RECORDS[f"key: {name}"] = record(params={text: "v"}, user_id=f"of key: {name}")
RECORDS |= {
    "lone surrogate": rb'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"a\ud800b"}',
    "lone surrogate in a value": rb'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"k":"\udfff"}}',
    "surrogate bytes": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"\xed\xa0\x80"}',
    "beyond 64 bits": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":%d}}' % 2**80,
    "user beyond 64 bits": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":%d}' % 2**80,
    "time beyond 64 bits": b'{"event_type":"spin","event_timestamp":%d,"user_id":"u"}' % 2**80,
    "beyond a double": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":1e999}}',
    "NaN": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":NaN}}',
    "infinity": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":-Infinity}}',
    "nested": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":%b}}'
    % (b"[" * 5_000 + b"]" * 5_000),
    "nested a little": b'{"event_type":"spin","event_timestamp":1764000000000,"user_id":"u","params":{"n":%b}}'
    % (b"[" * 50 + b"]" * 50),
    "twice": b'{"event_type":"spin","event_type":"win","event_timestamp":1764000000000,"user_id":"u"}',
}


class Relayed(NamedTuple):
    """What became of all the records, each between two harmless ones, in one run."""

    items: dict[str, list[dict[str, Any]]]
    """Vendor -> what it took."""
    letters: dict[tuple[str, int], list[dict[str, Any]]]
    """(vendor, line) -> dead letters."""


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory, running: Running) -> Relayed:
    folder = tmp_path_factory.mktemp("hostile")
    file, relay, dead, report = (folder / part for part in ("e.ndjson", "relay.yaml", "dead", "report.json"))
    lines = [
        line
        for number, of in enumerate(RECORDS)
        for line in (record(user_id=f"before {number}"), RECORDS[of], record(user_id=f"after {number}"))
    ]
    file.write_bytes(b"\n".join(lines) + b"\n")
    relay.write_text(relay_file(VENDORS, running.url), encoding="utf-8")
    running.reset()
    result = call("run", relay, "--input", file, "--dead-letters", dead, "--report", report)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output.replace("\n", ""))
    assert running.violations() == []
    told = json.loads(report.read_text("utf-8"))
    assert told["records"]["read"] == len(lines)
    assert told["balanced"] is True
    found = Relayed({slug: running.items(slug) for slug in VENDORS}, {})
    for path in dead.glob("*.jsonl"):
        for letter in map(json.loads, path.read_bytes().splitlines()):
            found.letters.setdefault((letter["destination"], letter["source"]["line"]), []).append(letter)
    for slug in VENDORS:
        one = told["destinations"][slug]
        assert one["delivered"] + one["filtered"] + one["rejected"] == len(lines)
        assert one["delivered"] == len(found.items[slug])
        assert one["rejected"] == sum(len(own) for (to, _), own in found.letters.items() if to == slug)
    assert all(line % 3 == 2 for _, line in found.letters), "a harmless one"
    return found


@pytest.mark.parametrize("name", RECORDS)
def test_it_arrives_or_is_a_dead_letter(name: str, relayed: Relayed) -> None:
    """At every vendor, and nothing that it is among is lost by it."""
    number = list(RECORDS).index(name)
    for slug in VENDORS:
        users = {item["user"] for item in relayed.items[slug]}
        assert {f"before {number}", f"after {number}"} <= users
        own = relayed.letters.get((slug, 3 * number + 2), [])
        taken = [item for item in relayed.items[slug] if item["user"] == f"of {name}"]
        if own:
            (letter,) = own
            assert letter["reason"]
            original = letter["original"]
            assert original is None or isinstance(original, dict) or original.encode() == RECORDS[name]
            assert taken == []
        elif name.startswith("user: "):
            assert TEXTS[name[6:]] in users, "it arrived as something else"
        elif name.startswith("value: ") and slug in ("12traits", "parcelvoy", "swrve"):
            assert TEXTS[name[7:]] in set(texts([item["item"] for item in taken])), "it arrived as something else"


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def test_what_is_shown_of_it_does_not_act_on_a_terminal(tmp_path: Path, sandbox: Running) -> None:
    file, relay, dead = tmp_path / "e.ndjson", tmp_path / "relay.yaml", tmp_path / "dead"
    file.write_bytes(
        b"\n".join((record(user_id="\x1b]0;owned\x07"), b'{"\x1b[2J', record(event_type="\x9b31m"))) + b"\n"
    )
    relay.write_text(relay_file(("teak",), sandbox.url), encoding="utf-8")
    sandbox.configure("teak", unknown_users=["\x1b]0;owned\x07"])
    shown = [
        call("preview", relay, "--input", file).output,
        call("run", relay, "--input", file, "--dead-letters", dead).output,
        call("dead-letters", dead).output,
        call("replay", relay, "--from", dead, "--dry-run").output,
    ]
    for text in shown:
        assert not re.search(CONTROL, text.replace("\n", "")), repr(text)
