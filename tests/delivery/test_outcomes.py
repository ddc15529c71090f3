"""From items to records: the worst outcome counts, in whatever order and through whatever shuffle outcomes come."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.account import WriteReport
from transforms.collect import Collected
from transforms.dead_letter import REJECTED, UNDELIVERED, Failed
from transforms.elements import MAX_CHUNK_RECORDS, record_ref
from transforms.outcomes import RecordOutcomes
from transforms.report import DONE, NOT_BALANCED, Report, Totals
from transforms.report import UNDELIVERED as LEFT
from transforms.tally import Tally, total

outcomes = st.sampled_from([REJECTED, UNDELIVERED])
failures = st.builds(
    Failed,
    outcome=outcomes,
    reason=st.sampled_from(["HTTP 400", "HTTP 503", "too large"]),
    source=st.sampled_from(["a.jsonl", "b.jsonl.gz"]),
    ref=st.builds(record_ref, st.sampled_from([0, 7, 1 << 40]), st.integers(0, 40)),
    model=st.sampled_from(["action", "player_login"]),
)


def worst(failed: list[Failed]) -> tuple[int, int]:
    """(records rejected, records undelivered), the plain way."""
    records: dict[tuple[str, int], set[str]] = {}
    for one in failed:
        records.setdefault((one.source, one.ref), set()).add(one.outcome)
    left = sum(UNDELIVERED in found for found in records.values())
    return len(records) - left, left


@given(st.lists(failures, max_size=60), st.integers(0, 60))
def test_a_records_outcome_is_the_worst_of_its_items(failed: list[Failed], cut: int) -> None:
    found = RecordOutcomes()
    found.add(failed[cut:])
    found.add(failed[:cut])
    assert (found.rejected(), found.undelivered()) == worst(failed)


def test_records_of_all_kinds() -> None:
    found = RecordOutcomes()
    assert (found.rejected(), found.undelivered()) == (0, 0)
    found.add([Failed(REJECTED, "", "f", 1, "action"), Failed(UNDELIVERED, "", "f", 1, "player_login")])
    found.add([Failed(UNDELIVERED, "", "f", 2), Failed(REJECTED, "", "f", 2)])
    found.add([Failed(REJECTED, "", "f", 3), Failed(REJECTED, "", "f", 3)])
    found.add([Failed(REJECTED, "", "other", 3)])
    found.add([Failed(REJECTED, "", "f", record_ref(9, MAX_CHUNK_RECORDS - 1))])
    assert (found.rejected(), found.undelivered()) == (3, 2)


counts = st.integers(0, 1000)
tallies = st.builds(
    Tally,
    records=counts,
    undecodable=counts,
    touched=counts,
    mapped=counts,
    delivered=counts,
    rejected=counts,
    undelivered=counts,
    requests=counts,
    retries=counts,
    bytes=counts,
    filtered=st.dictionaries(st.sampled_from(["bot", "no model"]), counts),
    reasons=st.dictionaries(st.sampled_from(["HTTP 400", "HTTP 503"]), counts),
    latency=st.dictionaries(st.integers(-80, 200), st.integers(1, 50)),
)


@given(st.lists(tallies, max_size=8), st.randoms(use_true_random=False))
def test_tallies_sum_in_any_order_and_grouping(parts: list[Tally], random: Any) -> None:
    whole = total(parts)
    for field in ("records", "touched", "delivered", "undelivered", "bytes"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)
    for field in ("filtered", "reasons", "latency"):
        assert sum(getattr(whole, field).values()) == sum(sum(getattr(part, field).values()) for part in parts)
    shuffled = list(parts)
    random.shuffle(shuffled)
    cut = len(parts) // 2
    assert total([total(shuffled[:cut]), total(shuffled[cut:])]) == whole


@given(st.lists(st.floats(0.00001, 300), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_percentile_is_near_the_true_one(seconds: list[float], share: float) -> None:
    tally = Tally()
    for one in seconds:
        tally.add_latency(one)
    true = sorted(seconds)[max(0, -int(-share * len(seconds) // 1) - 1)] * 1000
    found = tally.percentile(share)
    assert found is not None
    assert found == pytest.approx(max(true, 0.01), rel=0.06, abs=0.001)
    assert Tally().percentile(0.5) is None


def consistent(name: str, failed: list[Failed], delivered: int) -> Tally:
    """A tally that agrees with what failed."""
    rejected, left = worst(failed)
    items = sum(one.outcome == REJECTED for one in failed)
    tally = Tally(
        records=delivered + rejected + left + 3,
        touched=delivered + rejected + left,
        mapped=delivered + len(failed),
        delivered=delivered,
        rejected=items,
        undelivered=len(failed) - items,
        filtered={f"not for {name}": 3},
    )
    for one in failed:
        tally.reasons[one.reason] = tally.reasons.get(one.reason, 0) + 1
    return tally


@settings(max_examples=3, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["teak", "swrve", "12traits"]), st.lists(failures, max_size=30), min_size=1),
    st.integers(0, 50),
)
def test_the_pipelines_report_is_the_local_one(failed: dict[str, list[Failed]], delivered: int) -> None:
    # Each destination's outcomes come in several pieces, as bundles give them.
    pieces: list[tuple[str, Any]] = []
    for name, own in failed.items():
        whole = consistent(name, own, delivered)
        pieces += [(name, Tally(records=whole.records, touched=whole.touched, filtered=whole.filtered))]
        whole.records = whole.touched = 0
        whole.filtered = {}
        pieces += [(name, whole), (name, own[::2]), (name, own[1::2])]
    local = Collected()
    for name, what in pieces:
        local.add(name, what)
    totals = {}
    for name in sorted(failed):
        tally, records = local.of(name)
        totals[name] = Totals(tally, records.rejected(), records.undelivered())
    expected = Report(totals, max(one.tally.records for one in totals.values()), 0).as_json()
    file = Path(tempfile.mkdtemp()) / "report.json"
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        tallied = pipeline | "Tallies" >> beam.Create([one for one in pieces if isinstance(one[1], Tally)])
        lost = pipeline | "Failed" >> beam.Create([one for one in pieces if one[1] and not isinstance(one[1], Tally)])
        (tallied, lost) | WriteReport(str(file))
    written = json.loads(file.read_text())
    shutil.rmtree(file.parent)
    assert {**written, "seconds": 0} == {**expected, "seconds": 0}


def totals(rejected: int = 0, undelivered: int = 0, records: int = 10) -> Totals:
    lost = rejected + undelivered
    tally = Tally(
        records=records, touched=8, mapped=8, delivered=8 - lost, rejected=rejected, undelivered=undelivered,
        filtered={"no model takes it": 2},
    )  # fmt: skip
    return Totals(tally, rejected, undelivered)


@pytest.mark.parametrize(
    ("found", "max_rejected", "code"),
    [
        (totals(), None, DONE),
        (totals(), 0, DONE),
        (totals(rejected=3), None, DONE),
        (totals(rejected=3), 3, DONE),
        (totals(rejected=3), 2, LEFT),
        (totals(undelivered=1), None, LEFT),
        (totals(records=11), None, NOT_BALANCED),
        (totals(rejected=9), None, NOT_BALANCED),
        (totals(undelivered=1, records=11), 0, NOT_BALANCED),
    ],
)
def test_exit_codes(found: Totals, max_rejected: int | None, code: int) -> None:
    report = Report({"teak": found}, 10, 1.0)
    assert report.exit_code(max_rejected) == code
    assert report.as_json()["balanced"] is (code != NOT_BALANCED)


def test_an_item_without_an_outcome_is_no_balance() -> None:
    found = totals()
    found.tally.delivered -= 1
    assert not Report({"teak": found}, 10, 1.0).balanced


def test_every_destination_must_balance() -> None:
    report = Report({"teak": totals(), "swrve": totals(records=9)}, 10, 1.0)
    assert report.exit_code() == NOT_BALANCED


def test_rejected_of_all_destinations_count_together() -> None:
    report = Report({"teak": totals(rejected=2), "swrve": totals(rejected=2)}, 10, 1.0)
    assert report.exit_code(3) == LEFT
    assert report.exit_code(4) == DONE
