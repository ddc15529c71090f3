"""Dead letters: their exact shape, the original bytes read again from where they came, and ids that stay the same."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from transforms import dead_letter, letter_stores
from transforms.dead_letter import REJECTED, UNDELIVERED, DeadLetterWriter, Failed, WriteDeadLettersFn
from transforms.elements import record_ref
from transforms.read import Part, chunks
from transforms.sources.formats import Layout
from transforms.sources.records import raw_records

VENDORS = {"my-teak": "teak", "12traits": "12traits"}
VERSIONS = {"my-teak": "m-4f1c", "12traits": "m-0001"}

RECORDS = [b'{"n": %d, "text": "%s"}' % (n, "grün ".encode() * (n % 7)) for n in range(300)]
RECORDS[17] = b'{"n": 17, "latin": "gr\xfcn"}'
RECORDS[18] = b"no JSON at all"


def refs(path: Path) -> list[int]:
    """References of a file's records, as reading gives them."""
    found = []
    for chunk in chunks(Part(str(path), 0, None), Layout()):
        found += [record_ref(chunk.position, index) for index, _ in enumerate(raw_records(chunk))]
    return found


def write(folder: Path, destination: str, failures: list[Failed], layout: Layout | None = None) -> list[dict[str, Any]]:
    """Writes dead letters and reads them back, files by name."""
    DeadLetterWriter(str(folder), VENDORS, VERSIONS, layout or Layout()).write(destination, failures)
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(RECORDS) + b"\n")
    return path


def test_the_shape_of_a_rejected_item(tmp_path: Path, source: Path) -> None:
    ref = refs(source)[4]
    failed = Failed(
        REJECTED, "user_id could not be found", str(source), ref, "event", "u1", 1_700_000_000_004,
        b'{"user_id":"u1","action_type":"spin"}', 200, '{"status":"error"}',
    )  # fmt: skip
    (letter,) = write(tmp_path / "dead", "my-teak", [failed])
    assert re.fullmatch("[0-9a-f]{32}", letter.pop("id"))
    written = letter.pop("at")
    at = datetime.datetime.fromisoformat(written)
    assert abs((datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()) < 60
    assert letter == {
        "destination": "my-teak",
        "vendor": "teak",
        "model": "event",
        "outcome": "rejected",
        "reason": "user_id could not be found",
        "status": 200,
        "answer": '{"status":"error"}',
        "user": "u1",
        "time": 1_700_000_000_004,
        "payload": {"user_id": "u1", "action_type": "spin"},
        "original": RECORDS[4].decode(),
        "source": {"name": str(source), "format": "json", "line": 5, "position": 0, "index": 4},
        "mapping": "m-4f1c",
        "failures": 1,
        "first": {"reason": "user_id could not be found", "at": written},
    }
    assert list(letter) == [
        "destination", "vendor", "model", "outcome", "reason", "status", "answer", "user", "time", "payload",
        "original", "source", "mapping", "failures", "first",
    ]  # fmt: skip


def test_the_shape_of_a_record_that_could_not_be_decoded(tmp_path: Path) -> None:
    failed = Failed(
        REJECTED, "undecodable: no JSON", "s.jsonl", record_ref(4096, 3), line=77, original=b"\xff{", format="json"
    )
    (letter,) = write(tmp_path / "dead", "12traits", [failed])
    del letter["id"]
    written = letter.pop("at")
    assert letter == {
        "destination": "12traits",
        "vendor": "12traits",
        "model": None,
        "outcome": "rejected",
        "reason": "undecodable: no JSON",
        "status": None,
        "answer": None,
        "user": None,
        "time": None,
        "payload": None,
        "original": {"base64": "/3s="},
        "source": {"name": "s.jsonl", "format": "json", "line": 77, "position": 4096, "index": 3},
        "mapping": "m-0001",
        "failures": 1,
        "first": {"reason": "undecodable: no JSON", "at": written},
    }


def stored(suffix: str, pack: Callable[[bytes], bytes], ending: bytes, start: bytes = b"") -> Any:
    return pytest.param(suffix, pack, ending, start, id=f"{suffix}-{ending!r}-{start!r}")


@pytest.mark.parametrize(
    ("suffix", "pack", "ending", "start"),
    [
        stored("", bytes, b"\n"),
        stored("", bytes, b"\r\n"),
        stored("", bytes, b"\n\n \n", b"\xef\xbb\xbf\n"),
        stored(".gz", gzip.compress, b"\n"),
        stored(".gz", gzip.compress, b"\r\n", b"\xef\xbb\xbf"),
        stored(".bz2", bz2.compress, b"\n"),
    ],
)
def test_original_bytes_are_read_again(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], ending: bytes, start: bytes
) -> None:
    path = tmp_path / f"events.jsonl{suffix}"
    text = start + ending.join(RECORDS)
    path.write_bytes(pack(text))
    found = refs(path)
    assert len(found) == len(RECORDS)
    wanted = [299, 0, 17, 18, 150, 4]
    failures = [Failed(UNDELIVERED, "HTTP 503", str(path), found[n], "event", payload=b"{}") for n in wanted]
    letters = write(tmp_path / "dead", "my-teak", failures)
    originals = [letter["original"] for letter in letters]
    assert originals.pop(2) == {"base64": "eyJuIjogMTcsICJsYXRpbiI6ICJncvxuIn0="}
    del wanted[2]
    assert [text.encode() for text in originals] == [RECORDS[n] for n in wanted]
    lines = {record: number for number, record in enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), 1)}
    assert [letter["source"]["line"] for letter in letters if isinstance(letter["original"], str)] == [
        lines[RECORDS[n]] for n in wanted
    ]


