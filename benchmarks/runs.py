"""The commands that are measured, each as a process of its own, and what they are checked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import measure
from benchmarks.sink import Counts, Sink

RELAYS = Path(__file__).parent / "relay"
SAMPLE = measure.ROOT / "templates" / "demo" / "aws_game_analytics.ndjson"
PORT_IN_FILES = "127.0.0.1:9907"


class Wrong(Exception):
    """A run did not do what it was to be measured at."""


class Product(NamedTuple):
    """A run of the product."""

    usage: measure.Usage
    sink: Counts
    """What the sink took meanwhile, and what that took the sink."""
    items: int
    requests: int
    read: int


class Bench:
    """Where the measured commands find their input and their sink."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.folder = folder
        self.sink = sink

    def events(self, count: int) -> Path:
        """A file of made events, made when first asked for."""
        path = self.folder / f"events-{count}.ndjson"
        self._make(path, "benchmarks.make_events", str(count), str(_part(path)))
        return path

    def avro(self, count: int, codec: str) -> Path:
        """The same events as an Avro container file."""
        path = self.folder / f"events-{count}-{codec}.avro"
        self._make(path, "benchmarks.make_avro", str(self.events(count)), str(_part(path)), codec)
        return path

    def _make(self, path: Path, *module: str) -> None:
        if not path.exists():
            measure.run(["-m", *module])
            _part(path).rename(path)

    def relay(self, name: str) -> Path:
        """A relay file of relay/, with the sink's port."""
        text = (RELAYS / f"{name}.yaml").read_text(encoding="utf-8")
        path = self.folder / f"{name}.yaml"
        path.write_text(text.replace(PORT_IN_FILES, f"127.0.0.1:{self.sink.port}"), encoding="utf-8")
        return path

    def product(self, relay: str, events: Path) -> Product:
        """`playrelay run` as a person would type it. Wrong when its figures and the sink's are not the same."""
        report = self.folder / "report.json"
        before = self.sink.counts()
        usage = measure.run(
            [
                "-m",
                "pipelines.cli",
                "run",
                str(self.relay(relay)),
                "--input",
                str(events),
                "--report",
                str(report),
                "--quiet",
            ]
        )
        taken = self.sink.counts().since(before)
        told = json.loads(report.read_bytes())
        _check(told, taken)
        destinations = told["destinations"].values()
        items = sum(one["delivered"] for one in destinations)
        return Product(usage, taken, items, sum(one["requests"] for one in destinations), told["records"]["read"])

    def floor(self, mode: str, events: Path) -> measure.Usage:
        """The yardstick."""
        return measure.run(["-m", "benchmarks.floor", str(events), f"{self.sink.url}/teak", mode])

    def other(self, module: str, events: Path, count: int) -> measure.Usage:
        """A script for comparison. Wrong when not all events arrived."""
        before = self.sink.counts()
        usage = measure.run(["-m", f"benchmarks.{module}", str(events), f"{self.sink.url}/teak"])
        items = self.sink.counts().since(before).items
        if items != count:
            raise Wrong(f"{module} sent {items:,} of {count:,} events")
        return usage

    def blast(self, vendor: str, items: int, requests: int) -> float:
        """Requests a second that the sink takes from libcurl alone."""
        usage = measure.run(["-m", "benchmarks.blast", f"{self.sink.url}/{vendor}", str(items), str(requests)])
        return float(usage.output)


def _part(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(path.name + ".part")


def _check(report: Mapping[str, Any], taken: Counts) -> None:
    destinations = report["destinations"]
    if not report["balanced"]:
        raise Wrong(f"the report's sums do not add up: {report}")
    for name, one in destinations.items():
        if one["rejected"] or one["undelivered"] or one["filtered"] or one["retries"]:
            raise Wrong(f"{name} did not take everything at once: {one}")
    delivered = sum(one["delivered"] for one in destinations.values())
    requests = sum(one["requests"] for one in destinations.values())
    if (delivered, requests) != (taken.items, taken.requests):
        raise Wrong(
            f"the report says {delivered:,} items in {requests:,} requests, the sink {taken.items:,} in {taken.requests:,}"
        )
