"""Text from data, vendors and files as a terminal may show it: nothing in it acts on the terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    r"""The text with control, format and unassigned characters as `\x1b` or `\u202e`; only line ends are kept."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter == "\n" or unicodedata.category(letter)[0] != "C" else _escaped(letter) for letter in text
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode() if letter > "\x7f" else f"\\x{ord(letter):02x}"


def one_line(text: str, limit: int = 300) -> str:
    """The same as one line of at most `limit` characters."""
    shown = " ".join(printable(" ".join(text[: 4 * limit].split())).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
