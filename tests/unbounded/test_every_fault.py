"""The faults of tests/delivery in a job, at every vendor: afterwards the sums are exact. What one stream can meet in a row it
does meet in a row; longer bad days are in test_bad_days.py."""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

import pytest
from deliveries import BAD, arrived, at, check_order, destination, item, some_items, traffic
from test_faults import EACH, HTML
from unbounded_streams import Outcome, Stream, by_request

from sandbox.server import Running
from transforms.deliver import courier, policy, visit

AGE = {"age_ms": 1000}
MANY = 40
"""Steps of processing time in which even 120 requests of one item go out."""

NOT_TAKEN: list[dict[str, Any]] = [
    *({"status": status} for status in (408, 429, 500, 502, 503, 504, 401, 403, 404, 410, 302)),
    {"reset": "before"},
    {"drop": True},
    {"status": 503, **HTML},
]
"""Of a request that is struck the vendor takes nothing."""

ANSWER_LOST: list[dict[str, Any]] = [{"reset": "after"}, {"truncate": 10}, {"delay_s": 1.3}, {"status": 200, **HTML}]
"""The vendor takes the request, but nobody can know."""

EMPTY = {"status": 200, "body": ""}
"""At Teak an answer says what was taken; the others' status does."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are real time, which these tests have less of than a vendor's bad day."""
    for module, name, seconds in (
        (policy, "FIRST_PAUSE", 0.02),
        (policy, "LONGEST_PAUSE", 0.05),
        (courier, "POLL", 0.02),
        (visit, "WAIT", 0.2),
    ):
        monkeypatch.setattr(module, name, seconds)


def check(
    sandbox: Running, slug: str, outcome: Outcome, count: int, rejected: Set[int] = frozenset(), twice: int = 0
) -> None:
    """Of items 0 to count - 1 these are rejected and all others delivered, each user's in order.

    twice: requests that may have come again, as their answer was lost.
    """
    assert outcome.numbers("rejected") == sorted(rejected)
    assert outcome.numbers("undelivered") == []
    assert (outcome.tally.delivered, outcome.tally.rejected) == (count - len(rejected), len(rejected))
    found = arrived(sandbox, slug)
    assert {number for _, number in found} == set(range(count)) - rejected
    check_order(found)
    first: dict[int, int] = {}
    again = set()
    for request, numbers in enumerate(by_request(sandbox, slug)):
        again |= {first[number] for number in numbers if first.setdefault(number, request) != request}
    assert len(again) <= twice
    assert traffic(sandbox, slug)["overlaps"] == 0
    outcome.check_records()


@EACH
def test_requests_that_go_wrong_once(sandbox: Running, slug: str) -> None:
    faults = [*NOT_TAKEN, *ANSWER_LOST, EMPTY]
    for number, fault in enumerate(faults):
        sandbox.fault(vendor=slug, after=1 + number, **fault)
    to = at(sandbox, slug, shards=3, batch={**AGE, "items": 10}, timeout_s=0.8)
    outcome = Stream(to).comes(*some_items(slug, 240)).passes(2, MANY).run()
    check(sandbox, slug, outcome, 240, twice=len(ANSWER_LOST) + (slug == "teak"))
    assert {fault["struck"] for fault in sandbox.faults()} == {1}
    assert outcome.tally.retries >= len(NOT_TAKEN)


def gave_up(outcome: Outcome, reason: str) -> None:
    """All of 40 items are undelivered, with their records, for one reason."""
    assert outcome.numbers("undelivered") == list(range(40))
    assert (outcome.tally.delivered, outcome.tally.rejected, outcome.tally.undelivered) == (0, 0, 40)
    said = outcome.failed[0].reason
    assert said.startswith(reason) and said.endswith("; not taken before the job ended")
    outcome.check_records()


@EACH
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        *(({"status": status}, f"HTTP {status}") for status in (408, 429, 500, 502, 504, 401, 403, 404, 410, 301)),
        ({"status": 200, **HTML}, "HTTP 200 without"),
        ({"reset": "before"}, "network: "),
        ({"drop": True}, "network: no answer in time"),
    ],
)
def test_requests_that_go_wrong_for_longer_than_the_budget(
    sandbox: Running, slug: str, fault: dict[str, Any], reason: str
) -> None:
    sandbox.fault(vendor=slug, next=None, **fault)
    to = at(sandbox, slug, shards=2, retry_s=0.1, timeout_s=0.3)
    gave_up(Stream(to).comes(*some_items(slug, 40)).run(), reason)
    assert traffic(sandbox, slug)["requests"] > 1


