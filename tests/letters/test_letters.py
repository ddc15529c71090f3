"""Reading letters back: each once, the latest, from any place; what is no letter is said and passed over."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from remote_folder import PREFIX

from transforms import letters
from transforms.dead_letter import REJECTED, DeadLetterWriter, Failed
from transforms.letter_shape import Letter
from transforms.letter_stores import LetterError
from transforms.letters import all_letters, letter_of, payload_of, read_letters
from transforms.sources.formats import Layout


def writer(location: object) -> DeadLetterWriter:
    return DeadLetterWriter(str(location), {"teak": "teak"}, {"teak": "m-1"}, Layout())


def failed(n: int, **fields: Any) -> Failed:
    original = json.dumps({"n": n}).encode()
    return Failed(REJECTED, "HTTP 400", "s", n, "event", original=original, format="json")._replace(**fields)


def read(location: object) -> tuple[list[Letter], list[str]]:
    skipped: list[str] = []
    return list(read_letters(str(location), skipped.append)), skipped


def numbers(letters: list[Letter]) -> list[int]:
    return [json.loads(str(letter.original))["n"] for letter in letters]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    out = writer(tmp_path / "dead")
    failures = [
        failed(n, payload=b'{"n":%d}' % n, user=f"u{n}", status=400, answer="no", time_ms=n) for n in range(1, 300)
    ]
    out.write("teak", failures[:200])
    out.write("teak", failures[200:])
    letters, skipped = read(tmp_path / "dead")
    assert not skipped
    assert numbers(letters) == list(range(1, 300))
    made = out.letters("teak", failures)
    for one, same in zip(letters, made, strict=True):
        same.at = same.first.at = one.at
        assert msgspec.json.encode(one) == msgspec.json.encode(same)
        assert payload_of(one) == b'{"n":%d}' % one.time  # type: ignore[str-bytes-safe]


def test_a_letter_written_twice_is_read_once(tmp_path: Path) -> None:
    out = writer(tmp_path)
    for _ in range(3):
        out.write("teak", [failed(n) for n in range(5)])
        out.write("teak", [failed(n, outcome="undelivered") for n in range(5, 8)])
    assert sorted(numbers(read(tmp_path)[0])) == list(range(8))


def test_the_latest_of_a_letter_stands_for_the_earlier_ones(tmp_path: Path) -> None:
    """Wherever it is in the folder: before, behind, or twice; one failure of a later run is later than three before."""
    base = writer(tmp_path).letters("teak", [failed(1)])[0]
    for name, counts in (("a", [2, 1, 3]), ("b", [3, 1, 2, 3])):
        lines = [msgspec.json.encode(msgspec.structs.replace(base, failures=count)) for count in counts]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    (letter,) = read(tmp_path)[0]
    assert letter.failures == 3
    anew = msgspec.structs.replace(base, first=msgspec.structs.replace(base.first, at="2999"))
    (tmp_path / "aa.jsonl").write_bytes(msgspec.json.encode(anew))
    (letter,) = read(tmp_path)[0]
    assert (letter.failures, letter.first.at) == (1, "2999")


def test_what_is_written_while_reading_is_not_given(tmp_path: Path) -> None:
    """Else what a replay writes where it reads would be replayed again and again."""
    out = writer(tmp_path)
    out.write("teak", [failed(n) for n in range(10)])
    found = []
    for letter in read_letters(str(tmp_path)):
        found.append(letter)
        out.write("teak", [failed(100 + len(found))])
        more = msgspec.structs.replace(letter, failures=2)
        with (tmp_path / "rejected-teak-000001.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(more) + b"\n")
    assert sorted(numbers(found)) == list(range(10))
    assert sorted(numbers(read(tmp_path)[0])) == [*range(10), *range(101, 111)]


def test_foreign_and_torn_lines_are_said_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer(tmp_path).write("teak", [failed(1), failed(2)])
    file = tmp_path / "rejected-teak-000001.jsonl"
    good = file.read_bytes().splitlines()
    lines = [
        good[0], b"", b"  ", b"nonsense", b'{"event_type":"spin"}', b"[" * 100_000, b'"\xff"', b"7",
        good[1].replace(b'"rejected"', b'"kept"'), good[1].replace(b'"failures":1', b'"failures":"1"'), good[1], good[0][:-9],
    ]  # fmt: skip
    file.write_bytes(b"\n".join(lines))
    (tmp_path / ".hidden.jsonl").write_text("nonsense\n")
    (tmp_path / "notes.txt").write_text("nonsense\n")
    letters, skipped = read(tmp_path)
    assert numbers(letters) == [1, 2]
    assert [one.split(" ")[0] for one in skipped] == [f"{file}:{n}:" for n in (4, 5, 6, 7, 8, 9, 10, 12)]
    assert "its outcome is 'kept'" in skipped[5] and "cut off" in skipped[7]
    with caplog.at_level(logging.WARNING):
        assert len(list(read_letters(str(tmp_path)))) == 2
    assert caplog.messages == skipped


def test_the_last_line_may_lack_its_end(tmp_path: Path) -> None:
    writer(tmp_path).write("teak", [failed(1)])
    file = tmp_path / "rejected-teak-000001.jsonl"
    file.write_bytes(file.read_bytes().rstrip())
    assert numbers(read(tmp_path)[0]) == [1]


def test_letters_from_a_store_compressed_and_from_one_file(tmp_path: Path) -> None:
    writer(f"{PREFIX}{tmp_path}/dead").write("teak", [failed(n) for n in range(4)])
    assert numbers(read(f"{PREFIX}{tmp_path}/dead")[0]) == [0, 1, 2, 3]
    (file,) = (tmp_path / "dead").iterdir()
    assert numbers(read(file)[0]) == [0, 1, 2, 3]
    zipped = gzip.compress(file.read_bytes())
    (tmp_path / "dead" / "old.jsonl.gz").write_bytes(zipped)
    file.unlink()
    assert numbers(read(tmp_path / "dead")[0]) == [0, 1, 2, 3]
    (tmp_path / "dead" / "old.jsonl.gz").write_bytes(zipped[:-20])
    letters, skipped = read(tmp_path / "dead")
    assert len(skipped) == 1 and "the rest of the file is passed over" in skipped[0]
    assert len(letters) <= 4


def test_a_long_letter_over_many_blocks(tmp_path: Path) -> None:
    writer(tmp_path).write("teak", [failed(1, original=b"x" * 3_000_000), failed(2)])
    letters, skipped = read(tmp_path)
    assert [len(str(letter.original)) for letter in letters] == [3_000_000, 8] and not skipped


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("{}/none", "No such file or directory; expected a folder of dead letters"),
        (PREFIX + "{}/none", "there is nothing there"),
        ("projects/p/topics/t", "a topic cannot be read"),
    ],
)
def test_places_without_letters(tmp_path: Path, location: str, says: str) -> None:
    with pytest.raises(LetterError) as caught:
        read(location.format(tmp_path))
    assert says in str(caught.value)


def test_a_line_too_long_for_a_letter_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer(tmp_path).write("teak", [failed(1), failed(2)])
    (file,) = tmp_path.glob("*.jsonl")
    first, second = file.read_bytes().splitlines()
    long = first[:-1] + b',"more":"' + b"x" * 9_000_000 + b'"}'
    file.write_bytes(b"\n".join([first, long, second, b""]))
    assert len(list(all_letters(str(tmp_path)))) == 3
    monkeypatch.setattr(letters, "MOST_LINE", 4_000_000)
    assert len(list(all_letters(str(tmp_path)))) == 2
    assert len(list(read_letters(str(tmp_path)))) == 2
    assert ":2: no dead letter: " in caplog.text


def test_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    """With a line end or without; but not a letter that is being written."""
    file = tmp_path / "events.jsonl"
    for text in (b'{"event_type":"spin"}', b'{"event_type":"spin"}\n' * 3):
        file.write_bytes(text)
        for place in (file, tmp_path):
            with pytest.raises(LetterError) as caught:
                read(place)
            assert str(caught.value).startswith(f"{file}:1: no dead letter: Object missing required field `id`")
            assert str(caught.value).endswith("; expected lines of JSON as --dead-letters writes them")
    file.write_bytes(b'{"id":"2d3da')
    letters, skipped = read(file)
    assert letters == [] and "cut off" in skipped[0]


def test_an_empty_folder_has_no_letters(tmp_path: Path) -> None:
    assert read(tmp_path) == ([], [])


@pytest.mark.parametrize(
    "payload",
    [
        None,
        b'{"a":[1,2.50,null],"b":12345678901234567890123}',
        b"no JSON",
        b"\xff\x00",
        b'{"base64":"x","more":1}',
        b"[1]",
    ],
)
def test_payloads_come_back_as_they_were(tmp_path: Path, payload: bytes | None) -> None:
    writer(tmp_path).write("teak", [failed(1, payload=payload)])
    (letter,) = read(tmp_path)[0]
    assert payload_of(letter) == payload


def test_a_letter_in_a_message(tmp_path: Path) -> None:
    (letter,) = writer(tmp_path).letters("teak", [failed(1)])
    text = msgspec.json.encode(letter)
    assert letter_of(text, {}) == letter
    assert letter_of(gzip.compress(text), {"encoding": "gzip"}) == letter
    for data, attributes in (
        (b"{}", {}),
        (text, {"encoding": "gzip"}),
        (gzip.compress(text)[:-9], {"encoding": "gzip"}),
    ):
        with pytest.raises(ValueError, match="no dead letter"):
            letter_of(data, attributes)
