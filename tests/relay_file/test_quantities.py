"""Durations, sizes and rates."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("250ms", 0.25), ("5m", 300.0), ("1h30m", 5400.0), ("2d", 172800.0), ("0.5s", 0.5), (0, 0.0), ("0s", 0.0)],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert quantities.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1MB", 1_000_000), ("1MiB", 1_048_576), ("500 KB", 500_000), ("500kB", 500_000), ("4M", 4_000_000), ("1.5MB", 1_500_000),
     ("12B", 12), ("12", 12), (4096, 4096), ("1GiB", 1024**3)],
)  # fmt: skip
def test_sizes(text: object, count: int) -> None:
    assert quantities.size(text) == count


@pytest.mark.parametrize(
    ("text", "rate"), [("100/s", 100.0), ("6000/m", 100.0), ("36/h", 0.01), ("0.5 / s", 0.5), ("unlimited", None)]
)
def test_rates(text: object, rate: float | None) -> None:
    assert quantities.rate(text) == (None if rate is None else pytest.approx(rate))


@pytest.mark.parametrize(
    "value", [None, True, 30, 1.5, "", "30", "s", "-5s", "5 parsecs", "5S", [], {}, "9" * 50 + "s", "1s2", "1h 30m"]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 30s"):
        quantities.duration(value)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "", "MB", "1 TB", "1mb", "-1MB", [], "9" * 50])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 500KB"):
        quantities.size(value)


@pytest.mark.parametrize("value", [None, True, 100, "100", "100/d", "0/s", "-1/s", "/s", "fast", [], "9" * 50 + "/s"])
def test_what_is_no_rate(value: object) -> None:
    with pytest.raises(ValueError, match="expected a rate such as 100/s"):
        quantities.rate(value)


def test_a_bare_number_is_asked_for_its_unit() -> None:
    with pytest.raises(ValueError, match="is 30s meant"):
        quantities.duration(30)
    with pytest.raises(ValueError, match="is 100/s meant"):
        quantities.rate(100)


@pytest.mark.parametrize("count", [1, 999, 1000, 1024, 1_000_000, 4_000_000, 1_048_576, 10**9, 1234])
def test_a_shown_size_reads_back(count: int) -> None:
    shown = quantities.show_size(count).removesuffix(" bytes").replace(",", "")
    assert quantities.size(shown) == count


def test_shown_rates() -> None:
    assert [quantities.show_rate(rate) for rate in (100.0, 0.5, 0.01)] == ["100/s", "30/m", "36/h"]


@pytest.mark.parametrize(
    ("read", "pattern"),
    [
        (quantities.duration, quantities.DURATION_PATTERN),
        (quantities.size, quantities.BYTES_PATTERN),
        (quantities.rate, quantities.RATE_PATTERN),
    ],
)
@given(text=st.lists(st.sampled_from([*"015. smhdkKMGiBx/", "ms", "unlimited"]), max_size=7).map("".join))
def test_the_patterns_editors_get_allow_no_less_and_no_more(
    read: Callable[[object], object], pattern: str, text: str
) -> None:
    try:
        read(text)
        taken = True
    except ValueError as error:
        taken = "a rate of 0" in str(error)
    assert taken == (re.fullmatch(pattern, text) is not None)
