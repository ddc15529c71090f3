"""Small files that hold a great deal: reading one takes neither long nor much memory, and costs one dead letter."""

from __future__ import annotations

import bz2
import json
import lzma
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from commands import ENVIRONMENT, relay_file
from source_files import decoded, json_lines, whole

from sandbox.server import Running
from transforms.sources.avro import MAX_BLOCK, write_long
from transforms.sources.files import MAX_ZSTD_WINDOW

ROOT = Path(__file__).parents[2]
LONGEST_S = 30.0
PEAK_MB = 400
"""A run of one small file takes 200 MB."""
BOMB_MB = 200

MEASURED = """
import atexit, re
def told():
    with open("/proc/self/status") as status:  # getrusage would tell what the parent had before it, too
        print("peak", int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) >> 10)
atexit.register(told)
"""
"""Python that prints at its end what memory it took at the most, in MB."""


def measured(script: str, *arguments: object) -> tuple[str, int]:
    """Runs Python in a process of its own: (its output, the most memory that it took in MB)."""
    begin = time.monotonic()
    made = subprocess.run(
        [sys.executable, "-c", MEASURED + script, *map(str, arguments)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert time.monotonic() - begin < LONGEST_S
    output, _, peak = made.stdout.rpartition("peak ")
    return output, int(peak)


def event(**fields: object) -> bytes:
    return json_lines([{"event_type": "spin", "event_timestamp": 1_764_000_000_000, "user_id": "u", **fields}])


@pytest.mark.parametrize(
    ("ending", "compressor"),
    [
        (".gz", lambda: zlib.compressobj(1, wbits=31)),
        (".bz2", bz2.BZ2Compressor),
        (".zst", lambda: zstandard.ZstdCompressor(level=1).compressobj()),
    ],
)
def test_a_compressed_file(tmp_path: Path, sandbox: Running, ending: str, compressor: Callable[[], Any]) -> None:
    bomb, relay, dead, report = (tmp_path / name for name in (f"e.ndjson{ending}", "relay.yaml", "dead", "report.json"))
    before, _, after = event(user_id="|").partition(b"|")
    to = compressor()
    parts = [to.compress(event() + before)]
    parts += [to.compress(b"x" * (1 << 20)) for _ in range(BOMB_MB)]
    parts += [to.compress(after + event()), to.flush()]
    bomb.write_bytes(b"".join(parts))
    assert bomb.stat().st_size < 4 << 20
    relay.write_text(relay_file(("traitly",), sandbox.url))
    script = "import sys; from pipelines.cli import run_main; run_main(sys.argv[1:])"
    arguments = ("run", relay, "--input", bomb, "--dead-letters", dead, "--report", report, "--quiet")
    _, peak = measured(script, *arguments)
    (letter,) = (json.loads(line) for path in dead.glob("*.jsonl") for line in path.read_bytes().splitlines())
    assert "more than max_record" in letter["reason"]
    told = json.loads(report.read_text())
    assert (told["records"]["read"], told["destinations"]["traitly"]["delivered"]) == (3, 2)
    assert peak < PEAK_MB


def test_a_zstd_file_that_asks_for_more_memory_than_it_gets(tmp_path: Path) -> None:
    path = tmp_path / "e.ndjson.zst"
    for log, fits in ((MAX_ZSTD_WINDOW.bit_length() - 1, True), (MAX_ZSTD_WINDOW.bit_length(), False)):
        wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, enable_ldm=True)
        to = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        path.write_bytes(to.compress(event()) + to.flush())
        found = decoded(whole(path))
        assert len(found.records) == fits
        assert [bad.reason for bad in found.undecodable] == (
            [] if fits else [f"{path}, byte 0: the zstd data takes over 134,217,728 bytes of memory; compress it again"
                             " with --long=27 or less"]
        )  # fmt: skip


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "deflate": lambda data: (to := zlib.compressobj(9, wbits=-15)).compress(data) + to.flush(),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstandard": zstandard.ZstdCompressor(level=1).compress,
    "snappy": lambda data: pyarrow.compress(data, codec="snappy", asbytes=True) + zlib.crc32(data).to_bytes(4, "big"),
}
SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "event_type", "type": "string"},
        {"name": "event_timestamp", "type": "long"},
        {"name": "user_id", "type": "string"},
    ],
}
DECODE = """
import os, sys, schemas
from transforms.decode import Decoder
from transforms.read import Layout, Part, chunks
for path in sys.argv[1:]:
    for chunk in chunks(Part(path, 0, None), Layout()):
        found = Decoder(schemas.load("telemetry/event")).decode(chunk)
        print(os.path.basename(path), len(found.records), *(bad.reason for bad in found.undecodable))
"""


def container(codec: str, size: int) -> bytes:
    """An Avro container: a block that says it has two records and has one, of that size."""
    sync = bytes(range(16))
    meta = {b"avro.schema": json.dumps(SCHEMA).encode(), b"avro.codec": codec.encode()}
    header = write_long(len(meta)) + b"".join(text(key) + text(value) for key, value in meta.items()) + write_long(0)
    stored = CODECS[codec](text(b"spin") + write_long(1_764_000_000_000) + text(b"x" * size))
    return b"Obj\1" + header + sync + write_long(2) + text(stored) + sync


def text(data: bytes) -> bytes:
    """Bytes as Avro writes them."""
    return write_long(len(data)) + data


def test_an_avro_block_that_is_too_large(tmp_path: Path) -> None:
    for codec in CODECS:
        (tmp_path / codec).write_bytes(container(codec, MAX_BLOCK + 100))
    output, peak = measured(DECODE, *(tmp_path / codec for codec in CODECS))
    problem = "damaged Avro block: 2 of its 2 records cannot be read (the block has over 67,108,864 bytes)"
    assert output.splitlines() == [f"{codec} 0 {problem}" for codec in CODECS]
    assert peak < PEAK_MB


def test_the_largest_avro_block(tmp_path: Path) -> None:
    """And damaged, as what is damaged is read more than once."""
    for codec in CODECS:
        (tmp_path / codec).write_bytes(container(codec, MAX_BLOCK - 100))
    output, peak = measured(DECODE, *(tmp_path / codec for codec in CODECS))
    problem = "damaged Avro block: 1 of its 2 records cannot be read (index out of range)"
    assert output.splitlines() == [f"{codec} 1 {problem}" for codec in CODECS]
    assert peak < PEAK_MB + 6 * (MAX_BLOCK >> 20)
