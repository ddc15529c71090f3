"""Input, dead letters and report elsewhere than on disk: all goes through Beam's file systems."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import EVENT, call
from shelf import Shelf

from sandbox.server import Running

Relay = Callable[..., Path]


@pytest.fixture(autouse=True)
def objects() -> Iterator[dict[str, bytes]]:
    Shelf.objects.clear()
    yield Shelf.objects
    Shelf.objects.clear()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_run_from_a_store_to_a_store(
    packed: bool, relay: Relay, events: Path, sandbox: Running, objects: dict[str, bytes]
) -> None:
    text = events.read_bytes()
    name = "shelf://game/2026/events.ndjson" + (".gz" if packed else "")
    objects[name] = gzip.compress(text) if packed else text
    objects["shelf://game/2026/other.ndjson"] = EVENT.encode()
    more = ("--dead-letters", "shelf://out/dead", "--report", "shelf://out/report.json")
    result = call("run", relay("teak"), "--input", "shelf://game/2026/*", *more)
    assert result.exit_code == 0, result.output
    report = json.loads(objects["shelf://out/report.json"])
    assert report["records"] == {"read": 4, "undecodable": 1}
    assert (report["balanced"], report["destinations"]["teak"]["delivered"]) == (True, 2)
    assert len(sandbox.items("teak")) == 2
    (written,) = [path for path in objects if path.startswith("shelf://out/dead")]
    letter = json.loads(objects[written])
    assert letter["original"] == '{"event_type":7}'
    assert letter["source"]["name"] == name
    assert len(objects) == 4, "nothing is left of what was tried and of files half written"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--input", "shelf://game/*.ndjson"), "no file matches shelf://game/*.ndjson\n"),
        (("--input", "floppy://a/b"), "floppy://a/b: nothing can be read from there; name files on disk or gs://…\n"),
        (("--input", "EVENTS", "--report", "floppy://a/b"), "floppy://a/b: nothing can be written there; "),
        (
            ("--input", "EVENTS", "--dead-letters", "floppy://a"),
            "floppy://a: expected a folder on disk, gs://… or projects/…/topics/…; ",
        ),
        (("--input", "EVENTS", "--report", "shelf://closed/r.json"), "shelf://closed/r.json: cannot be written to: "),
        (("--input", "EVENTS", "--dead-letters", "shelf://closed/d"), "shelf://closed/d: cannot be written to: "),
    ],
)
def test_what_cannot_be_read_or_written_is_told_before_anything_is_sent(
    arguments: tuple[str, ...], told: str, relay: Relay, events: Path, sandbox: Running
) -> None:
    given = [events if one == "EVENTS" else one for one in arguments]
    result = call("run", relay("teak"), *given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(told), result.stderr
    assert sandbox.received()["vendors"]["teak"]["requests"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--input", "gs://game/a*"),
        ("--input", "EVENTS", "--dead-letters", "gs://game/a*"),
        ("--input", "EVENTS", "--report", "gs://game/a*"),
    ],
)
def test_without_a_network_cloud_storage_is_not_asked_for_minutes(
    arguments: tuple[str, ...], relay: Relay, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.sources.cloud.HOST", "storage.invalid")  # which no network has
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    given = [events if one == "EVENTS" else one for one in arguments]
    started = time.monotonic()
    result = call("run", relay("teak"), *given)
    assert time.monotonic() - started < 30
    assert result.exit_code == 2
    assert result.stderr.startswith("gs://game/a*: storage.invalid cannot be reached (")
    assert "): check the network, or set https_proxy; " in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_error_of_a_store_is_told_by_path() -> None:
    from apache_beam.io.filesystem import BeamIOError

    from pipelines.explain import explained

    inner = BeamIOError("List operation failed", {"gs://game/a": TimeoutError("no answer in 120 s")})
    error = BeamIOError("Match operation failed", {"gs://game/a*": inner})
    assert explained(error) == [
        "gs://game/a*: no answer in 120 s; it must be there, and whoever runs this be allowed to use it"
    ]
    assert explained(BeamIOError("lost")) == ["lost with exceptions None"]
