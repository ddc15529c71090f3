"""The pace of a destination: never above its rate, close to it, shared between processes, and pauses for all."""

from __future__ import annotations

import threading
import time

import pytest
from deliveries import at, check_arrived, send, some_items, traffic

from sandbox.server import Running
from transforms.deliver import gate
from transforms.deliver.gate import Gate, Halt

TEAK_RATE = 100


def departures(one: Gate, seconds: float, step: float = 0.0005, start: float = 1000.0) -> list[float]:
    """When requests leave that are always ready, on a clock that is asked every `step` seconds."""
    left = []
    now = start
    while now < start + seconds:
        while one.claim(now) == 0.0:
            left.append(now)
        now += step
    return left


def most_in_a_second(left: list[float]) -> int:
    first = most = 0
    for last, moment in enumerate(left):
        while left[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_teaks_limit_holds_and_is_used(sandbox: Running) -> None:
    """On a machine that is busy enough, what left evenly arrives together: then it is tried again."""
    items = some_items("teak", 260, users=40)
    for left in (2, 1, 0):
        sandbox.reset()
        sent = send(at(sandbox, "teak", rate=float(TEAK_RATE), shards=16, batch={"items": 1}), items)
        assert sent.tally.delivered == 260
        busiest = traffic(sandbox, "teak")["max_requests_per_second"]
        if left == 0 or (90 <= busiest <= TEAK_RATE and sent.seconds < 260 / 90 + 0.3):
            break
    check_arrived(sandbox, sent)
    assert 90 <= busiest <= TEAK_RATE
    assert sent.seconds < 260 / 90 + 0.3


@pytest.mark.parametrize("rate", [0.5, 3.0, 100.0, 2500.0])
def test_no_second_has_more_than_the_rate(rate: float) -> None:
    one = Gate(rate, 4)
    one.enter(4)
    seconds = max(3.0, 4 / rate)
    left = departures(one, seconds, step=min(0.01, 0.2 / rate))
    assert most_in_a_second(left) <= max(rate, 1)
    assert len(left) >= 0.9 * rate * seconds - 1


@pytest.mark.parametrize("step", [0.005, 0.05])
def test_a_busy_process_still_keeps_the_rate_and_catches_up_a_little(step: float) -> None:
    one = Gate(100.0, 1)
    one.enter(1)
    left = departures(one, 5.0, step=step)
    assert most_in_a_second(left) <= 100
    assert len(left) >= (460 if step < 0.01 else 250)


def test_what_was_not_used_is_not_saved_up() -> None:
    one = Gate(100.0, 1)
    one.enter(1)
    departures(one, 1.0)
    assert most_in_a_second(departures(one, 1.0, start=1600.0)) <= 100


def test_processes_share_a_rate_by_their_shards() -> None:
    small, large = Gate(100.0, 16), Gate(100.0, 16)
    small.enter(4)
    large.enter(12)
    both = sorted(departures(small, 4.0) + departures(large, 4.0))
    # Each process spaces its own requests only, so that one of each may meet.
    assert most_in_a_second(both) <= 101
    assert len(both) >= 4 * 90
    large.leave(12)
    small.enter(12)
    assert len(departures(small, 4.0, start=2000.0)) >= 4 * 90


def test_a_rate_is_never_exceeded_by_more_shards_than_there_are() -> None:
    """The shards of several bundles may be in one process at once."""
    one = Gate(50.0, 2)
    one.enter(9)
    assert most_in_a_second(departures(one, 3.0)) <= 50


def test_a_pause_is_for_everybody_and_the_longest_stands() -> None:
    one = Gate(None, 1)
    assert one.claim(10.0) == 0.0
    one.pause(13.0)
    one.pause(12.0)
    assert one.claim(10.0) == pytest.approx(3.0)
    assert one.claim(12.5) == pytest.approx(0.5)
    assert one.claim(13.0) == 0.0


def test_the_first_reason_to_stop_stands() -> None:
    one = Gate(None, 1)
    one.stop(Halt("HTTP 401", "credentials.api_key"))
    one.stop(Halt("interrupted"))
    assert one.halt == Halt("HTTP 401", "credentials.api_key")


def test_a_run_has_one_gate_a_destination() -> None:
    found = gate.gate("run", "teak", 1.0, 1)
    assert gate.gate("run", "teak", 1.0, 1) is found
    assert gate.gate("run", "other", 1.0, 1) is not found
    assert gate.gate("other run", "teak", 1.0, 1) is not found
    gate.forget("run")
    assert gate.gate("run", "teak", 1.0, 1) is not found
    gate.forget("run")
    gate.forget("other run")


def test_threads_together_keep_the_rate() -> None:
    one = Gate(200.0, 1)
    one.enter(1)
    left: list[float] = []
    end = time.monotonic() + 1.5

    def work() -> None:
        while (now := time.monotonic()) < end:
            pause = one.claim(now)
            if pause:
                time.sleep(min(pause, 0.01))
            else:
                left.append(now)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1.5 * 180 - 5 <= len(left) <= 1.5 * 200 + 2
    assert most_in_a_second(sorted(left)) <= 200
