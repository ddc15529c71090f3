"""The sender against real endpoints over HTTP: order, concurrency and what each answer leads to."""

from __future__ import annotations

import math
import socket
import threading
import time

import pytest
from deliveries import BAD, VENDORS, at, check_arrived, destination, item, send, some_items, traffic

from sandbox import credentials
from sandbox.server import Running
from transforms.dead_letter import REJECTED, UNDELIVERED

EACH = pytest.mark.parametrize("slug", VENDORS)


@EACH
def test_everything_arrives_in_order(sandbox: Running, slug: str) -> None:
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 300))
    assert sent.tally.delivered == 300
    assert sent.tally.retries == 0
    check_arrived(sandbox, sent)
    counts = traffic(sandbox, slug)
    assert (sent.tally.requests, sent.tally.bytes) == (counts["requests"], counts["bytes"])
    assert sum(sent.tally.latency.values()) == sent.tally.requests


@EACH
def test_one_request_in_flight_a_shard(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, delay_s=0.05, next=8)
    sent = send(at(sandbox, slug, shards=2, batch={"items": 5}), some_items(slug, 60, users=6))
    check_arrived(sandbox, sent)
    assert traffic(sandbox, slug)["max_in_flight"] == 2


@pytest.mark.parametrize("send_by", ["multi_user_batch", "single"])
def test_the_other_ways_to_send_to_swrve(sandbox: Running, send_by: str) -> None:
    items = some_items("swrve", 50)
    if send_by == "single":
        # A single call's payload has neither type nor time; the number travels as the session's version.
        items = [(b'{"name":"spin","app_version":"%d"}' % one[4], *one[1:]) for one in items]
    sent = send(at(sandbox, "swrve", options={"send": send_by}), items)
    assert sent.tally.delivered == 50
    counts = traffic(sandbox, "swrve")
    assert counts["accepted"] == 50
    assert counts["overlaps"] == counts["violations"] == 0
    assert counts["requests"] == (50 if send_by == "single" else 4)


def test_gzip_bodies_where_the_vendor_takes_them(sandbox: Running) -> None:
    items = some_items("parcelvoy", 500)
    sent = send(at(sandbox, "parcelvoy", gzip=True), items)
    check_arrived(sandbox, sent)
    assert sent.tally.bytes == traffic(sandbox, "parcelvoy")["bytes"] < sum(len(one[0]) for one in items) / 4


@pytest.mark.parametrize("slug", BAD)
@pytest.mark.parametrize("place", [0, 617, 999])
def test_one_bad_item_in_a_thousand_is_found(sandbox: Running, slug: str, place: int) -> None:
    items = some_items(slug, 1000, users=1)
    items[place] = item(slug, place, "u0", **BAD[slug])
    sent = send(at(sandbox, slug, shards=1), items)
    assert sent.numbers(REJECTED) == [place]
    (failed,) = sent.failed
    assert failed.status in (400, 422)
    assert failed.answer
    assert failed.payload == items[place][0]
    check_arrived(sandbox, sent, violations=True)
    assert sent.tally.requests - 1 <= 2 * math.log2(1000) + 2
    assert sent.tally.retries == 0


def test_one_bad_item_of_teaks_is_found_without_results(sandbox: Running) -> None:
    """Should Teak refuse a request as a whole: the fourth of ten, and again with each half that holds its first item."""
    sandbox.fault(vendor="teak", status=400, after=3, next=7)
    sent = send(at(sandbox, "teak", shards=1), some_items("teak", 1000, users=1))
    assert sent.numbers(REJECTED) == [300]
    assert sent.failed[0].status == 400
    check_arrived(sandbox, sent)
    assert sent.tally.requests - 10 <= 2 * math.log2(1000) + 2
    assert sent.tally.retries == 0


@pytest.mark.parametrize("send_by", ["batch", "multi_user_batch"])
def test_a_batch_beyond_swrves_limit_is_halved(sandbox: Running, send_by: str) -> None:
    sandbox.fault(vendor="swrve", status=400, body={"code": 400, "message": "Batch limit exceeded"}, next=2)
    sent = send(at(sandbox, "swrve", shards=1, options={"send": send_by}), some_items("swrve", 200, users=1))
    assert sent.tally.delivered == 200
    assert sent.tally.requests == 5, "all, both halves, and both halves of the first one"
    check_arrived(sandbox, sent)