def test_records_of_several_files_and_chunks(tmp_path: Path) -> None:
    failures = []
    expected = []
    for name in "ab":
        path = tmp_path / f"{name}.jsonl"
        records = [b'{"file": "%s", "n": %d, "pad": "%s"}' % (name.encode(), n, b"x" * 5_000) for n in range(500)]
        path.write_bytes(b"\n".join(records))
        found = refs(path)
        assert found[499] != 499, "the file is one chunk only"
        for n in (0, 250, 499):
            failures.append(Failed(UNDELIVERED, "HTTP 503", str(path), found[n], "event", payload=b"{}"))
            expected.append((records[n].decode(), n + 1))
    letters = write(tmp_path / "dead", "my-teak", failures)
    assert [(letter["original"], letter["source"]["line"]) for letter in letters] == expected


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    failed = Failed(REJECTED, "HTTP 400", str(tmp_path / "gone.jsonl"), 0, "event", payload=b'{"a":1}')
    (letter,) = write(tmp_path / "dead", "my-teak", [failed])
    assert letter["original"] is None
    assert letter["payload"] == {"a": 1}


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a":[1,2.5,null]}', {"a": [1, 2.5, None]}),
        (b"no JSON", "no JSON"),
        (b"\xff\x00", {"base64": "/wA="}),
        (b"[" * 100_000, "[" * 100_000),
        (b'{"n":12345678901234567890123456789}', {"n": 12345678901234567890123456789}),
        (b'{\r\n  "a": "\xc3\xa4 \\n",\n  "b": [1,\n\n2]\n}\n', {"a": "ä \n", "b": [1, 2]}),
        (b'{"latin":"\xfc"}', {"base64": "eyJsYXRpbiI6IvwifQ=="}),
        (b'{"line":"\xe2\x80\xa8"}', {"line": "\u2028"}),
    ],
)
def test_payloads_of_any_kind(tmp_path: Path, payload: bytes, shown: Any) -> None:
    failed = Failed(REJECTED, "HTTP 400", "s", 0, "playfab", payload=payload, original=payload)
    (letter,) = write(tmp_path / "dead", "12traits", [failed])
    assert letter["payload"] == shown


