"""The whole unbounded pipeline: messages in, five vendors' sandboxes out, and each record accounted for."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from unbounded_streams import SUBSCRIPTION, Script

from pipelines import stream
from pipelines.plan import Plan, make_plan
from pipelines.relay_file import load
from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.carried import size_of
from transforms.deliver.visit import Patience
from transforms.elements import Chunk
from transforms.map_records import MapRecordsFn
from transforms.sources.messages import MESSAGES, Message, pack_messages
from transforms.sources.subscription import GatherFn
from transforms.vendors import slugs

EVENTS = (Path(__file__).parents[1] / "data/made_events.ndjson").read_bytes().splitlines()
VENDORS = slugs()


def plan_of(folder: Path, url: str, only: Sequence[str] = VENDORS, **more: Any) -> Plan:
    """Five destinations at a sandbox."""
    document = {
        "allow_literal_secrets": True,
        "source": {"preset": "canonical"},
        "destinations": {
            slug: {
                "credentials": dict(RELAY_FILE[slug]),
                "url": f"{url}/{slug}",
                "rate": "unlimited",
                "shards": 2,
                "batch": {"age": "1s"},
                "retry": {"for": "1s"},
                **more,
            }
            for slug in only
        },
    }
    path = folder / "relay.yaml"
    path.write_text(yaml.safe_dump(document))
    return make_plan(load(path))[0]


class Messages(Script):
    """Messages of a subscription, as they come."""

    count = 0

    def published(self, *data: bytes, **attributes: str) -> Messages:
        """Messages come in, in one bundle; their ids count up from m0."""
        made = []
        for text in data:
            message = PubsubMessage(text, dict(attributes), message_id=f"m{self.count}", ordering_key="k")
            made.append(TimestampedValue(message, Timestamp(1_764_000_000)))
            self.count += 1
        self.add(made)
        return self


class Play(beam.PTransform):
    """What ReadSubscription gives, of a script."""

    def __init__(self, script: Script, run: str) -> None:
        super().__init__()
        self.script = script
        self.run = run

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        return self.script.play(begin.pipeline, self.run) | "Chunks" >> beam.ParDo(GatherFn(SUBSCRIPTION))


def relay(script: Script, plan: Plan, letters: Path, patience: Patience | None = None) -> list[dict[str, Any]]:
    """Plays the script through the job; the dead letters."""
    pipeline = beam.Pipeline(runner=BundleBasedDirectRunner(), options=PipelineOptions(["--streaming"]))
    stream.build(pipeline, plan, Play(script, str(letters)), str(letters), patience or Patience())
    pipeline.run().wait_until_finish()
    lines = [line for file in sorted(letters.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_each_record_reaches_each_vendor_or_is_a_dead_letter(sandbox: Running, tmp_path: Path) -> None:
    sandbox.configure("teak", unknown_users=["u8358"])
    script = Messages()
    for start in range(0, 200, 50):
        script.published(*EVENTS[start : start + 50])
        script.published(b'{"event_type": "level_up"', b'{"event_type": 7}', b"\xff\xfe")
        script.passes(2, 3)
    letters = relay(script.passes(2, 20), plan_of(tmp_path, sandbox.url), tmp_path / "letters")
    assert sandbox.violations() == []
    bad = Counter(letter["destination"] for letter in letters if letter["reason"].startswith("undecodable"))
    assert bad == dict.fromkeys(VENDORS, 12)
    for slug in VENDORS:
        there = len({json.dumps(one["item"], sort_keys=True) for one in sandbox.items(slug)})
        refused = [letter for letter in letters if letter["destination"] == slug and letter["model"]]
        assert there > 0
        assert all(letter["outcome"] == "rejected" for letter in refused)
    refused = [letter for letter in letters if letter["destination"] == "teak" and letter["model"]]
    users = Counter(json.loads(event)["user_id"] for event in EVENTS)
    assert len(refused) == users["u8358"]
    for letter in letters:
        number = int(letter["source"]["message"]["id"][1:])
        assert letter["source"]["name"] == SUBSCRIPTION
        assert letter["source"]["message"]["ordering_key"] == "k"
        if letter["model"]:
            assert letter["original"].encode() == EVENTS[number - number // 53 * 3]


@pytest.mark.parametrize("form", ["array", "lines", "gzip"])
def test_a_dead_letter_of_a_message_of_many_records_has_its_own_record(
    sandbox: Running, tmp_path: Path, form: str
) -> None:
    sandbox.fault(vendor="traitly", status=503, next=None)
    data = b"\n".join(EVENTS[:40]) if form != "array" else b"[%b]" % b",".join(EVENTS[:40])
    script = Messages().published(gzip.compress(data) if form == "gzip" else data, title="chess").passes(2, 3)
    plan = plan_of(tmp_path, sandbox.url, ["traitly"], models=["event"])
    letters = relay(script, plan, tmp_path / "letters")
    assert {letter["original"].encode() for letter in letters} == set(EVENTS[:40])
    assert len(letters) == 40
    for letter in letters:
        assert letter["outcome"] == "undelivered"
        assert letter["status"] == 503
        assert letter["payload"]["customer_id"] == json.loads(letter["original"])["user_id"]
        assert letter["source"]["message"] == {
            "id": "m0", "ordering_key": "k", "published": 1_764_000_000_000, "attributes": {"title": "chess"},
        }  # fmt: skip


def test_a_vendor_that_is_down_stalls_no_other(sandbox: Running, tmp_path: Path) -> None:
    sandbox.fault(vendor="teak", status=503, next=None)
    taken: list[int] = []

    def others_have_theirs() -> None:
        for slug in VENDORS:
            taken.append(len(sandbox.items(slug)))

    script = Messages()
    for start in range(0, 200, 20):
        script.published(*EVENTS[start : start + 20]).passes(2, 2)
    script.passes(2, 20).does(others_have_theirs).does(sandbox.clear_faults).passes(2, 20)
    plan = plan_of(tmp_path, sandbox.url, retry={"for": "20s"})
    letters = relay(script, plan, tmp_path / "letters")
    assert letters == []
    by_vendor = dict(zip(VENDORS, taken, strict=True))
    assert by_vendor.pop("teak") == 0
    for slug, number in by_vendor.items():
        assert number == len(sandbox.items(slug)) > 0
    assert len(sandbox.items("teak")) > 0
    assert sandbox.received()["violations"] == []
    for slug in VENDORS:
        assert sandbox.received(vendor=slug)["vendors"][slug]["overlaps"] == 0


def test_large_records_travel_in_elements_that_runners_take(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "http://127.0.0.1:9", ["teak"])
    step = MapRecordsFn(plan.source, plan.destinations, plan.selection, "large", carry=True)
    step.setup()
    step.start_bundle()
    made: list[Any] = []
    for number in range(60):
        event = {**json.loads(EVENTS[number]), "params": {"text": random.Random(number).randbytes(250_000).hex()}}
        message = Message(json.dumps(event).encode(), {}, f"m{number}")
        made += step.process(Chunk(SUBSCRIPTION, number, 0, MESSAGES, pack_messages([message])))
    made += list(step.finish_bundle())
    packed = [getattr(one.value, "value", one.value)[1] for one in made if one.tag == "to-teak"]
    assert sum(size_of(data).items for data in packed) == 60
    assert max(map(len, packed)) < 10 << 20
