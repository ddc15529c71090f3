"""Dead letters in groups of one cause, each with what will likely mend it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from transforms.dead_letter import UNDELIVERED
from transforms.letter_shape import Letter

Test = Callable[[Letter], Any]

REPLAY: Final = "playrelay replay RELAY --from {place} --only {chosen}"
"""The command that sends a destination's letters again; {place} and {chosen} as a shell takes them."""


class Remedy(NamedTuple):
    """A row of the table of remedies."""

    fits: Test
    text: str
    """What to do, with {destination}, {model} and {field} of the letter."""


def _reason(pattern: str, *, outcome: str = "", status: Iterable[int] = ()) -> Test:
    found, statuses = re.compile(pattern, re.IGNORECASE), frozenset(status)

    def fits(letter: Letter) -> bool:
        return (
            outcome in ("", letter.outcome)
            and (not statuses or letter.status in statuses)
            and found.search(letter.reason) is not None
        )

    return fits


def _rejected_by_vendor(letter: Letter) -> bool:
    return letter.status is not None


_FIELD: Final = "destinations.{destination}.map.{model}.fields.{field}"

REMEDIES: Final[tuple[Remedy, ...]] = (
    # Undelivered: the vendor, the way to it, or the keys.
    Remedy(
        _reason(r"HTTP 40[13]\b|signature|unauthori[sz]ed", outcome=UNDELIVERED),
        "the vendor does not take the credentials: mend destinations.{destination}.credentials in the relay file (playrelay"
        " check RELAY --credentials resolves them), then " + REPLAY,
    ),
    Remedy(
        _reason(r"HTTP (3\d\d|404|405|410)\b|\bredirect\b", outcome=UNDELIVERED),
        "the address is not the vendor's: mend destinations.{destination}.url, or the credential that is part of it, in the"
        " relay file, then " + REPLAY,
    ),
    Remedy(
        _reason(r"TLS|certificate", outcome=UNDELIVERED),
        "the connection is not trusted: name the proxy's or company's authorities with SSL_CERT_FILE, then " + REPLAY,
    ),
    Remedy(
        _reason(r"host's name is not known", outcome=UNDELIVERED),
        "the host of destinations.{destination}.url has no address from here: mend it, or the network's DNS, then "
        + REPLAY,
    ),
    Remedy(
        _reason(r"HTTP 429\b", outcome=UNDELIVERED),
        "the vendor asks for fewer requests than it gets: lower destinations.{destination}.rate, then " + REPLAY,
    ),
    Remedy(
        _reason(r"", outcome=UNDELIVERED),
        "nothing is wrong with these: the vendor did not take them in time, or the run was stopped; when it is back, "
        + REPLAY,
    ),
    # What could not be read or decoded.
    Remedy(
        _reason(r"more than max_record"),
        "the record is longer than source.max_record: raise that in the relay file and relay the file again",
    ),
    Remedy(
        lambda letter: letter.source.format == "unreadable",
        "the file is damaged from there on: get it again from where it came, and relay that",
    ),
    Remedy(
        _reason(r"^undecodable: \d+ fields?, the header has|^undecodable: the header"),
        "the rows do not fit the header: mend the file, or set source.delimiter in the relay file, and relay it again",
    ),
    Remedy(
        _reason(r"^undecodable: (not JSON|not UTF-8|nested|a text is not UTF-8|the message|the gzip)"),
        "what wrote the record wrote no JSON in UTF-8: mend that; such a record cannot be sent as it is",
    ),
    Remedy(
        _reason(r"^undecodable: .*(required, but)"),
        "records without {field} exist: let the schema of source.schema have it as nullable with a default, or mend what"
        " writes them, then " + REPLAY,
    ),
    Remedy(
        _reason(r"^undecodable: "),
        "the record is not what the source's schema says: correct that (source.schema) or what writes the records, then "
        + REPLAY,
    ),
    # What the vendor's rules, or the mapping, do not allow.
    Remedy(
        _reason(r"could not be found|no such external id|nonexistent|unknown user|user.* (not found|does not exist)"),
        "the vendor does not know these users (yet): once they are known there (installed, identified), "
        + REPLAY
        + "; to leave them out from now on, a condition in destinations.{destination}.map.{model}.drop",
    ),
    Remedy(
        _reason(r"^too large"),
        "one item is larger than a request may be: leave something out of it in destinations.{destination}.map.{model}.fields"
        " (often params), then " + REPLAY,
    ),
    Remedy(
        _reason(r"required, but .*has no value"),
        "give the field another source or a default in the relay file, " + _FIELD + ": {{first: […]}} or"
        " {{value: …, default: …}}, or leave such events out with {model}.drop; then " + REPLAY,
    ),
    Remedy(
        _reason(
            r": (empty|longer than|shorter than|not of the form|not one of|not (above|below|at (least|most))|more than"
            r"|less than|expected|not a|text with half|cannot be encoded|nested|beyond)|surrogate"
        ),
        "the value breaks a rule of the vendor's: change it in the relay file, " + _FIELD + " ({{replace: …}},"
        " {{lookup: …}}, {{integer: …}}), or leave such events out with {model}.drop; then " + REPLAY,
    ),
    Remedy(
        _rejected_by_vendor,
        "the vendor refused this item, and its answer says why: change the mapping, destinations.{destination}.map.{model},"
        " then " + REPLAY,
    ),
    Remedy(
        lambda letter: True,
        "a rule of the mapping refuses it: look at destinations.{destination}.map.{model}.reject, then " + REPLAY,
    ),
)
"""The first row that fits is the one. What is undelivered goes by why it was not sent, what is rejected by what is wrong."""


