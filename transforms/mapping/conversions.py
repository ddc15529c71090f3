"""Conversions that generated mapping code calls: of free JSON values into typed fields, and those that a mapping asks for.

Each takes (value, field), the value not being None, and raises Bad for a value that cannot become what it must.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec

from transforms.mapping.runtime import (
    DOUBLE_MAX,
    ENCODE_ERRORS,
    LONG_MAX,
    LONG_MIN,
    Bad,
    Matches,
    encode,
    encode_reason,
)

__all__ = [
    "as_boolean",
    "as_dict",
    "as_id",
    "as_list",
    "as_long",
    "as_map",
    "as_number",
    "as_one_of",
    "as_string",
    "boolean",
    "clean",
    "empty",
    "entries",
    "flat",
    "flat_value",
    "integer",
    "json_text",
    "key_text",
    "matches",
    "number",
    "rounded",
    "text",
]

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d{1,40}", re.ASCII)


def _kind(value: Any) -> str:
    """A value's JSON type in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a map"


# Implicit conversions of free JSON values, None excluded ------------------------------------------


def as_string(value: Any, field: str) -> str:
    """Text as it is; a number as its decimal text."""
    kind = value.__class__
    if kind is str:
        return value  # type: ignore[no-any-return]  # its class was just seen
    if kind is int or kind is float:
        return number_text(value, field)
    raise Bad(field, f"expected text, got {_kind(value)}")


def as_id(value: Any, field: str) -> str | int:
    """Text or a whole number, as it is."""
    kind = value.__class__
    if kind is str:
        return value  # type: ignore[no-any-return]  # its class was just seen
    return as_long(value, field, "text or a whole number")


def as_long(value: Any, field: str, expected: str = "a whole number") -> int:
    """A whole number of 64 bits; 5.0 counts."""
    kind = value.__class__
    if kind is float and value.is_integer():
        value = int(value)
    elif kind is not int:
        raise Bad(field, f"expected {expected}, got {'a fraction' if kind is float else _kind(value)}")
    if not LONG_MIN <= value <= LONG_MAX:
        raise Bad(field, "a whole number beyond 64 bits")
    return value  # type: ignore[no-any-return]  # its class was just seen


def as_double(value: Any, field: str) -> float | int:
    """A finite number, whole ones as they are."""
    kind = value.__class__
    if kind is int or kind is float:
        if -DOUBLE_MAX <= value <= DOUBLE_MAX:
            return value  # type: ignore[no-any-return]  # its class was just seen
        raise Bad(field, "not a finite number")
    if kind is str:
        return number(value, field)
    raise Bad(field, f"expected a number, got {_kind(value)}")


def as_number(value: Any, field: str) -> float | int:
    """A finite number; text is none."""
    if value.__class__ is str:
        raise Bad(field, "expected a number, got text")
    return as_double(value, field)


def as_boolean(value: Any, field: str) -> bool:
    """true or false."""
    if value.__class__ is bool:
        return value
    raise Bad(field, f"expected true or false, got {_kind(value)}")


def as_map(value: Any, field: str) -> dict[str, Any]:
    """A map."""
    if value.__class__ is dict:
        return value
    raise Bad(field, f"expected a map, got {_kind(value)}")


def as_list(value: Any, field: str) -> list[Any]:
    """A list."""
    if value.__class__ is list:
        return value
    raise Bad(field, f"expected a list, got {_kind(value)}")


def clean(value: Any, field: str) -> Any:
    """A free value as it may be sent: nulls in maps left out, at any depth; no infinite number. Copies only what changes."""
    kind = value.__class__
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        if not -DOUBLE_MAX <= value <= DOUBLE_MAX:
            raise Bad(field, "not a finite number")
        return value
    try:
        return _clean(value, field)
    except RecursionError:
        raise Bad(field, "nested too deeply") from None


def _clean(value: Any, field: str) -> Any:
    if value.__class__ is dict:
        changed = None
        for key, inner in value.items():
            kind = inner.__class__
            if kind is str or kind is int or kind is bool:
                continue
            new = None if inner is None else _clean(inner, field)
            if new is not inner or new is None:
                if changed is None:
                    changed = dict(value)
                if new is None:
                    del changed[key]
                else:
                    changed[key] = new
        return value if changed is None else changed
    if value.__class__ is list:
        items = [_clean(inner, field) for inner in value]
        return items if any(map(_is_not, items, value)) else value
    if isinstance(value, msgspec.Struct):
        return _clean(as_dict(value), field)
    return clean(value, field) if value.__class__ is float else value


def _is_not(one: Any, other: Any) -> bool:
    return one is not other


def as_dict(value: Any) -> dict[str, Any]:
    """A decoded record as a map of the fields that have a value."""
    return msgspec.to_builtins(value)  # type: ignore[no-any-return]  # its class was just seen


# Explicit conversions, None excluded --------------------------------------------------------------


