"""Checks of JSON values. A test takes a value and returns what is wrong with it, or None."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache

Test = Callable[[object], "str | None"]
Problem = tuple[str, str]  # field, what is wrong with it

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_COUNTRY = re.compile(r"[A-Z]{2}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)


class Shape:
    """An object's fields: each with its test, required or not."""

    __slots__ = ("fields", "required")

    def __init__(self, required: Mapping[str, Test], optional: Mapping[str, Test]) -> None:
        self.fields = {**required, **optional}
        self.required = tuple(required)

    def problems(self, value: object) -> list[Problem]:
        """What is wrong with the known fields of `value`."""
        if type(value) is not dict:
            return [("", "must be an object")]
        fields = self.fields
        found = []
        for key, item in value.items():
            test = fields.get(key)
            if test is not None:
                wrong = test(item)
                if wrong is not None:
                    found.append((key, wrong))
        for key in self.required:
            if key not in value:
                found.append((key, "is required"))
        return found

    def unknown(self, value: Iterable[str]) -> list[str]:
        """The keys that are none of the fields."""
        fields = self.fields
        return [key for key in value if key not in fields]


def text(value: object) -> str | None:
    return None if type(value) is str else "must be a string"


def filled(value: object) -> str | None:
    if type(value) is not str:
        return "must be a string"
    return None if value else "must not be empty"


def integer(value: object) -> str | None:
    return None if type(value) is int else "must be an integer"


def number(value: object) -> str | None:
    return None if type(value) in (int, float) else "must be a number"


def above_zero(value: object) -> str | None:
    if type(value) is not int and type(value) is not float:
        return "must be a number"
    return None if value > 0 else "must be above 0"


def at_least_one(value: object) -> str | None:
    if type(value) is not int:
        return "must be an integer"
    return None if value >= 1 else "must be at least 1"


def mapping(value: object) -> str | None:
    return None if type(value) is dict else "must be an object"


def array(value: object) -> str | None:
    return None if type(value) is list else "must be an array"


def one_of(*choices: str) -> Test:
    known = frozenset(choices)
    wrong = "must be one of " + ", ".join(choices)

    def test(value: object) -> str | None:
        return None if type(value) is str and value in known else wrong

    return test


def matching(pattern: re.Pattern[str], wrong: str) -> Test:
    """A string that the pattern matches as a whole."""

    def test(value: object) -> str | None:
        return None if type(value) is str and pattern.fullmatch(value) else wrong

    return test


email = matching(_EMAIL, "must be an e-mail address")
country = matching(_COUNTRY, "must be two capital letters (ISO 3166-1 alpha-2)")
currency_code = matching(_CURRENCY, "must be three capital letters (ISO 4217)")
language = matching(_LANGUAGE, "must be an IETF language tag")


def looks_like_email(value: str) -> bool:
    return _EMAIL.fullmatch(value) is not None


def ip_address(value: object) -> str | None:
    if type(value) is not str:
        return "must be a string"
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "must be an IP address"
    return None


def date_time(value: object) -> str | None:
    """`YYYY-MM-DD HH:MM:SS`, a date that exists."""
    if type(value) is not str or not _DATE_TIME.fullmatch(value) or utc_ms(value) is None:
        return "must be YYYY-MM-DD HH:MM:SS"
    return None


def date(value: object) -> str | None:
    """`YYYY-MM-DD`, a date that exists."""
    if type(value) is not str or not _DATE.fullmatch(value) or utc_ms(value) is None:
        return "must be YYYY-MM-DD"
    return None


def utc_ms(value: object) -> int | None:
    """Milliseconds since the epoch of an ISO date or date and time read as UTC; None when it is none."""
    return _utc_ms(value[:19]) if type(value) is str else None


@lru_cache(65536)  # times of whole seconds come again and again
def _utc_ms(value: str) -> int | None:
    try:
        return int(datetime.fromisoformat(value).replace(tzinfo=timezone.utc).timestamp()) * 1000
    except ValueError:
        return None


def numeral(value: object) -> float | None:
    """The number that a JSON number, or its text, stands for; None when it is none or not finite."""
    if type(value) is int or type(value) is float:
        return value
    if type(value) is not str or not value.isascii() or value != value.strip() or "_" in value:
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def whole_numeral(value: object) -> str | None:
    """An integer, as a JSON number or as text."""
    if type(value) is int or (type(value) is str and _WHOLE.fullmatch(value)):
        return None
    return "must be an integer"


def positive_numeral(value: object) -> str | None:
    """A number above 0, as a JSON number or as text."""
    found = numeral(value)
    if found is None:
        return "must be a number"
    return None if found > 0 else "must be above 0"


def any_numeral(value: object) -> str | None:
    """A number, as a JSON number or as text."""
    return None if numeral(value) is not None else "must be a number"
