"""The presets: known sources, each with the schema of its records and hop one, from record to canonical event.

A relay file names one with `source.preset` and overrides it piece by piece with `source.event`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from transforms import located
from transforms.located import Node


class Preset(NamedTuple):
    """A known source."""

    name: str
    """As relay files write it."""
    schema: str
    """Of one record, for schemas.load."""
    hop_one: Node | None
    """Record -> canonical event; None: the records are canonical events."""
    notes: tuple[str, ...] = ()
    """What someone who relays such records should know."""


_SCHEMAS = {
    "canonical": "telemetry/event",
    "aws-game-analytics": "telemetry/aws_game_analytics",
    "playfab": "telemetry/playfab",
}

_NOTES = {
    "aws-game-analytics": (
        "records that name no player are sent under their event id; "
        "set source.event.user_id to where your players' ids are",
    ),
    "playfab": (
        "events of titles, and of other things that are no player, are filtered",
        "purchases count in US dollars, PlayFab's default; "
        "set source.event.event_data.currency if your title's currency is another",
    ),
}


def names() -> tuple[str, ...]:
    """The presets' names as relay files write them."""
    return tuple(_SCHEMAS)


@functools.cache
def get(name: str) -> Preset:
    """The preset of that name; KeyError when there is none."""
    schema = _SCHEMAS[name]
    file = Path(__file__).with_name(name.replace("-", "_") + ".yaml")
    hop_one = None if name == "canonical" else located.read(file, f"preset {name}")
    return Preset(name, schema, hop_one, _NOTES.get(name, ()))