@EACH
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9", "connection refused"),
        # Longer than a label may be, so that no resolver has to be asked.
        (f"https://{'x' * 64}.example", "the host's name is not known"),
        ("https://SANDBOX", "TLS handshake failed"),
    ],
)
def test_nobody_is_reached(sandbox: Running, slug: str, url: str, reason: str) -> None:
    url = url.replace("SANDBOX", sandbox.url.removeprefix("http://"))
    to = destination(slug, f"{url}/{slug}", shards=2, retry_s=0.1)
    gave_up(Stream(to).comes(*some_items(slug, 40)).run(), f"network: {reason}")
    assert traffic(sandbox, slug)["requests"] == 0


@pytest.mark.parametrize("slug", [*BAD, "teak"])
def test_one_bad_item_in_a_thousand_is_found(sandbox: Running, slug: str) -> None:
    place, requests = 617, 1
    items = some_items(slug, 1000, users=1)
    if slug == "teak":  # should it refuse a request as a whole, and again each half that holds its first item
        place, requests = 300, 10
        sandbox.fault(vendor=slug, status=400, after=3, next=7)
    else:
        items[place] = item(slug, place, "u0", **BAD[slug])
    outcome = Stream(at(sandbox, slug, shards=1, batch=AGE)).comes(*items).passes(2, MANY).run()
    check(sandbox, slug, outcome, 1000, {place})
    assert outcome.tally.requests - requests <= 2 * math.log2(1000) + 2
    assert outcome.tally.retries == 0
    assert outcome.failed[0].status in (400, 422)


@EACH
def test_what_is_too_large(sandbox: Running, slug: str) -> None:
    """For a request at all; for the vendor in one request, or ever."""
    items = some_items(slug, 65, users=1)
    items[64] = item(slug, 64, "u0", action_name="x" * 4_100_000)
    sandbox.fault(vendor=slug, status=413, next=7)
    outcome = Stream(at(sandbox, slug, shards=1, batch=AGE)).comes(*items).passes(2, MANY).run()
    # At Traitly a request is one item. Elsewhere the first is halved until one item is left.
    check(sandbox, slug, outcome, 65, {*range(7), 64} if slug == "traitly" else {0, 64})
    reasons = {failed.ref: failed.reason for failed in outcome.failed}
    assert reasons[0].startswith("HTTP 413")
    assert reasons[64].startswith("too large: ")


@pytest.mark.parametrize("send", ["batch", "multi_user_batch"])
def test_swrves_batch_limit(sandbox: Running, send: str) -> None:
    sandbox.fault(vendor="swrve", status=400, body={"code": 400, "message": "Batch limit exceeded"}, next=2)
    to = at(sandbox, "swrve", shards=1, batch=AGE, options={"send": send})
    outcome = Stream(to).comes(*some_items("swrve", 200, users=1)).passes(2, MANY).run()
    check(sandbox, "swrve", outcome, 200)
    assert outcome.tally.requests == 5, "all, both halves, and both halves of the first one"


@pytest.mark.parametrize("results", [0, 1, 60])
def test_too_few_results_send_the_rest_again(sandbox: Running, results: int) -> None:
    items = some_items("teak", 100, users=100)
    told = [{"status": "ok", "user_id": one[2]} for one in items[:results]]
    sandbox.fault(vendor="teak", status=200, body={"status": "ok", "results": told})
    outcome = Stream(at(sandbox, "teak", shards=1, batch=AGE)).comes(*items).passes(2, MANY).run()
    check(sandbox, "teak", outcome, 100, twice=1)
    assert len(arrived(sandbox, "teak")) == 200 - results


def test_results_in_another_order(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u3"])
    sandbox.fault(vendor="teak", item_errors="reorder")
    items = some_items("teak", 20, users=20)
    outcome = Stream(at(sandbox, "teak", shards=1, batch=AGE)).comes(*items).passes(2, MANY).run()
    check(sandbox, "teak", outcome, 20, {3})
    assert outcome.tally.requests == 1
