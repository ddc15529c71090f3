"""For comparison: events to Teak with Beam's own means: ReadFromText, Map, GroupIntoBatches and a DoFn that posts.

A record an element, as Beam's guides show it. No checks, no retries of its own, no accounting.

    python -m benchmarks.compare_group_into_batches EVENTS URL
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import pycurl
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

BATCH = 100
SHARDS = 16


def teak_event(line: str) -> tuple[int, dict[str, Any]]:
    """The mapping, and the shard as key."""
    event = json.loads(line)
    mapped: dict[str, Any] = {"user_id": event["user_id"], "action_type": event["event_type"]}
    data = event.get("event_data") or {}
    if data.get("item_id") is not None:
        mapped["object_type"] = "item"
        mapped["object_instance_id"] = data["item_id"]
    if data.get("amount") is not None:
        mapped["value"] = data["amount"]
        mapped["sum_of_squares"] = data["amount"] ** 2
    if event.get("country") is not None:
        mapped["country_code"] = event["country"]
    return zlib.crc32(event["user_id"].encode()) % SHARDS, mapped


class PostFn(beam.DoFn):
    """In: (shard, events). Out: nothing. One request at a time."""

    def __init__(self, url: str) -> None:
        self.url = url

    def setup(self) -> None:
        """Makes the connection's handle."""
        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.URL, self.url)
        self.curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
        self.curl.setopt(pycurl.WRITEFUNCTION, len)

    def process(self, batch: tuple[int, Iterable[dict[str, Any]]]) -> None:
        """Sends one batch."""
        body = {"game_id": "teak-app", "secret_key": "k-teak", "events": list(batch[1])}
        self.curl.setopt(pycurl.POSTFIELDS, json.dumps(body, separators=(",", ":")))
        self.curl.perform()
        if self.curl.getinfo(pycurl.RESPONSE_CODE) != 200:
            raise RuntimeError(f"HTTP {self.curl.getinfo(pycurl.RESPONSE_CODE)}")


def relay(path: str, url: str) -> None:
    """Runs the pipeline."""
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(path)
            | beam.Map(teak_event)
            | beam.GroupIntoBatches(BATCH)
            | beam.ParDo(PostFn(url))
        )


if __name__ == "__main__":
    relay(sys.argv[1], sys.argv[2])