def number(value: Any, field: str) -> float | int:
    """`{number: …}`: a number, or a text that is one."""
    if value.__class__ is str:
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        found = float(text) if len(text) <= 400 and _NUMBER.fullmatch(text) else math.inf
        if not -DOUBLE_MAX <= found <= DOUBLE_MAX:
            raise Bad(field, "not a number")
        return found
    return as_double(value, field)


def integer(value: Any, field: str) -> int:
    """`{integer: …}`: a whole number of 64 bits, or a text that is one."""
    return as_long(number(value, field) if value.__class__ is str else value, field)


def rounded(value: Any, field: str) -> int:
    """`{integer: …, round: true}`: to the nearest, halves away from zero."""
    found = number(value, field)
    if found.__class__ is float:
        whole = math.floor(abs(found) + 0.5)
        found = -whole if found < 0 else whole
    return as_long(found, field)


def number_text(value: Any, field: str) -> str:
    """A number's decimal text, without an exponent; of a whole one without a fraction, as JSON does not tell 50 from 50.0."""
    if value.__class__ is int:
        try:
            return str(value)
        except ValueError:  # CPython refuses above 4,300 digits
            raise Bad(field, "a whole number beyond 64 bits") from None
    if value.is_integer():
        whole = int(value)
        if -EXACT_DOUBLE <= whole <= EXACT_DOUBLE:
            return str(whole)
    elif not -DOUBLE_MAX <= value <= DOUBLE_MAX:
        raise Bad(field, "not a finite number")
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text else text


def text(value: Any, field: str) -> str:
    """`{text: …}`: text as it is, numbers in decimals, `true` and `false`, lists and maps as JSON text."""
    kind = value.__class__
    if kind is str:
        return value  # type: ignore[no-any-return]  # its class was just seen
    if kind is int or kind is float:
        return number_text(value, field)
    if kind is bool:
        return "true" if value else "false"
    return json_text(value, field)


def json_text(value: Any, field: str) -> str:
    """`{json: …}`: the JSON text of a value, without nulls in maps."""
    try:
        return encode(clean(value, field)).decode()
    except ENCODE_ERRORS as error:
        raise Bad(field, encode_reason(error)) from None


EXACT_DOUBLE: Final = 1 << 53
"""Up to here every whole number is a double of its own."""


_BOOLEANS: Final = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False, "t": True, "f": False,
                    "y": True, "n": False, "on": True, "off": False}  # fmt: skip


def boolean(value: Any, field: str) -> bool:
    """`{boolean: …}`: true and false, 1 and 0, and their texts."""
    found = None
    if value.__class__ is bool:
        found = value
    elif value.__class__ is str:
        found = _BOOLEANS.get(value.strip().lower())
    elif value.__class__ in (int, float) and value in (0, 1):
        found = value == 1
    if found is None:
        raise Bad(field, "neither true nor false")
    return found


def flat(value: dict[str, Any], field: str) -> dict[str, str | int]:
    """`{flat: …}`: texts and whole numbers as they are, all else as text, nulls left out."""
    out: dict[str, str | int] = {}
    for key, inner in value.items():
        kind = inner.__class__
        if kind is str:
            out[key] = inner
        elif kind is int:
            out[key] = as_long(inner, field)
        elif inner is not None:
            out[key] = text(inner, field)
    return out


def flat_value(value: Any, field: str) -> str | int:
    """A value in a flat map."""
    kind = value.__class__
    if kind is float:
        return number_text(value, field)
    return as_long(value, field) if kind is int else text(value, field)


def as_one_of(kinds: tuple[str, ...]) -> Callable[[Any, str], Any]:
    """A function of (value, field): the value, which is of one of these types of JSON."""
    classes = {
        "string": (str,), "long": (int,), "double": (float, int), "boolean": (bool,),
        "map": (dict,), "record": (dict,), "array": (list,),
    }  # fmt: skip
    allowed = frozenset(one for kind in kinds for one in classes.get(kind, ()))

    def convert(value: Any, field: str) -> Any:
        if value.__class__ not in allowed:
            raise Bad(field, f"a type of value that the field does not take: {_kind(value)}")
        return clean(value, field)

    return convert


def key_text(value: Any) -> str | None:
    """A free value as the key of a lookup table; None for what cannot be one."""
    if value.__class__ is str:
        return value
    if value.__class__ is bool:
        return "true" if value else "false"
    if value.__class__ is int:
        return str(value) if LONG_MIN <= value <= LONG_MAX else None
    return repr(value) if value.__class__ is float else None


def entries(value: Any, field: str) -> Any:
    """The values to go through: of a list its elements, of a map its values."""
    return value.values() if value.__class__ is dict else as_list(value, field)


def empty(value: Any) -> bool:
    """Whether a value is absent, or a list or map in which nothing is; a null in a map is nothing."""
    if value.__class__ is dict:
        return all(one is None for one in value.values())
    return value is None or value == []


def matches(pattern: Matches, value: Any) -> bool:
    """Whether a free value's text, or a number's, matches."""
    if value.__class__ is str:
        return pattern[value]
    if value.__class__ is int or value.__class__ is float:
        text = key_text(value)
        return text is not None and pattern[text]
    return False
