"""Deliver, the PTransform, on Beam's own local runner: grouping, windows, order and outcomes."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from deliveries import KINDS, START_MS, VENDORS, arrived, at, check_order, item, shard_of, some_items, traffic

from sandbox.server import Running
from transforms.collect import Collected, CollectFn, collected, forget
from transforms.credentials import CredentialError
from transforms.deliver import gate, sink
from transforms.deliver.sink import Deliver
from transforms.destination import Destination
from transforms.elements import Item, pack_items

Element = tuple[int, bytes]


def elements(to: Destination, items: Iterable[Item], chunk: int = 50, source: str = "a.jsonl") -> list[Any]:
    """Items as the mapping gives them: an element a chunk, shard and window, in no order."""
    window = to.batch.window_ms
    groups: dict[tuple[int, int, int], list[Item]] = {}
    for number, one in enumerate(items):
        start = 0 if window is None else one[3] // window * window
        groups.setdefault((number // chunk, shard_of(one[2], to.shards), start), []).append(one)
    made = []
    for (_, shard, start), own in groups.items():
        element = shard, pack_items(source, own)
        made.append(element if window is None else TimestampedValue(element, Timestamp(micros=start * 1000)))
    random.Random(7).shuffle(made)
    return made


def _as_it_is(element: Any) -> Any:
    return element


def deliver(to: Destination, made: Sequence[Any], bundles: int = 1) -> Collected:
    """Runs Deliver over elements and gathers its outcomes."""
    run = uuid.uuid4().hex
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        items = pipeline | beam.Create(made, reshuffle=bundles > 1) | beam.Map(_as_it_is).with_output_types(Element)
        delivered = items | Deliver(to, (KINDS[to.vendor].model,), run)
        delivered.tallies | "Count" >> beam.ParDo(CollectFn(run))
        delivered.failed | "Count failed" >> beam.ParDo(CollectFn(run))
    found = collected(run)
    forget(run)
    gate.forget(run)
    return found


def numbers_by_request(sandbox: Running, slug: str) -> list[list[int]]:
    """Numbers of the items of each request, in order of arrival."""
    number = KINDS[slug].number
    requests: dict[int, list[int]] = {}
    for one in sandbox.items(slug):
        requests.setdefault(one["request"], []).append(int(number(one["item"])))
    return list(requests.values())


@pytest.mark.parametrize("slug", VENDORS)
def test_chunks_in_any_order_arrive_in_time_order(sandbox: Running, slug: str) -> None:
    to = at(sandbox, slug, shards=3)
    tally, records = deliver(to, elements(to, some_items(slug, 400), chunk=60)).of(slug)
    assert tally.delivered == 400
    assert records.rejected() == records.undelivered() == 0
    check_order(arrived(sandbox, slug))
    assert traffic(sandbox, slug)["overlaps"] == 0
    assert sandbox.violations() == []


@pytest.mark.parametrize("slug", ["12traits", "parcelvoy", "swrve", "teak"])
@pytest.mark.parametrize("window_ms", [100, 37, 1000])
def test_no_batch_crosses_a_window(sandbox: Running, slug: str, window_ms: int) -> None:
    to = at(sandbox, slug, shards=2, batch={"window_ms": window_ms})
    tally, _ = deliver(to, elements(to, some_items(slug, 500), chunk=170)).of(slug)
    assert tally.delivered == 500
    requests = numbers_by_request(sandbox, slug)
    for numbers in requests:
        assert len({(START_MS + number) // window_ms for number in numbers}) == 1
    # The windows of a shard go one after the other, so a user's order holds across them.
    check_order(arrived(sandbox, slug))
    groups = 7 if slug == "swrve" else 2
    requests_a_window = 5 if slug == "teak" else 1
    assert len(requests) <= groups * requests_a_window * (500 // window_ms + 2)


def test_windows_before_1970_are_windows_too(sandbox: Running) -> None:
    to = at(sandbox, "12traits", shards=1, batch={"window_ms": 1000})
    made = [
        (payload, 0, user, -2000 + 500 * n, n) for n, (payload, _, user, _, _) in enumerate(some_items("12traits", 8))
    ]
    assert deliver(to, elements(to, made)).of("12traits")[0].delivered == 8
    assert numbers_by_request(sandbox, "12traits") == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_without_windows_batches_are_as_large_as_they_may_be(sandbox: Running) -> None:
    to = at(sandbox, "12traits", shards=2)
    deliver(to, elements(to, some_items("12traits", 500), chunk=20))
    assert len(numbers_by_request(sandbox, "12traits")) == 2


def test_much_is_sent_before_the_bundle_ends(sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "QUEUED_BYTES", 2000)
    sandbox.fault(vendor="teak", delay_s=0.03, next=None)
    to = at(sandbox, "teak", shards=6)
    tally, _ = deliver(to, elements(to, some_items("teak", 600, users=30))).of("teak")
    assert tally.delivered == 600
    assert traffic(sandbox, "teak")["accepted"] == 600
    assert traffic(sandbox, "teak")["max_in_flight"] < 6


def test_outcomes_of_windows_and_bundles_add_up(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u1", "u5"])
    sandbox.fault(vendor="teak", status=503, after=2)
    to = at(sandbox, "teak", shards=5, batch={"window_ms": 50})
    made = some_items("teak", 420)
    made[50] = item("teak", 50, "u1", action_type="x" * 1_100_000)
    tally, records = deliver(to, elements(to, made), bundles=2).of("teak")
    lost = [number for number in range(420) if number % 7 in (1, 5)]
    assert (tally.delivered, tally.rejected, tally.undelivered) == (420 - len(lost), len(lost), 0)
    assert (records.rejected(), records.undelivered()) == (len(lost), 0)
    assert {number for _, number in arrived(sandbox, "teak")} == set(range(420)) - set(lost)


def test_a_destination_that_stopped_stays_stopped_for_the_run(sandbox: Running) -> None:
    to = at(sandbox, "traitly", credentials={"token": "wrong"}, shards=1)
    run = uuid.uuid4().hex
    for _ in range(2):
        with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
            delivered = pipeline | beam.Create(elements(to, some_items("traitly", 20))) | Deliver(to, ("event",), run)
            delivered.tallies | "Count" >> beam.ParDo(CollectFn(run))
    assert collected(run).of("traitly")[0].undelivered == 40
    assert traffic(sandbox, "traitly")["requests"] == 1
    forget(run)
    gate.forget(run)


def test_nothing_to_send(sandbox: Running) -> None:
    to = at(sandbox, "teak")
    tally, _ = deliver(to, []).of("teak")
    assert tally.requests == tally.delivered == 0


def test_a_missing_credential_says_so(sandbox: Running) -> None:
    to = at(sandbox, "teak", credentials={"game_id": "g", "secret_key": "env:PLAYRELAY_TEST_NOT_SET"})
    with pytest.raises(CredentialError, match="PLAYRELAY_TEST_NOT_SET"):
        sink.settings_of(to)