def test_several_bad_items_are_found(sandbox: Running) -> None:
    items = some_items("12traits", 500, users=3)
    bad = [7, 8, 250, 499]
    for place in bad:
        items[place] = item("12traits", place, f"u{place % 3}", action_name="")
    sent = send(at(sandbox, "12traits", shards=2), items)
    assert sent.numbers(REJECTED) == bad
    check_arrived(sandbox, sent, violations=True)


def test_a_single_object_that_is_refused_is_rejected_at_once(sandbox: Running) -> None:
    items = some_items("traitly", 20)
    items[5] = item("traitly", 5, "u5", name="")
    sent = send(at(sandbox, "traitly"), items)
    assert sent.numbers(REJECTED) == [5]
    assert sent.tally.requests == 20
    check_arrived(sandbox, sent, violations=True)


def test_teaks_answers_count_item_by_item(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u3"])
    sent = send(at(sandbox, "teak"), some_items("teak", 210))
    assert sent.numbers(REJECTED) == list(range(3, 210, 7))
    assert {failed.reason for failed in sent.failed} == {"user_id could not be found"}
    check_arrived(sandbox, sent)


def test_swrve_names_external_users_it_does_not_know(sandbox: Running) -> None:
    sandbox.configure("swrve", unknown_users=["u2", "u4"])
    options = {"send": "multi_user_batch", "user_ids": "external"}
    sent = send(at(sandbox, "swrve", options=options), some_items("swrve", 70))
    assert sent.numbers(REJECTED) == sorted([*range(2, 70, 7), *range(4, 70, 7)])
    check_arrived(sandbox, sent)


@EACH
def test_an_item_too_large_for_a_request_is_not_sent(sandbox: Running, slug: str) -> None:
    items = some_items(slug, 21, users=3)
    items[10] = item(slug, 10, "u1", action_name="x" * 4_100_000)
    sent = send(at(sandbox, slug, shards=2), items)
    assert sent.numbers(REJECTED) == [10]
    assert "too large" in sent.failed[0].reason
    assert str(len(items[10][0]))[:3] in sent.failed[0].reason
    check_arrived(sandbox, sent)


WRONG = {
    "12traits": {"api_key": "wrong"},
    "traitly": {"token": "wrong"},
    "parcelvoy": {"api_key": "pk_wrong"},
    "swrve": {"app_id": "1000", "api_key": "wrong"},
    "teak": {"game_id": "sandbox-teak-game", "secret_key": "wrong"},
}


@EACH
def test_a_wrong_key_stops_the_destination_and_keeps_its_items(sandbox: Running, slug: str) -> None:
    sent = send(at(sandbox, slug, credentials=WRONG[slug], batch={"items": 3}, shards=1), some_items(slug, 40))
    assert sent.numbers(UNDELIVERED) == list(range(40))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key.startswith("credentials")
    assert sent.tally.requests == traffic(sandbox, slug)["requests"] == 1
    assert not any("wrong" in failed.reason + failed.answer for failed in sent.failed)
    check_arrived(sandbox, sent, violations=True)


@EACH
@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusing_endpoint_stops_the_destination(sandbox: Running, slug: str, status: int) -> None:
    sandbox.fault(vendor=slug, status=status, after=3, next=None)
    sent = send(at(sandbox, slug, batch={"items": 5}, shards=2), some_items(slug, 100))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key.split(".")[0] in ("credentials", "url")
    assert str(status) in sent.gate.halt.reason
    assert 0 < sent.tally.delivered < 100
    assert sent.numbers(REJECTED) == []
    # The first refusal, and what was in flight beside it.
    assert 4 <= traffic(sandbox, slug)["requests"] <= 5
    check_arrived(sandbox, sent)


@EACH
def test_an_address_that_is_not_the_vendors_names_the_url(sandbox: Running, slug: str) -> None:
    sent = send(destination(slug, f"{sandbox.url}/elsewhere"), some_items(slug, 5))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key == "url"
    assert sent.numbers(UNDELIVERED) == list(range(5))


def test_an_app_that_is_gone(sandbox: Running) -> None:
    gone = {"app_id": credentials.SWRVE_GONE_APP_ID, "api_key": credentials.SWRVE_GONE_API_KEY}
    sent = send(at(sandbox, "swrve", credentials=gone, shards=1), some_items("swrve", 9))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key == "credentials.app_id"
    assert sent.tally.requests == 1


def test_a_vendor_that_repeats_the_key_leaks_nothing(sandbox: Running) -> None:
    key = credentials.TWELVE_TRAITS_API_KEY
    body = {"code": 400, "message": "bad request", "errors": {"key": f"{key} may not do this"}}
    sandbox.fault(vendor="12traits", status=400, body=body, next=None)
    sent = send(at(sandbox, "12traits"), some_items("12traits", 3))
    assert sent.numbers(REJECTED) == [0, 1, 2]
    assert not any(key in failed.reason + failed.answer for failed in sent.failed)
    assert all("*** may not do this" in failed.reason for failed in sent.failed)
    assert not any(key in reason for reason in sent.tally.reasons)
    sandbox.clear_faults()
    sandbox.fault(vendor="12traits", status=401, body=f"who is {'x' * 280} {key}?", next=None)
    sent = send(at(sandbox, "12traits"), some_items("12traits", 3))
    assert sent.gate.halt is not None
    assert not any(key[:8] in text for text in (sent.gate.halt.reason, sent.failed[0].reason, sent.failed[0].answer))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@EACH
def test_nobody_listens(slug: str) -> None:
    sent = send(destination(slug, f"http://127.0.0.1:{_free_port()}/{slug}", retry_s=0.3), some_items(slug, 30))
    assert sent.numbers(UNDELIVERED) == list(range(30))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key == ""
    assert "connection refused" in sent.gate.halt.reason
    assert sent.tally.retries > 0
    assert sent.seconds < 1.5


def test_a_vendor_comes_back_and_its_backlog_goes_out_in_order() -> None:
    port = _free_port()
    back: list[Running] = []

    def come_back() -> None:
        time.sleep(0.4)
        back.append(Running(port=port))
        back[0].__enter__()

    thread = threading.Thread(target=come_back)
    thread.start()
    sent = send(destination("teak", f"http://127.0.0.1:{port}/teak", batch={"items": 5}), some_items("teak", 100))
    thread.join()
    assert sent.tally.delivered == 100
    assert sent.tally.retries > 0
    check_arrived(back[0], sent)
    back[0].stop()


@EACH
def test_the_retry_budget_ends(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, status=503, next=None)
    sent = send(at(sandbox, slug, retry_s=0.4, batch={"items": 5}), some_items(slug, 60))
    assert sent.numbers(UNDELIVERED) == list(range(60))
    assert sent.gate.halt is not None
    assert "HTTP 503" in sent.gate.halt.reason
    assert sent.tally.retries >= 4
    assert 0.4 <= sent.seconds < 1.2
    # All shards tried their first batch again and again, and none went on to its next.
    assert max(sent.tally.reasons.values()) < 60
    assert len(sent.tally.reasons) == 2
    check_arrived(sandbox, sent)


def test_a_batch_that_is_never_taken_does_not_stop_the_others(sandbox: Running) -> None:
    sandbox.fault(vendor="parcelvoy", path="/api/client/identify", status=500, next=None)
    items = some_items("parcelvoy", 200, users=10)
    items[0] = (b'{"external_id":"u0"}', 1, *items[0][2:])
    to = at(sandbox, "parcelvoy", shards=10, retry_s=1.5, batch={"items": 2})
    sandbox.fault(vendor="parcelvoy", path="/api/client/events", delay_s=0.2, next=None)
    sent = send(to, items, models=("event", "identify"))
    assert sent.numbers(UNDELIVERED) == [0]
    assert sent.gate.halt is None
    assert sent.failed[0].model == "identify"
    assert sent.failed[0].status == 500
    check_arrived(sandbox, sent)
