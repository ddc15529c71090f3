"""Messages: packed into chunks, in files, and decoded."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from source_files import decoded, events, file_of, json_lines, whole

from transforms.elements import Chunk
from transforms.originals import GONE, originals
from transforms.read import Layout, Part, Read, chunks, split_file
from transforms.sources.files import Corrupt
from transforms.sources.messages import (
    Message,
    blocks,
    pack_messages,
    subscription_of,
    unpack_messages,
    write_messages,
)

SUBSCRIPTION = "projects/studio/subscriptions/telemetry"
RECORDS = events(3000)
LINES = json_lines(RECORDS).splitlines()


def messages_of(data: Sequence[bytes]) -> list[Message]:
    return [Message(one, {"game": f"ü{i % 3}"} if i % 2 else {}, f"m{i}", f"k{i % 5}", 1_700_000_000_000 + i)
            for i, one in enumerate(data)]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slice-1.csv"  # the name says nothing
    write_messages(str(path), SUBSCRIPTION, messages_of(LINES))
    return path


def test_packing_is_undone() -> None:
    for found in ([], [Message(b"", {}, "")], messages_of([b"", b"a\nb\n", b"\n", b"\0\xff" * 9, LINES[0]])):
        assert unpack_messages(pack_messages(found)) == found


def test_a_message_file_gives_the_same_records_as_lines(path: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_bytes(json_lines(RECORDS))
    found = whole(path)
    assert len(found) > 3 and all(chunk.format == "messages" for chunk in found)
    expected = decoded(whole(tmp_path / "lines.jsonl"))
    assert decoded(found).records == expected.records and not decoded(found).undecodable
    assert split_file(file_of(path), Layout(), size=1000) == [Part(str(path), 0, None)]


@pytest.mark.parametrize("format", [None, "json", "csv", "avro"])
def test_it_is_known_by_its_content_in_a_pipeline_too(path: Path, format: str | None) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        counts = pipeline | Read([str(path)], format) | beam.Map(lambda chunk: len(unpack_messages(chunk.payload)))
        assert_that(counts | beam.CombineGlobally(sum), equal_to([3000]))


def test_the_file_knows_its_subscription(path: Path, tmp_path: Path) -> None:
    assert subscription_of(str(path)) == SUBSCRIPTION
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(Corrupt, match="not a message file"):
        subscription_of(str(tmp_path / "other"))


def test_blocks_are_bounded_in_what_they_hold_decompressed() -> None:
    zipped = [Message(gzip.compress(bytes(50_000)), {}, str(i)) for i in range(10)]
    assert [len(group) for group in blocks(zipped)] == [3, 3, 3, 1]
    assert [len(group) for group in blocks(messages_of([b""] * 10_000))] == [4096, 4096, 1808]
    assert [len(group) for group in blocks(messages_of([bytes(1 << 20)] * 3))] == [1, 1, 1]
    assert list(blocks([])) == []


def test_parts_of_a_file_begin_at_blocks(path: Path) -> None:
    found = whole(path)
    part = Part(str(path), found[2].position, found[4].position)
    assert list(chunks(part, Layout())) == found[2:4]


def test_an_original_is_its_message(path: Path) -> None:
    found = decoded(whole(path))
    assert found.indexes is not None
    again = originals(str(path), [found.indexes[2500], found.indexes[0] + 100_000], Layout())
    message = messages_of(LINES)[2500]
    assert again[found.indexes[2500]][:4] == (message.data, 0, message, 0)
    assert again[found.indexes[0] + 100_000] == GONE
    path.unlink()
    assert originals(str(path), [found.indexes[2500]], Layout()) == {found.indexes[2500]: GONE}


@pytest.mark.parametrize(
    ("damage", "said", "lost"),
    [
        (lambda data, at: data[: at + 3], "cut off", 1),
        (lambda data, at: data[: at + 300], "cut off", 1),
        (lambda data, at: data[: at + 300] + b"\xff" + data[at + 301 :], "checksum", 1),
        (lambda data, at: data[: at + 2] + b"\xff\xff" + data[at + 4 :], "makes no sense", 1),
    ],
)
def test_damage_costs_no_more_than_it_must(path: Path, damage: object, said: str, lost: int) -> None:
    before = whole(path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes(), before[2].position))
    after = whole(path)
    assert after[:2] == before[:2] and after[2].format == "unreadable"
    (bad,) = decoded(after).undecodable
    assert said in bad.reason and f"byte {before[2].position:,}" in bad.reason
    assert after[3:] == (before[3:] if said == "checksum" else [])


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield from messages_of(LINES)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_messages(str(tmp_path / "slice"), SUBSCRIPTION, broken())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_empty_file_holds_no_chunk(tmp_path: Path) -> None:
    size = write_messages(str(tmp_path / "slice"), SUBSCRIPTION, [])
    assert (tmp_path / "slice").stat().st_size == size and whole(tmp_path / "slice") == []


def chunk_of(data: Sequence[bytes], attributes: dict[str, str] | None = None) -> Chunk:
    found = [Message(one, attributes or {}, str(i)) for i, one in enumerate(data)]
    return Chunk("messages", 1 << 30, 0, "messages", pack_messages(found))
