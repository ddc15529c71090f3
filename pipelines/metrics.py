"""Prometheus metrics of a running relay, for `--metrics-port`.

| metric | labels |
|---|---|
| playrelay_up_seconds | |
| playrelay_records_total, playrelay_undecodable_records_total | |
| playrelay_items_total | destination, outcome: delivered, rejected or undelivered |
| playrelay_requests_total, playrelay_retries_total | destination |
| playrelay_parked_items, playrelay_parked_bytes | destination |
| playrelay_destination_up | destination: 1 sending, 0 parked or stopped |
| playrelay_destination_state | destination, state: sending, parked or stopped; 1 for the one that is |
| playrelay_slices_total, playrelay_errors_total | |
| playrelay_unacknowledged_messages, playrelay_oldest_unacknowledged_seconds | |
| playrelay_holding | 1 while nothing is pulled on purpose |

Besides them the process's own memory, CPU time and open files (process_…), where the system tells them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from transforms.snapshot import DestinationState, Snapshot

HOST = "127.0.0.1"
"""Metrics are for this machine unless another address is asked for: they name destinations and amounts."""

STATES = ("sending", "parked", "stopped")


@contextlib.contextmanager
def serving(snapshot: Callable[[], Snapshot], port: int, host: str = HOST) -> Iterator[int]:
    """Serves metrics over HTTP while it is open; gives the port, which is a free one when `port` is 0.

    snapshot: called for each scrape, from a thread of its own. OSError naming address and remedy when the port cannot
    be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Relay(snapshot))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; choose another with --metrics-port, 0 for any that is free",
            f"metrics on {host}:{port}",
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Relay(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that the snapshot is not asked for before somebody scrapes."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What Prometheus gets."""
        return families(self._snapshot())


def families(now: Snapshot) -> Iterator[Metric]:
    """The metrics of a snapshot."""
    yield GaugeMetricFamily("playrelay_up_seconds", "Seconds since the relay began.", now.seconds)
    yield CounterMetricFamily("playrelay_records", "Records read.", now.records)
    yield CounterMetricFamily("playrelay_undecodable_records", "Records that could not be decoded.", now.undecodable)
    yield CounterMetricFamily("playrelay_slices", "Slices of the stream that were relayed.", now.slices)
    yield CounterMetricFamily("playrelay_errors", "Errors that the relay went on after.", now.errors)
    yield GaugeMetricFamily(
        "playrelay_unacknowledged_messages",
        "Messages that were pulled and are not acknowledged yet.",
        now.unacknowledged,
    )
    yield GaugeMetricFamily(
        "playrelay_oldest_unacknowledged_seconds",
        "Age of the oldest message that was pulled and is not acknowledged; 0 when there is none.",
        now.oldest_unacknowledged_s or 0.0,
    )
    yield GaugeMetricFamily(
        "playrelay_holding",
        "1 while nothing is pulled on purpose, as when parked items fill their share.",
        bool(now.holding),
    )
    yield from _of_destinations(now.destinations)


def _of_destinations(destinations: Iterable[DestinationState]) -> Iterator[Metric]:
    by_destination = ("destination",)
    items = CounterMetricFamily("playrelay_items", "Items by their outcome.", labels=("destination", "outcome"))
    requests = CounterMetricFamily("playrelay_requests", "Requests made to the vendor.", labels=by_destination)
    retries = CounterMetricFamily(
        "playrelay_retries", "Requests, of those, that sent something again.", labels=by_destination
    )
    parked_items = GaugeMetricFamily(
        "playrelay_parked_items", "Items that wait on disk until the vendor takes them.", labels=by_destination
    )
    parked_bytes = GaugeMetricFamily(
        "playrelay_parked_bytes",
        "Bytes on disk of these items and of the messages they came in.",
        labels=by_destination,
    )
    up = GaugeMetricFamily(
        "playrelay_destination_up",
        "1 while the destination is sent to, 0 while it is parked or stopped.",
        labels=by_destination,
    )
    states = GaugeMetricFamily(
        "playrelay_destination_state", "1 for the state that the destination is in.", labels=("destination", "state")
    )
    for one in destinations:
        name = [one.name]
        for outcome, number in (
            ("delivered", one.delivered),
            ("rejected", one.rejected),
            ("undelivered", one.undelivered),
        ):
            items.add_metric([one.name, outcome], number)
        requests.add_metric(name, one.requests)
        retries.add_metric(name, one.retries)
        parked_items.add_metric(name, one.parked_items)
        parked_bytes.add_metric(name, one.parked_bytes)
        up.add_metric(name, one.state == "sending")
        for state in STATES:
            states.add_metric([one.name, state], one.state == state)
    yield from (items, requests, retries, parked_items, parked_bytes, up, states)
