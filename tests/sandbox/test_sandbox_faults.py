"""Faults on request, over real HTTP."""

from __future__ import annotations

import email.utils
import http.client
import time
from typing import Any

import pytest
from sandbox_client import TEAK_BATCH, counts, parcelvoy, post, reasons, teak, view

from sandbox.credentials import RELAY_FILE
from sandbox.server import Running


def test_a_status_takes_nothing_and_is_no_violation(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503)
    answer = teak(sandbox, "a", "b")
    assert (answer.status, answer.json) == (503, {"status": "error", "errors": {"base": ["Service Unavailable"]}})
    assert counts(sandbox, "teak") == (1, 0, 0)
    assert teak(sandbox, "a", "b").status == 200
    assert counts(sandbox, "teak") == (2, 2, 0)
    assert view(sandbox)["faulted"] == 1
    assert sandbox.violations() == []


def test_a_fault_hides_no_violation(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=500)
    assert post(sandbox, TEAK_BATCH, {"events": []}).status == 500
    assert reasons(sandbox) == ["game_id: could not be found"]


@pytest.mark.parametrize("seconds", [0, 7])
def test_retry_after_in_seconds(sandbox: Running, seconds: int) -> None:
    sandbox.fault(vendor="teak", retry_after=seconds)
    answer = teak(sandbox, "a")
    assert (answer.status, answer.headers["retry-after"]) == (429, str(seconds))
    assert answer.json["status"] == "rate_limit"


def test_retry_after_as_a_date(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=503, retry_after="Fri, 31 Dec 1999 23:59:59 GMT")
    assert teak(sandbox, "a").headers["retry-after"] == "Fri, 31 Dec 1999 23:59:59 GMT"
    sandbox.fault(vendor="teak", status=503, retry_after="date+20")
    until = email.utils.parsedate_to_datetime(teak(sandbox, "a").headers["retry-after"]).timestamp()
    assert 17 < until - time.time() <= 20


def test_another_body(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=502, body="<h1>Bad Gateway</h1>", content_type="text/html")
    answer = teak(sandbox, "a")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (502, b"<h1>Bad Gateway</h1>", "text/html")
    sandbox.fault(vendor="teak", body={"status": "maintenance"})
    answer = teak(sandbox, "a")
    assert (answer.status, answer.body) == (200, b'{"status":"maintenance"}')
    assert counts(sandbox, "teak") == (2, 1, 0)


