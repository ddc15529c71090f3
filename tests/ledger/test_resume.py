"""Wherever a backfill was cut off, what is read afterwards is what was not read before: all of it, and once."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from source_files import COMPRESSIONS, FORMATS, decoded, events, json_lines

from transforms import intake
from transforms.elements import Chunk
from transforms.intake import backfill, look
from transforms.ledger import Ledger, Mapped
from transforms.ledger_reader import StateError
from transforms.outcomes import RecordOutcomes
from transforms.read import Layout
from transforms.sources.messages import Message, write_messages
from transforms.tally import Tally

RECORDS = events(4000)
"""Enough for several chunks of each format."""
TO = ("teak", "swrve")


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk a slice."""
    monkeypatch.setattr(intake, "SLICE_BYTES", 1)


def slices(folder: Path, inputs: Sequence[Path | str], to: Sequence[str] = TO, **more: object) -> Iterator[list[Chunk]]:
    """The chunks of each slice of a run. A slice is written down as read when the next one is asked for, as a run does;
    who asks for no more is a process that was killed while it read the slice after the last one it got."""
    options = {"selection": "", "again": False, **more}
    with closing(Ledger(str(folder / "state"))) as ledger:
        files = look(ledger, list(map(str, inputs)), to, **options)  # type: ignore[arg-type]
        ledger.begin({name: (name, name) for name in to})
        for one in backfill(ledger, "run", files, Layout(), to, stop=lambda: False, **options):  # type: ignore[arg-type]
            found = list(intake._next_slice(b"", "run"))  # what the slice's step in the pipeline does
            ledger.mapped(
                ledger.new_slice(),
                0,
                {name: Mapped(Tally(), RecordOutcomes(), ()) for name in one.destinations},
                places=one.places(),
                selection=str(options["selection"]),
            )
            yield found


def ids(chunks: Sequence[Chunk]) -> list[str]:
    return [record.event_id for record in decoded(chunks).records]


ALL = [f"e{n}" for n in range(len(RECORDS))]


def cut_after(folder: Path, inputs: Sequence[Path | str], number: int) -> list[Chunk]:
    """The chunks of the first slices of a run that is then killed."""
    running = slices(folder, inputs)
    found = [chunk for _, chunks in zip(range(number), running, strict=False) for chunk in chunks]
    running.close()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_file_goes_on_where_it_was_cut_off(tmp_path: Path, name: str, compression: str) -> None:
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(COMPRESSIONS[compression](FORMATS[name](RECORDS)))
    whole = list(slices(tmp_path / "whole", [path]))
    assert ids([chunk for own in whole for chunk in own]) == ALL
    assert len(whole) >= 3, "the file is too small for this test"
    for number in (1, len(whole) - 1):
        folder = tmp_path / f"cut-{number}"
        before = cut_after(folder, [path], number)
        after = [chunk for own in slices(folder, [path]) for chunk in own]
        assert ids([*before, *after]) == ALL
        # Each chunk is what it is in one go: its records keep their references, and lines their numbers.
        assert [*before, *after] == [chunk for own in whole for chunk in own]
        assert list(slices(folder, [path])) == []


def test_a_run_that_is_cut_off_at_every_slice_gets_there(tmp_path: Path) -> None:
    for name in ("lines.jsonl.gz", "pretty.json", "commas.csv", "container.avro"):
        bare, _, compression = name.partition(".gz")
        data = FORMATS[bare](RECORDS)
        (tmp_path / name).write_bytes(gzip.compress(data) if _ else data)
        assert compression == ""
    (tmp_path / "empty.jsonl").write_bytes(b"")
    inputs = [tmp_path / "*.*"]
    found: list[Chunk] = []
    for _ in range(100):
        more = cut_after(tmp_path, inputs, 1)
        found += more
        if not more and list(slices(tmp_path, inputs)) == []:
            break
    assert sorted(ids(found)) == sorted(4 * ALL)


def test_what_is_damaged_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = json_lines(RECORDS).splitlines()
    for place in (0, 3, 700, 701, 1400, 3999):
        lines[place] = b'{"event_type":'
    path.write_bytes(b"\n".join(lines) + b"\n")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json_lines(RECORDS), mtime=0)[:-200])
    whole = decoded([chunk for own in slices(tmp_path / "whole", [path, cut]) for chunk in own])
    assert len(whole.undecodable) >= 7
    for number in (1, 3, 5):
        before = cut_after(tmp_path / f"cut-{number}", [path, cut], number)
        after = [chunk for own in slices(tmp_path / f"cut-{number}", [path, cut]) for chunk in own]
        found = decoded([*before, *after])
        assert [record.event_id for record in found.records] == [record.event_id for record in whole.records]
        assert [(bad.ref, bad.reason) for bad in found.undecodable] == [
            (bad.ref, bad.reason) for bad in whole.undecodable
        ]


def test_message_files_go_on_too(tmp_path: Path) -> None:
    path = tmp_path / "pulled.messages"
    sent = [Message(line, {}, str(n)) for n, line in enumerate(json_lines(RECORDS).splitlines())]
    write_messages(str(path), "projects/p/subscriptions/s", sent)
    before = cut_after(tmp_path, [path], 2)
    assert before
    assert ids([*before, *(chunk for own in slices(tmp_path, [path]) for chunk in own)]) == ALL


def test_new_files_only_and_each_destination_what_it_lacks(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_bytes(json_lines(RECORDS[:3]))
    inputs = [tmp_path / "*.jsonl"]
    (tmp_path / "c.jsonl").rename(tmp_path / "c.later")
    assert sources(slices(tmp_path, inputs, ["teak"])) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "c.later").rename(tmp_path / "c.jsonl")
    # Swrve lacks all of them, Teak the third only: what is read for both is read once.
    found = sources(slices(tmp_path, inputs))
    assert sorted(found) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert sources(slices(tmp_path, inputs)) == []
    assert sources(slices(tmp_path, inputs, ["traitly"])) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert sources(slices(tmp_path, inputs, again=True)) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert sources(slices(tmp_path, inputs)) == []


def sources(found: Iterator[list[Chunk]]) -> list[str]:
    return [os.path.basename(chunk.source) for own in found for chunk in own]


def test_one_file_by_several_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines(RECORDS[:3]))
    monkeypatch.chdir(tmp_path)
    assert sources(slices(tmp_path, ["a.jsonl", path, "./a.jsonl", "*.jsonl"])) == ["a.jsonl"]
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert sources(slices(tmp_path, ["../a.jsonl", "../*.jsonl"])) == []


def test_a_span_of_time_is_a_reading_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines(RECORDS[:3]))
    assert len(sources(slices(tmp_path, [path], selection="0..5"))) == 1
    assert len(sources(slices(tmp_path, [path], selection="0..5"))) == 0
    assert len(sources(slices(tmp_path, [path], selection="5..9"))) == 1
    assert len(sources(slices(tmp_path, [path]))) == 1


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_changed_is_refused_by_name(tmp_path: Path, cut: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines(RECORDS))
    if cut:
        cut_after(tmp_path, [path], 2)
    else:
        list(slices(tmp_path, [path]))
    with path.open("ab") as file:
        file.write(json_lines(RECORDS[:1]))
    with pytest.raises(StateError, match=r"a\.jsonl: is not what it was when teak was sent"):
        list(slices(tmp_path, [path]))
    assert ids([chunk for own in slices(tmp_path, [path], again=True) for chunk in own]) == [*ALL, "e0"]
