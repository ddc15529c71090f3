"""Every way in which a vendor's endpoint fails now and then, at every vendor: afterwards the sums are exact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from deliveries import VENDORS, Sent, arrived, at, check_arrived, destination, send, some_items, traffic

from sandbox.server import Running
from transforms.dead_letter import UNDELIVERED

EACH = pytest.mark.parametrize("slug", VENDORS)
HTML = {"body": "<!doctype html><title>Sign in</title>", "content_type": "text/html"}


def at_every_vendor(relay: Callable[[str], Sent]) -> Iterator[tuple[str, Sent]]:
    """Does the same at all vendors side by side: (slug, what became of it)."""
    found: dict[str, Sent] = {}
    errors: list[BaseException] = []

    def one(slug: str) -> None:
        try:
            found[slug] = relay(slug)
        except BaseException as error:  # an assertion must not be lost with its thread
            errors.append(error)

    threads = [threading.Thread(target=one, args=(slug,)) for slug in VENDORS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    yield from found.items()


@EACH
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_that_passes(sandbox: Running, slug: str, status: int) -> None:
    sandbox.fault(vendor=slug, status=status, after=2)
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    assert sent.tally.retries == 1
    check_arrived(sandbox, sent)
    assert sent.tally.requests == traffic(sandbox, slug)["requests"]


@pytest.mark.parametrize(("status", "retry_after", "least"), [(429, 1, 1.0), (503, 1, 1.0), (429, "date+2", 0.9)])
def test_retry_after_is_waited_for(sandbox: Running, status: int, retry_after: Any, least: float) -> None:
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=status, retry_after=retry_after)
    for _, sent in at_every_vendor(lambda slug: send(at(sandbox, slug), some_items(slug, 40))):
        assert sent.tally.delivered == 40
        assert sent.tally.retries == 1
        assert least <= sent.seconds < 3.5
        check_arrived(sandbox, sent)


def test_a_pause_that_the_vendor_asks_for_holds_every_shard(sandbox: Running) -> None:
    sandbox.fault(vendor="traitly", retry_after=1, after=20)
    sent = send(at(sandbox, "traitly"), some_items("traitly", 400))
    assert sent.tally.delivered == 400
    times = [one["at"] for one in sandbox.items("traitly")]
    # Besides the struck one, at most one request of each of the four shards was on its way.
    assert sum(moment < times[0] + 0.9 for moment in times) <= 20 + 3
    check_arrived(sandbox, sent)


@EACH
def test_a_retry_after_beyond_the_budget_gives_up_at_once(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, retry_after=3600, next=None)
    sent = send(at(sandbox, slug, retry_s=2.0), some_items(slug, 40))
    assert sent.numbers(UNDELIVERED) == list(range(40))
    assert sent.gate.halt is not None
    assert sent.seconds < 1.0


@EACH
@pytest.mark.parametrize("retry_after", ["soon", "-5", "0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing(sandbox: Running, slug: str, retry_after: str) -> None:
    sandbox.fault(vendor=slug, retry_after=retry_after)
    sent = send(at(sandbox, slug), some_items(slug, 20))
    assert sent.tally.delivered == 20
    assert sent.seconds < 1.0
    check_arrived(sandbox, sent)


@EACH
def test_a_connection_cut_before_the_request_is_taken(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, reset="before", next=2)
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    check_arrived(sandbox, sent)


@EACH
def test_a_connection_cut_after_the_request_is_taken(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, reset="after", after=3)
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    assert sent.tally.retries == 1
    check_arrived(sandbox, sent, duplicates=10)
    found = [number for _, number in arrived(sandbox, slug)]
    assert len(found) > len(set(found)), "the fault did not do what it is for"


@EACH
@pytest.mark.parametrize("when", ["before", "after"])
def test_connections_that_are_cut_again_and_again_make_no_more_requests_than_the_rate(
    sandbox: Running, slug: str, when: str
) -> None:
    """libcurl by itself would send a request anew at once when a kept connection ends without an answer."""
    sandbox.fault(vendor=slug, reset=when, every=2)
    sent = send(
        at(sandbox, slug, batch={"items": 1}, rate=40.0, shards=16, retry_s=60.0), some_items(slug, 40, users=40)
    )
    assert sent.tally.delivered == 40
    assert sent.tally.retries >= 30
    seen = traffic(sandbox, slug)
    assert seen["requests"] == sent.tally.requests
    assert seen["max_requests_per_second"] <= 40
    check_arrived(sandbox, sent, duplicates=40)


def test_an_answer_that_never_comes(sandbox: Running) -> None:
    for slug in VENDORS:
        sandbox.fault(vendor=slug, drop=True, after=1)

    def relay(slug: str) -> Sent:
        return send(at(sandbox, slug, batch={"items": 10}, timeout_s=0.8), some_items(slug, 80))

    for _, sent in at_every_vendor(relay):
        assert sent.tally.delivered == 80
        assert sent.tally.retries == 1
        assert 0.8 <= sent.seconds < 3
        check_arrived(sandbox, sent)


def test_answers_that_never_come_end_the_budget(sandbox: Running) -> None:
    for slug in VENDORS:
        sandbox.fault(vendor=slug, drop=True, next=None)

    def relay(slug: str) -> Sent:
        return send(at(sandbox, slug, timeout_s=0.3, retry_s=0.5), some_items(slug, 40))

    for _, sent in at_every_vendor(relay):
        assert sent.numbers(UNDELIVERED) == list(range(40))
        assert sent.gate.halt is not None
        assert "no answer in time" in sent.gate.halt.reason
        assert sent.seconds < 2.0
        check_arrived(sandbox, sent)


@EACH
def test_a_late_answer_is_waited_for(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, delay_s=0.3)
    sent = send(at(sandbox, slug), some_items(slug, 20))
    assert (sent.tally.delivered, sent.tally.retries) == (20, 0)
    assert sent.seconds >= 0.3
    latency = sent.tally.percentile(1.0)
    assert latency is not None
    assert 280 < latency < 700
    check_arrived(sandbox, sent)


@EACH
def test_an_answer_cut_off(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, truncate=10, after=1)
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    assert sent.tally.retries == 1
    check_arrived(sandbox, sent, duplicates=10)


@EACH
@pytest.mark.parametrize("status", [200, 503])
def test_a_web_page_is_not_the_vendors_word(sandbox: Running, slug: str, status: int) -> None:
    sandbox.fault(vendor=slug, status=status, **HTML)
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    assert sent.tally.retries == 1
    check_arrived(sandbox, sent, duplicates=10 if status == 200 else 0)


@EACH
def test_an_empty_answer(sandbox: Running, slug: str) -> None:
    """At Teak an answer says what was taken; the others' status does."""
    sandbox.fault(vendor=slug, status=200, body="")
    sent = send(at(sandbox, slug, batch={"items": 10}), some_items(slug, 80))
    assert sent.tally.delivered == 80
    assert sent.tally.retries == (1 if slug == "teak" else 0)
    check_arrived(sandbox, sent, duplicates=10 if slug == "teak" else 0)


