"""Times in the mapping language: numbers and texts to milliseconds since 1970 UTC, and back to a vendor's form."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from transforms.mapping.conversions import as_double
from transforms.mapping.runtime import Bad

__all__ = ["time_from_number", "time_from_text", "time_to_text"]

UNITS: Final = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
"""Unit of a numeric time -> milliseconds."""

PARSE_DIRECTIVES: Final = "YymdHIpMSfzjbBaA"
OUTPUT_DIRECTIVES: Final = "YymdHIpMSfjbBaA"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999
_CACHED: Final = 4096
_NO_TIME: Final = "not a time: outside the years 1 to 9999; is the unit right?"
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?)? ?(Z|z|[+-]\d\d:?\d\d)?", re.ASCII
)


def zone_named(name: str) -> tzinfo | None:
    """The time zone of that name; None when there is none."""
    if name == "UTC":
        return timezone.utc
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def time_from_number(unit: str) -> Callable[[Any, str], int]:
    """A function of (number or its text, field): ms since 1970 of a count of `unit`s."""
    scale = UNITS[unit]
    whole = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}[unit]

    def convert(value: Any, field: str) -> int:
        if value.__class__ is int:
            ms: int = value * whole[0] // whole[1]
        else:
            ms = round(as_double(value, field) * scale)
        if not _FIRST_MS <= ms <= _LAST_MS:
            raise Bad(field, _NO_TIME)
        return ms

    return convert


def time_from_text(format: str, zone: str | None) -> Callable[[Any, str], int]:
    """A function of (text, field): ms since 1970 of a text in ISO 8601 (`iso`) or a strptime format.

    zone: of texts that name none themselves; UTC when None.
    """
    where = (zone_named(zone) if zone else None) or timezone.utc
    read = _iso if format == "iso" else lambda text: datetime.strptime(text, format)
    reason = "not an ISO 8601 time" if format == "iso" else f"not a time of the form {format}"
    cache: dict[str, int] = {}

    def convert(value: Any, field: str) -> int:
        if value.__class__ is not str:
            raise Bad(field, reason)
        ms = cache.get(value)
        if ms is None:
            try:
                found = read(value)
                moment = found if found.tzinfo is not None else found.replace(tzinfo=where)
                ms = (moment - _EPOCH) // timedelta(milliseconds=1)
            except (ValueError, OverflowError):
                raise Bad(field, reason) from None
            if not _FIRST_MS <= ms <= _LAST_MS:
                raise Bad(field, reason)
            if len(cache) >= _CACHED:
                cache.clear()
            cache[value] = ms
        return ms

    return convert


def _iso(text: str) -> datetime:
    """ISO 8601, with any number of digits of a second's fraction (PlayFab writes seven)."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    micro = int((fraction or "0")[:6].ljust(6, "0"))
    at: tzinfo | None = None
    if zone:
        digits = zone[1:].replace(":", "")
        offset = 0 if zone in "Zz" else int(digits[:2]) * 60 + int(digits[2:])
        at = timezone(timedelta(minutes=-offset if zone[0] == "-" else offset))
    return datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro, at)


_MILLISECONDS: Final = tuple(f".{ms:03d}Z" for ms in range(1000))
_iso_seconds: dict[int, str] = {}


def _iso_text(ms: int, field: str) -> str:
    """ISO 8601 with milliseconds, as 2026-01-31T12:00:00.000Z."""
    second = ms // 1000
    start = _iso_seconds.get(second)
    if start is None:
        if not _FIRST_MS <= ms <= _LAST_MS:
            raise Bad(field, _NO_TIME)
        if len(_iso_seconds) >= _CACHED:
            _iso_seconds.clear()
        moment = _EPOCH + timedelta(seconds=second)
        start = _iso_seconds[second] = moment.replace(tzinfo=None).isoformat()
    return start + _MILLISECONDS[ms % 1000]


def time_to_text(format: str) -> Callable[[int, str], str]:
    """A function of (ms since 1970, field): the time in UTC as `iso` or in a strftime format.

    Cached, as millions of events share seconds.
    """
    if format == "iso":
        return _iso_text
    step = 1 if "%f" in format else 1000
    pieces = re.findall(r"%.|[^%]+", format)
    cache: dict[int, str] = {}

    def write(ms: int) -> str:
        moment = _EPOCH + timedelta(milliseconds=ms)
        return "".join(
            f"{moment.year:04d}" if piece == "%Y" else moment.strftime(piece) if piece[0] == "%" else piece
            for piece in pieces
        )

    def convert(ms: int, field: str) -> str:
        text = cache.get(ms // step)
        if text is None:
            if not _FIRST_MS <= ms <= _LAST_MS:
                raise Bad(field, _NO_TIME)
            if len(cache) >= _CACHED:
                cache.clear()
            text = cache[ms // step] = write(ms)
        return text

    return convert
