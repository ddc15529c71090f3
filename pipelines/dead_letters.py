"""`playrelay dead-letters`: what went nowhere, why, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pipelines.display import console_of, table_of
from pipelines.printable import one_line, printable
from transforms.letter_marks import Marks, key_of
from transforms.letter_shape import Letter, as_bytes
from transforms.letter_shape import Text as Given
from transforms.letters import read_letters
from transforms.remedies import Group, group_letters

SKIPPED_SHOWN = 5
"""Lines that are no letters of which is said which they are."""


def dead_letters(location: str, only: Collection[str] = (), as_json: bool = False) -> None:
    """Prints the letters at a location that were not replayed, in groups. Raises LetterError."""
    skipped = _Skipped()
    marks = Marks(location, write=False)
    try:
        groups = group_letters(_open_letters(location, only, marks, skipped), location)
        replayed, waiting = marks.counts(), marks.waiting()
    finally:
        marks.close()
    skipped.tell()
    if as_json:
        # In ASCII, so that nothing in it acts on a terminal.
        click.echo(json.dumps(_document(groups, replayed, skipped.count), indent=2))
        return
    number = sum(group.letters for group in groups)
    click.echo(f"{number:,} open dead letter{'' if number == 1 else 's'} in {printable(location)}")
    if replayed:
        became = ", ".join(f"{count:,} {printable(outcome)}" for outcome, count in replayed.items())
        told = "" if list(replayed) == ["replayed"] else f": {became}"
        click.echo(f"{sum(replayed.values()):,} were replayed before{told}")
    for state, count in waiting.items():
        click.echo(f"{count:,} may wait to be sent in {printable(state.folder)}")
    if groups:
        click.echo()
        console_of(sys.stdout).print(_table(groups))


class _Skipped:
    """Lines that are no letters: counted, and the first ones told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, what: str) -> None:
        self.count += 1
        if self.count <= SKIPPED_SHOWN:
            click.echo(printable(what), err=True)

    def tell(self) -> None:
        if self.count > SKIPPED_SHOWN:
            click.echo(f"… and {self.count - SKIPPED_SHOWN:,} more lines that are no dead letters", err=True)


def _open_letters(location: str, only: Collection[str], marks: Marks, skipped: _Skipped) -> Iterator[Letter]:
    for letter in read_letters(location, skipped):
        if (not only or letter.destination in only) and not marks.is_marked(key_of(letter)):
            yield letter


def _table(groups: Iterable[Group]) -> Table:
    table = table_of(("destination", "model"), ("letters",))
    table.add_column("reason, example, likely remedy", overflow="fold")
    for group in groups:
        letter = group.example
        again = f", failed up to {group.failures} times" if group.failures > 1 else ""
        lines = [
            f"{letter.outcome}{again}: {one_line(group.reason)}",
            f"example: {one_line(_where(letter), 200)}",
            f"  {one_line(_shown(letter.original), 160)}",
            f"remedy: {one_line(group.remedy, 600)}",
        ]
        names = [Text(one_line(name, 60)) for name in (letter.destination, letter.model or "")]
        table.add_row(*names, f"{group.letters:,}", Text("\n".join(lines) + "\n"))
    return table


def _where(letter: Letter) -> str:
    source = letter.source
    if source.message:
        number = f", record {source.index + 1}" if source.index else ""
        return f"{source.name}, message {source.message.id}{number}"
    if source.line:
        return f"{source.name}, line {source.line:,}"
    if source.position is None:
        return source.name
    return f"{source.name}, record {(source.index or 0) + 1:,} from byte {source.position:,} on"


def _shown(original: Given | None) -> str:
    if original is None:
        return "(its source could not be read again)"
    if isinstance(original, str):
        return original[:2_000]
    try:
        return repr(as_bytes(original)[:200])
    except ValueError:
        return original.base64[:200]


def _document(groups: Iterable[Group], replayed: dict[str, int], skipped: int) -> dict[str, Any]:
    listed = [
        {
            "destination": group.example.destination,
            "model": group.example.model,
            "outcome": group.example.outcome,
            "reason": group.reason,
            "letters": group.letters,
            "failures": group.failures,
            "since": group.since,
            "until": group.until,
            "example": {
                "id": group.example.id,
                "source": _where(group.example),
                "original": _shown(group.example.original)[:300],
            },
            "remedy": group.remedy,
        }
        for group in groups
    ]
    return {"open": sum(group.letters for group in groups), "replayed": replayed, "skipped": skipped, "groups": listed}