@EACH
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_never_followed(sandbox: Running, slug: str, status: int) -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", f"{sandbox.url}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        to = destination(slug, f"http://127.0.0.1:{server.server_port}/{slug}", shards=1)
        sent = send(to, some_items(slug, 20))
        server.shutdown()
        thread.join()
    assert sent.numbers(UNDELIVERED) == list(range(20))
    assert sent.gate.halt is not None
    assert sent.gate.halt.key == "url"
    assert len(asked) == 1
    assert traffic(sandbox, slug)["requests"] == 0


def test_all_faults_in_a_row(sandbox: Running) -> None:
    faults: list[dict[str, Any]] = [{"status": status} for status in (408, 429, 500, 502, 503, 504)]
    faults += [{"reset": "before"}, {"reset": "after"}, {"drop": True}, {"truncate": 1}, {"delay_s": 0.1}]
    for slug in VENDORS:
        for number, fault in enumerate(faults):
            sandbox.fault(vendor=slug, after=1 + number, **fault)

    def relay(slug: str) -> Sent:
        return send(at(sandbox, slug, batch={"items": 10}, timeout_s=0.8, shards=3), some_items(slug, 200))

    for _, sent in at_every_vendor(relay):
        assert sent.tally.delivered == 200
        check_arrived(sandbox, sent, duplicates=20)


# Teak answers item by item -----------------------------------------------------------------------


@pytest.mark.parametrize("results", [0, 1, 60])
def test_too_few_results_send_the_rest_again(sandbox: Running, results: int) -> None:
    """Results are the users' own, so those without one are sent again: at Teak that can only mean twice."""
    items = some_items("teak", 100, users=100)
    told = [{"status": "ok", "user_id": one[2]} for one in items[:results]]
    sandbox.fault(vendor="teak", status=200, body={"status": "ok", "results": told})
    sent = send(at(sandbox, "teak", shards=1), items)
    assert sent.tally.delivered == 100
    assert sent.tally.requests == 2
    check_arrived(sandbox, sent, duplicates=100 - results)
    assert len(arrived(sandbox, "teak")) == 200 - results


def test_results_that_stay_too_few_end_the_budget(sandbox: Running) -> None:
    items = some_items("teak", 20, users=20)
    told = [{"status": "ok", "user_id": "u0"}]
    sandbox.fault(vendor="teak", status=200, body={"status": "ok", "results": told}, next=None)
    sent = send(at(sandbox, "teak", shards=1, retry_s=0.4), items)
    assert sent.numbers(UNDELIVERED) == list(range(1, 20))
    assert sent.tally.retries >= 3
    assert 0.4 <= sent.seconds < 1.5


def test_results_in_another_order(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["u3"])
    sandbox.fault(vendor="teak", item_errors="reorder")
    sent = send(at(sandbox, "teak", shards=1), some_items("teak", 20, users=20))
    assert [failed.user for failed in sent.failed] == ["u3"]
    assert sent.tally.requests == 1
    check_arrived(sandbox, sent)


def test_items_over_the_rate_are_sent_again(sandbox: Running) -> None:
    items = some_items("teak", 10, users=10)
    told = [{"status": "ok" if n % 2 else "rate_limit", "user_id": f"u{n}"} for n in range(10)]
    sandbox.fault(vendor="teak", status=200, body={"status": "ok", "results": told})
    sent = send(at(sandbox, "teak", shards=1), items)
    assert sent.tally.delivered == 10
    assert (sent.tally.requests, sent.tally.retries) == (2, 1)