def test_a_delayed_answer_is_taken(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", delay_s=0.3)
    begin = time.monotonic()
    assert teak(sandbox, "a").status == 200
    assert time.monotonic() - begin >= 0.3
    sandbox.fault(vendor="teak", delay_s=5)
    with pytest.raises(TimeoutError):
        teak(sandbox, "a", timeout=0.2)
    assert counts(sandbox, "teak") == (2, 2, 0)


@pytest.mark.parametrize(("when", "accepted"), [("before", 0), ("after", 1)])
def test_a_reset(sandbox: Running, when: str, accepted: int) -> None:
    sandbox.fault(vendor="teak", reset=when)
    with pytest.raises(ConnectionResetError):
        teak(sandbox, "a")
    assert counts(sandbox, "teak") == (1, accepted, 0)
    assert view(sandbox)["answers"] == {"reset": 1}
    assert teak(sandbox, "a").status == 200


@pytest.mark.parametrize("cut", [0, 20, 10_000])
def test_a_truncated_answer(sandbox: Running, cut: int) -> None:
    sandbox.fault(vendor="teak", truncate=cut)
    with pytest.raises(http.client.IncompleteRead) as caught:
        teak(sandbox, "a")
    whole = teak(sandbox, "a").body
    assert caught.value.partial == whole[: min(cut, len(whole) - 1)]
    assert counts(sandbox, "teak") == (2, 2, 0)


def test_a_truncated_answer_without_a_body(sandbox: Running) -> None:
    sandbox.fault(vendor="parcelvoy", truncate=3)
    with pytest.raises(http.client.HTTPException):
        parcelvoy(sandbox)
    assert counts(sandbox, "parcelvoy") == (1, 1, 0)


def test_no_answer_at_all(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", drop=True)
    with pytest.raises(TimeoutError):
        teak(sandbox, "a", timeout=0.3)
    assert counts(sandbox, "teak") == (1, 0, 0)


def test_single_items_fail(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", item_errors=[0, 2])
    answer = teak(sandbox, "a", "b", "c").json
    assert [each["status"] for each in answer["results"]] == ["error", "ok", "error"]
    assert answer["summary"] == {"total_events": 3, "successful_events": 1, "failed_events": 2}
    assert counts(sandbox, "teak") == (1, 1, 2)
    assert sandbox.violations() == []


def test_results_in_another_order(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", item_errors="reorder")
    assert [each["user_id"] for each in teak(sandbox, "a", "b", "c").json["results"]] == ["c", "b", "a"]


def test_only_requests_with_something_in_their_body_are_struck(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=500, containing='"user_id": "b"', next=None)
    assert [teak(sandbox, user).status for user in ("a", "b", "c")] == [200, 500, 200]
    assert sandbox.faults()[0]["seen"] == 1


def statuses(sandbox: Running, count: int) -> list[int]:
    return [teak(sandbox, "a").status for _ in range(count)]


def test_which_requests_are_struck(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", status=500, next=2, after=1)
    assert statuses(sandbox, 4) == [200, 500, 500, 200]
    sandbox.clear_faults()
    sandbox.fault(vendor="teak", status=500, every=3)
    assert statuses(sandbox, 6) == [200, 200, 500, 200, 200, 500]
    sandbox.clear_faults()
    sandbox.fault(vendor="teak", status=500, next=None)
    assert statuses(sandbox, 3) == [500] * 3
    sandbox.clear_faults()
    sandbox.fault(vendor="teak", status=500, every=2, next=1)
    assert statuses(sandbox, 4) == [200, 500, 200, 200]
    sandbox.fault(vendor="teak", path="/v1", status=500)
    sandbox.fault(vendor="swrve", status=500)
    assert statuses(sandbox, 1) == [200]
    sandbox.fault(vendor="teak", path="/v2", status=500)
    sandbox.fault(vendor="teak", status=503)
    assert statuses(sandbox, 3) == [500, 503, 200]
    assert [(fault["struck"], fault["active"]) for fault in sandbox.faults()] == [
        (1, False),
        (0, True),
        (0, True),
        (1, False),
        (1, False),
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"vendor": "acme"}, "vendor: must be one of 12traits, traitly, parcelvoy, swrve, teak"),
        ({"vendor": "teak", "stauts": 500}, "stauts: unknown key; a fault has vendor, path, containing, status"),
        ({"vendor": "teak", "status": 99}, "status: must be an integer from 100 to 599"),
        ({"vendor": "teak", "reset": "now"}, "reset: must be before or after"),
        ({"vendor": "teak", "delay_s": -1}, "delay_s: must be a number of seconds up to 3600"),
        ({"vendor": "teak", "delay_s": "1"}, "delay_s: must be a number of seconds up to 3600"),
        ({"vendor": "teak", "drop": 1}, "drop: must be true or false"),
        ({"vendor": "teak", "next": 0}, "next: must be an integer from 1"),
        ({"vendor": "teak", "retry_after": -1}, "retry_after: must be seconds, an HTTP date or date+SECONDS"),
        ({"vendor": "teak", "retry_after": "date+x"}, "retry_after: date+ is followed by a number of seconds"),
        ({"vendor": "teak", "retry_after": "a\r\nb: c"}, "retry_after: must be seconds"),
        ({"vendor": "teak", "path": 1}, "path: must be a string"),
        ({"vendor": "teak", "content_type": "a\nb"}, "content_type: must be a string"),
        ({"vendor": "teak", "containing": 7}, "containing: must be a string"),
        ({"vendor": "teak", "item_errors": "first"}, "item_errors: must be a list of indexes"),
        ({"vendor": "traitly", "item_errors": [0]}, "item_errors: traitly does not answer item by item"),
    ],
)
def test_a_fault_that_makes_no_sense(sandbox: Running, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("+", r"\+")):
        sandbox.fault(**fault)
    assert sandbox.faults() == []


@pytest.mark.parametrize("vendor", RELAY_FILE)
def test_each_vendor_fails_in_its_own_form(sandbox: Running, vendor: str) -> None:
    sandbox.fault(vendor=vendor, status=503)
    answer = post(sandbox, f"/{vendor}/x", {})
    assert answer.status == 503
    assert "Service Unavailable" in answer.body.decode()
