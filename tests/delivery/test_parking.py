"""Parking: what is said of a destination that takes nothing, and when it is asked again."""

from __future__ import annotations

from transforms.deliver.gate import Halt
from transforms.deliver.parking import Parking, words


def test_the_key_to_mend_is_named_as_the_relay_file_has_it() -> None:
    halt = Halt("HTTP 401: who?", "credentials.api_key")
    assert words("crm", halt) == "HTTP 401: who?; check destinations.crm.credentials.api_key in the relay file"
    assert words("crm", Halt("HTTP 503")) == "HTTP 503"


def test_changes_are_told_once_and_each_probe_waits_longer() -> None:
    told: list[Halt | None] = []
    parking = Parking(told.append)
    down = Halt("HTTP 503")
    assert parking.wait(0.0, 9) == 0.0
    parking.park(down, 10.0)
    first = parking.wait(10.0, 0)
    assert 0.75 <= first <= 1.0
    assert parking.wait(10.0, 1) == 1.0, "while a probe is on its way there is no other"
    parking.park(down, 11.0)
    assert 1.5 <= parking.wait(11.0, 0) <= 2.0
    parking.park(down, 13.0, retry_after=30.0)
    assert parking.wait(13.0, 0) == 30.0
    parking.release()
    assert parking.wait(13.0, 0) == 0.0
    assert told == [down, None]
