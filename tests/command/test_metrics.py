"""Metrics as Prometheus would scrape them."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines import metrics
from pipelines.explain import explained
from transforms.snapshot import DestinationState, Snapshot

TEAK = DestinationState("teak", "parked", "HTTP 503", 900, 7, 3, 40, 5000, 60, 5)
SWRVE = DestinationState('swrve "eu"\n', "sending", "", 1000, 0, 0, 0, 0, 10, 0)
NOW = Snapshot(12.5, 1000, 2, 4, 33, 1.5, "", 1, (TEAK, SWRVE))


def scrape(port: int, host: str = "127.0.0.1") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text: str = answer.read().decode()
    return text


def values(text: str) -> dict[str, float]:
    """Name and labels -> value, of this product's metrics."""
    return {
        "".join([sample.name, *(f" {value}" for _, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("playrelay_")
    }


def test_a_scrape_tells_everything() -> None:
    snapshots = [NOW]
    with metrics.serving(lambda: snapshots[-1], 0) as port:
        first = scrape(port)
        snapshots.append(NOW._replace(records=2000, oldest_unacknowledged_s=None, holding="disk full", destinations=()))
        second = scrape(port)
    other = SWRVE.name
    assert values(first) == {
        "playrelay_up_seconds": 12.5,
        "playrelay_records_total": 1000,
        "playrelay_undecodable_records_total": 2,
        "playrelay_slices_total": 4,
        "playrelay_errors_total": 1,
        "playrelay_unacknowledged_messages": 33,
        "playrelay_oldest_unacknowledged_seconds": 1.5,
        "playrelay_holding": 0,
        "playrelay_items_total teak delivered": 900,
        "playrelay_items_total teak rejected": 7,
        "playrelay_items_total teak undelivered": 3,
        f"playrelay_items_total {other} delivered": 1000,
        f"playrelay_items_total {other} rejected": 0,
        f"playrelay_items_total {other} undelivered": 0,
        "playrelay_requests_total teak": 60,
        f"playrelay_requests_total {other}": 10,
        "playrelay_retries_total teak": 5,
        f"playrelay_retries_total {other}": 0,
        "playrelay_parked_items teak": 40,
        f"playrelay_parked_items {other}": 0,
        "playrelay_parked_bytes teak": 5000,
        f"playrelay_parked_bytes {other}": 0,
        "playrelay_destination_up teak": 0,
        f"playrelay_destination_up {other}": 1,
        "playrelay_destination_state teak sending": 0,
        "playrelay_destination_state teak parked": 1,
        "playrelay_destination_state teak stopped": 0,
        f"playrelay_destination_state {other} sending": 1,
        f"playrelay_destination_state {other} parked": 0,
        f"playrelay_destination_state {other} stopped": 0,
    }
    changed = values(second)
    assert (changed["playrelay_records_total"], changed["playrelay_holding"]) == (2000, 1)
    assert changed["playrelay_oldest_unacknowledged_seconds"] == 0


def test_each_metric_has_a_type_and_help_and_stands_in_the_modules_table() -> None:
    with metrics.serving(lambda: NOW, 0) as port:
        found = list(text_string_to_metric_families(scrape(port)))
    for family in found:
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge")
    names = {sample.name for family in found for sample in family.samples}
    ours = {name for name in names if name.startswith("playrelay_")}
    assert {name for name in ours if f"{name}" not in (metrics.__doc__ or "")} == set()
    assert {name for name in names - ours if not name.startswith("process_")} == set()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught, metrics.serving(lambda: NOW, port):
            pass
    (line,) = explained(caught.value) or []
    assert line == (
        f"metrics on 127.0.0.1:{port}: Address already in use; choose another with --metrics-port, 0 for any that is free"
    )


def test_an_address_that_is_none_of_ours_is_said() -> None:
    with pytest.raises(OSError) as caught, metrics.serving(lambda: NOW, 0, "192.0.2.1"):
        pass
    assert (explained(caught.value) or [""])[0].startswith("metrics on 192.0.2.1:0: Cannot assign requested address")


def test_nothing_answers_afterwards() -> None:
    with metrics.serving(lambda: NOW, 0) as port:
        scrape(port)
    with pytest.raises(urllib.error.URLError):
        scrape(port)
