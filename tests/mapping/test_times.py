"""Times read and written: units, formats, zones, what is no time."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.mapping.runtime import Bad
from transforms.mapping.times import time_from_number, time_from_text, time_to_text, zone_named

TIME = 1_764_000_000_123
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 1_764_000_000, 1_764_000_000_000),
        ("s", 1_764_000_000.123, TIME),
        ("s", -1, -1000),
        ("ms", TIME, TIME),
        ("ms", 1.6, 2),
        ("us", TIME * 1000 + 999, TIME),
        ("ns", TIME * 1_000_000, TIME),
    ],
)
def test_numbers(unit: str, value: float, expected: int) -> None:
    assert time_from_number(unit)(value, "f") == expected


@pytest.mark.parametrize("value", [10**30, -(10**30), 1e300, float("inf"), float("nan"), True, [], "x"])
def test_numbers_that_are_no_times(value: object) -> None:
    with pytest.raises(Bad) as caught:
        time_from_number("s")(value, "field")
    assert caught.value.field == "field"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-24T16:00:00.123Z", TIME),
        ("2025-11-24 16:00:00.123", TIME),
        ("2025-11-24T17:00:00.123+01:00", TIME),
        ("2025-11-24T10:30:00.1239999-0530", TIME),
        ("2025-11-24T16:00Z", TIME - 123),
        ("2025-11-24", 1_763_942_400_000),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00Z", FIRST),
        ("9999-12-31T23:59:59.999Z", LAST),
    ],
)
def test_iso(text: str, expected: int) -> None:
    assert time_from_text("iso", None)(text, "f") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "2025-13-01",
        "2025-02-30",
        "2025-11-24T25:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "2025-11-24T16:00:00Zz",
        5,
        None,
    ],
)
def test_texts_that_are_no_times(text: object) -> None:
    with pytest.raises(Bad):
        time_from_text("iso", None)(text, "f")


def test_formats_and_zones() -> None:
    read = time_from_text("%d.%m.%Y %H:%M", "Europe/Berlin")
    assert read("24.11.2025 17:00", "f") == 1_764_000_000_000
    assert read("24.07.2025 17:00", "f") == 1_753_369_200_000  # summer time
    assert time_from_text("%Y-%m-%d %H:%M:%S%z", "Europe/Berlin")("2025-11-24 16:00:00+0000", "f") == 1_764_000_000_000
    with pytest.raises(Bad):
        read("2025-11-24", "f")
    assert zone_named("Europe/Berlim") is None
    assert zone_named("../../etc/passwd") is None


@given(st.integers(FIRST, LAST))
def test_written_and_read_again(time_ms: int) -> None:
    assert time_from_text("iso", None)(time_to_text("iso")(time_ms, "f"), "f") == time_ms
    second = time_to_text("%Y-%m-%d %H:%M:%S")(time_ms, "f")
    assert time_from_text("%Y-%m-%d %H:%M:%S", None)(second, "f") == time_ms // 1000 * 1000


@given(st.integers(0, 4_000_000_000_000))
def test_iso_is_as_python_writes_it(time_ms: int) -> None:
    moment = datetime.fromtimestamp(time_ms // 1000, timezone.utc)
    assert time_to_text("iso")(time_ms, "f") == f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


@pytest.mark.parametrize("time_ms", [FIRST - 1, LAST + 1, 2**63 - 1])
@pytest.mark.parametrize("to", ["iso", "%Y"])
def test_times_beyond_the_calendar(time_ms: int, to: str) -> None:
    with pytest.raises(Bad):
        time_to_text(to)(time_ms, "f")


def test_more_texts_than_are_remembered() -> None:
    write, read = time_to_text("%Y-%m-%d %H:%M:%S"), time_from_text("iso", None)
    for second in range(0, 10_000_000, 1000):
        assert write(second * 1000, "f") == f"{datetime.fromtimestamp(second, timezone.utc):%Y-%m-%d %H:%M:%S}"
        assert read(time_to_text("iso")(second * 1000, "f"), "f") == second * 1000
