"""Durations, sizes and rates as a relay file writes them."""

from __future__ import annotations

import datetime
import re

DURATION_PATTERN = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
BYTES_PATTERN = r"[0-9]+(\.[0-9]+)? ?([kKMG]i?)?B?"
RATE_PATTERN = r"[0-9]+(\.[0-9]+)? ?/ ?(s|m|h)|unlimited"

DURATION_WORDS = "a duration such as 30s, 5m or 1h30m (units ms, s, m, h, d)"
BYTES_WORDS = "a size such as 500KB, 1MB or 4MiB, or a whole number of bytes"
RATE_WORDS = "a rate such as 100/s or 6000/m, or unlimited"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kKMG]i?)?B?)")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?/ ?(s|m|h)")
_LONGEST = 40  # characters: no sensible quantity is longer


def duration(value: object) -> float:
    """Seconds of `30s`, `250ms`, `1h30m`, or of 0. Raises ValueError saying what was expected."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    text = value if isinstance(value, str) else ""
    if not _DURATION.fullmatch(text) or len(text) > _LONGEST:
        raise ValueError(f"expected {DURATION_WORDS}" + _is_meant(value, "s"))
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def size(value: object) -> int:
    """Bytes of `1MB` (1,000,000), `1MiB` (1,048,576) or of a whole number. Raises ValueError saying what was expected."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise ValueError(f"expected {BYTES_WORDS}")
    return int(float(match[1]) * _BYTES[(match[2] or "").upper()])


def rate(value: object) -> float | None:
    """Requests a second of `100/s`, `6000/m`, `10/h`; None for `unlimited`. Raises ValueError saying what was expected."""
    if value == "unlimited":
        return None
    match = _RATE.fullmatch(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise ValueError(f"expected {RATE_WORDS}" + _is_meant(value, "/s"))
    per_second = float(match[1]) / _SECONDS[match[2]]
    if per_second <= 0:
        raise ValueError(f"expected {RATE_WORDS}; a rate of 0 would send nothing")
    return per_second


def show_size(count: int) -> str:
    """`4MB`, `1MiB`, `1,234 bytes`: a size as a relay file may write it."""
    for unit, width in (
        ("GiB", 1024**3),
        ("GB", 1000**3),
        ("MiB", 1024**2),
        ("MB", 1000**2),
        ("KiB", 1024),
        ("KB", 1000),
    ):
        if count and count % width == 0:
            return f"{count // width}{unit}"
    return f"{count:,} bytes"


def show_rate(per_second: float) -> str:
    """`100/s`, `6000/h`: a rate as a relay file may write it."""
    for unit in ("s", "m", "h"):
        number = per_second * _SECONDS[unit]
        if number >= 1 or unit == "h":
            return f"{number:g}/{unit}"
    raise AssertionError("unreachable")


def _is_meant(value: object, unit: str) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"; is {value}{unit} meant?" if number else ""


def point_in_time(text: str) -> int:
    """A date or an ISO 8601 time as ms since 1970 UTC; without a zone it is UTC. ValueError says what was expected."""
    try:
        when = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is no time; expected 2026-11-24 or 2026-11-24T08:30:00Z") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.timezone.utc)
    return int(when.timestamp() * 1000)