def remedy(letter: Letter, place: str) -> str:
    """What will likely mend a letter's cause; `place` is where the letters are, for the command to type."""
    row = next(row for row in REMEDIES if row.fits(letter))
    field = letter.reason.removeprefix("undecodable: ").partition(":")[0]
    return row.text.format(
        destination=letter.destination,
        model=letter.model or "MODEL",
        field=field,
        place=shlex.quote(place),
        chosen=shlex.quote(letter.destination),
    )


# Groups ------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(r"(HTTP \d{3}\b|UTF-\d+)|[\w@+-]+(?:[.,][\w@+-]+)*")
_OWN: Final = re.compile(r"[\d@]")

FOLDED: Final = 1_000
"""Characters of a reason that are looked at."""


def fold(reason: str, *own: str | None) -> str:
    """A reason without what differs from one item to the next: words with digits in them and addresses become `#`, and
    so do `own` texts of the item, such as its user. HTTP statuses stay."""
    reason = reason[:FOLDED]
    for text in own:
        if text and len(text) > 2:
            reason = reason.replace(text, "#")
    return _TOKEN.sub(lambda word: "#" if not word[1] and _OWN.search(word[0]) else word[0], reason)


class Group:
    """Letters of one destination, model, outcome and cause."""

    def __init__(self, first: Letter, folded: str, place: str) -> None:
        self.example = first
        self.reason = first.reason
        """As it is when all have the same, else with `#` for what differs."""
        self.remedy = remedy(first, place)
        self.letters = 0
        self.failures = 0
        """The most that one of them has failed."""
        self.since = self.until = first.at
        """When the first and the last of them failed."""
        self._folded = folded

    def add(self, letter: Letter) -> None:
        """Counts a letter."""
        self.letters += 1
        self.failures = max(self.failures, letter.failures)
        self.since, self.until = min(self.since, letter.at), max(self.until, letter.at)
        if letter.reason != self.reason:
            self.reason = self._folded


def group_letters(letters: Iterable[Letter], place: str) -> list[Group]:
    """Letters grouped by destination, model, outcome and folded reason; the largest group of a destination first.

    place: where they are. Memory: one letter a group.
    """
    groups: dict[tuple[str, str | None, str, str], Group] = {}
    for letter in letters:
        folded = fold(letter.reason, letter.source.name, letter.user)
        key = (letter.destination, letter.model, letter.outcome, folded)
        if key not in groups:
            groups[key] = Group(letter, folded, place)
        groups[key].add(letter)
    return sorted(groups.values(), key=lambda group: (group.example.destination, -group.letters))
