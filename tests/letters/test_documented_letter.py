"""The letter in docs/dead-letters.md is one, as the writer writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from transforms.dead_letter import DeadLetterWriter, Failed
from transforms.letter_shape import Letter, as_line
from transforms.sources.formats import Layout

PAGE = Path(__file__).parents[2] / "docs/dead-letters.md"


def test_the_documented_letter_is_one(tmp_path: Path) -> None:
    found = re.search(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    shown = json.loads(found[1])
    letter = msgspec.json.decode(found[1], type=Letter)
    assert list(json.loads(as_line(letter))) == list(shown)
    path = tmp_path / "day1.csv"
    rows = "".join(f"spin,1700000000000,u{n}\n" for n in range(1, 20))
    path.write_text(f"event_type,event_timestamp,user_id\n{rows}")
    header = len("event_type,event_timestamp,user_id\n")
    failed = Failed(
        letter.outcome, letter.reason, str(path), header << 20 | 16, "event", "u17", letter.time,
        b'{"user_id": "u17", "action_type": "spin"}', 200, letter.answer or "",
    )  # fmt: skip
    (made,) = DeadLetterWriter(
        str(tmp_path / "dead"),
        {"teak": "teak"},
        {"teak": letter.mapping or ""},
        Layout(),
        {"teak": {"event": "teak/event"}},
    ).letters("teak", [failed])
    written: dict[str, Any] = json.loads(as_line(made))
    for told in (shown, written):
        for differs in ("id", "at"):
            told.pop(differs)
        told["first"].pop("at")
        told["source"].pop("name")
    assert written == shown
