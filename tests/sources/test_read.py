"""Reading through a real pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from source_files import COMPRESSIONS, EVENT, FORMATS, events, json_lines

from transforms.decode import Decoder
from transforms.elements import Chunk
from transforms.read import NoInput, Part, Read, _match
from transforms.sources.files import File, match

RECORDS = events(400)


class Decode(beam.DoFn):
    def setup(self) -> None:
        self.decoder = Decoder(EVENT)

    def process(self, chunk: Chunk) -> Iterator[tuple[str, str, bool]]:
        found = self.decoder.decode(chunk)
        for record in found.records:
            yield os.path.basename(chunk.source), record.event_id, chunk.line > 0 or chunk.format == "avro"
        for bad in found.undecodable:
            yield os.path.basename(chunk.source), bad.reason, True


@pytest.mark.parametrize("split", [False, True])
def test_files_of_every_format_in_one_pipeline(tmp_path: Path, split: bool) -> None:
    expected = []
    for number, (name, write) in enumerate(FORMATS.items()):
        ending = list(COMPRESSIONS)[number % len(COMPRESSIONS)]
        (tmp_path / (name + ending)).write_bytes(COMPRESSIONS[ending](write(RECORDS)))
        expected += [(name + ending, f"e{i}", True) for i in range(400)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = (
            pipeline | Read([str(tmp_path / "*.json*"), str(tmp_path / "*[!n]")], split=split) | beam.ParDo(Decode())
        )
        assert_that(found, equal_to(expected))


def test_a_large_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.read.split_file.__defaults__", (20_000,))
    path = tmp_path / "events.jsonl"
    path.write_bytes(json_lines(RECORDS))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        chunks = pipeline | Read([str(path)])
        assert_that(
            chunks | beam.Map(lambda chunk: chunk.payload.count(b"\n")) | beam.CombineGlobally(sum), equal_to([400])
        )
        counted = chunks | "Count" >> beam.combiners.Count.Globally() | beam.Map(lambda count: count > 5)
        assert_that(counted, equal_to([True]), "many chunks")


def test_a_glob_that_matches_nothing_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"")
    with pytest.raises(NoInput, match=r"no file matches .*\*\.csv"):
        beam.Pipeline(runner=FnApiRunner()) | Read([str(tmp_path / "*.jsonl"), str(tmp_path / "*.csv")])
    with pytest.raises(NoInput, match="is a folder; name the files in it"):
        beam.Pipeline(runner=FnApiRunner()) | Read([str(tmp_path)])
    with pytest.raises(NoInput):
        _match(b"", [str(tmp_path / "*.avro")])


def test_each_file_is_matched_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "x[1].jsonl"):
        (tmp_path / name).write_bytes(b"{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    found = match([str(tmp_path / "*.jsonl"), str(tmp_path / "a*"), str(tmp_path / "x[1].jsonl")])
    assert found == [File(str(tmp_path / name), 3) for name in ("a.jsonl", "b.jsonl", "x[1].jsonl")]


def test_parts_travel_as_what_they_are() -> None:
    assert Part("f", 0, None) == ("f", 0, None, False, 0)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    names = ("lines.jsonl", "array.json", "commas.csv", "container.avro", "lines.jsonl.gz")
    for name in names:
        write, ending = FORMATS[name.removesuffix(".gz")], ".gz" if name.endswith("gz") else ""
        (tmp_path / name).write_bytes(COMPRESSIONS[ending](write(RECORDS * 25)))
        times = 600 if name == "commas.csv" else 400 if name == "container.avro" else 200  # so that it is large enough
        (tmp_path / f"large-{name}").write_bytes(COMPRESSIONS[ending](write(RECORDS * times)))
    peaks = _peaks([tmp_path / f"{size}{name}" for size in ("", "large-") for name in names])
    before = peaks[len(names) - 1]
    assert max(peaks) < before + 12_000, dict(zip(names, peaks[len(names) :], strict=True))


PROGRAM = """
import re, sys
import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from transforms.read import Read
for path in sys.argv[1:]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | Read([path], split=False) | beam.Map(lambda chunk: len(chunk.payload)) | beam.CombineGlobally(sum)
    with open("/proc/self/status") as status:  # getrusage would tell what the parent had before it, too
        print(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])
"""


def _peaks(paths: Sequence[Path]) -> list[int]:
    """Peak memory in KiB of a process after reading each of the files, one after the other."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *paths], cwd=root, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]
