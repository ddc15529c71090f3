"""JSON to typed records: lines, the elements of an array, single records."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy

NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for text that is no JSON or breaks the schema; RecursionError for deep nesting."""


class JsonDecoder:
    """Decodes JSON text to structs.

    Fields that the schema does not name are passed over by msgspec without a look at their text, so that text
    which is not ASCII is checked to be UTF-8 first.
    """

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        decoder = msgspec.json.Decoder(struct)
        self._record = decoder.decode
        self._lines = decoder.decode_lines
        self._array = msgspec.json.Decoder(list[struct]).decode  # type: ignore[valid-type]  # made at run time

    def record(self, text: bytes) -> Any:
        """One record. Raises one of NOT_JSON."""
        if not text.isascii():
            text.decode()
        return self._record(text)

    def lines(self, text: bytes) -> list[Any] | None:
        """All records; None when one of them is bad, or they do not stand one on a line."""
        try:
            if not text.isascii():
                text.decode()
            records = self._lines(text)
        except NOT_JSON:
            return None
        return records if one_a_line(text, len(records)) else None

    def array(self, text: bytes) -> list[Any] | None:
        """All elements of an array; None when one of them is bad."""
        try:
            if not text.isascii():
                text.decode()
            return self._array(text)
        except NOT_JSON:
            return None


def one_a_line(payload: bytes, count: int) -> bool:
    """Whether `count` JSON objects, one behind the other in payload, stand one on each line, without blank lines.

    JSON takes a line end for any other space, so decoding alone does not tell. Here each line end must have
    the end of an object before it and the start of one behind it: then none lies inside an object.
    """
    if not payload:
        return count == 0
    text = numpy.frombuffer(payload, numpy.uint8)
    ends = numpy.flatnonzero(text == 10)
    last = text[-1] == 10
    if len(ends) + (not last) != count or text[0] != 123:
        return False
    before = text[ends - 1]
    if not (before == 125).all():
        before_cr = text[ends[before == 13] - 2]
        if not ((before == 125) | (before == 13)).all() or not (before_cr == 125).all():
            return False
    return bool((text[(ends[:-1] if last else ends) + 1] == 123).all())