def test_text_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    failed = Failed(
        REJECTED, "half a pair: \ud800", "caf\udce9.jsonl", 0, original=b"{}", answer="línea\u2028 two", payload=b"[1]"
    )
    (letter,) = write(tmp_path / "dead", "my-teak", [failed])
    assert (letter["reason"], letter["source"]["name"]) == ("half a pair: \\ud800", "caf\\udce9.jsonl")
    assert (letter["answer"], letter["payload"], letter["source"]["index"]) == ("línea\u2028 two", [1], 0)
    (file,) = (tmp_path / "dead").iterdir()
    file.read_text("utf-8")


def failed(n: int, outcome: str = REJECTED) -> Failed:
    return Failed(outcome, "HTTP 400", "s", n, "event", original=b"{}")


def test_files_by_outcome_and_destination(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    write(folder, "my-teak", [failed(1), failed(2, UNDELIVERED), failed(3)])
    write(folder, "12traits", [failed(4)])
    names = sorted(file.name for file in folder.iterdir())
    assert [name.rpartition("-")[0] for name in names] == [
        "rejected-12traits",
        "rejected-my-teak",
        "undelivered-my-teak",
    ]
    assert [len((folder / name).read_bytes().splitlines()) for name in names] == [1, 2, 1]


def test_many_letters_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_stores, "FILE_LETTERS", 10)
    letters = write(tmp_path / "dead", "my-teak", [failed(n) for n in range(25)])
    assert sorted(letter["source"]["index"] for letter in letters) == list(range(25))
    sizes = [len(file.read_bytes().splitlines()) for file in (tmp_path / "dead").iterdir()]
    assert sorted(sizes) == [5, 10, 10]


def test_a_letter_written_again_has_the_same_id(tmp_path: Path, source: Path) -> None:
    refs_ = refs(source)
    failures = [Failed(UNDELIVERED, "HTTP 503", str(source), refs_[n], "event", payload=b"{}") for n in range(50)]
    first = write(tmp_path / "one", "my-teak", failures)
    again = write(tmp_path / "two", "my-teak", [one._replace(reason="HTTP 500") for one in reversed(failures)])
    ids = [letter["id"] for letter in first]
    assert [letter["id"] for letter in again] == ids[::-1]
    assert len(set(ids)) == 50


def test_letters_of_something_else_have_another_id(tmp_path: Path, source: Path) -> None:
    at = refs(source)
    one = Failed(UNDELIVERED, "HTTP 503", str(source), at[4], "event", payload=b"{}")
    written = write(tmp_path / "a", "my-teak", [one, one._replace(model="other"), one._replace(ref=at[5])])
    written += write(tmp_path / "b", "12traits", [one])
    lines = source.read_bytes().splitlines()
    lines[4] = lines[4].replace(b"4", b"9")  # a file written anew under its name
    source.write_bytes(b"\n".join(lines))
    written += write(tmp_path / "c", "my-teak", [one])
    assert len({letter["id"] for letter in written}) == 5


def test_a_bundle_writes_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter, "HELD_FAILURES", 4)
    step = WriteDeadLettersFn(partial(DeadLetterWriter, str(tmp_path / "dead"), VENDORS, VERSIONS, Layout()))
    step.setup()
    for _ in range(2):
        step.start_bundle()
        for n in range(7):
            step.process(("my-teak", [failed(n)]))
        step.process(("12traits", [failed(n) for n in range(3)]))
        step.finish_bundle()
    for name, count in (("my-teak", 14), ("12traits", 6)):
        (file,) = (tmp_path / "dead").glob(f"rejected-{name}-*")
        assert len(file.read_bytes().splitlines()) == count


def test_a_destination_that_is_not_known_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        DeadLetterWriter(str(tmp_path), VENDORS, VERSIONS, Layout()).write("no such destination", [failed(1)])
    assert not list(tmp_path.iterdir())
