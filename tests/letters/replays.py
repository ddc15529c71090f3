"""What the tests of `playrelay replay` share: a relay file, dead letters and what replays them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands import call
from streams import MEASURED, PARTS, relay_file

from sandbox.server import Running
from transforms.letter_shape import Letter
from transforms.letters import read_letters

QUICK = {"retry": {"for": "200ms"}}


class Replays:
    """A folder with a relay file, dead letters and what replays them."""

    def __init__(self, folder: Path, sandbox: Running, to: Any, source: Mapping[str, Any] = {}) -> None:
        self.folder, self.sandbox = folder, sandbox
        self.dead = folder / "dead"
        self.relay = relay_file(folder, sandbox, to, source)
        self.output = ""

    def mend(self, to: Any, source: Mapping[str, Any] = {}) -> None:
        """Another relay file in place of the one before."""
        self.relay = relay_file(self.folder, self.sandbox, to, source)

    def run(self, *inputs: Path, dead: object = None, code: int = 0) -> dict[str, Any]:
        """`playrelay run`: what it does not deliver becomes dead letters."""
        given = [part for one in inputs for part in ("--input", one)]
        return self._call("run", *given, "--dead-letters", dead or self.dead, code=code)

    def down(self, *inputs: Path, dead: object = None) -> dict[str, Any]:
        """A run while no vendor takes anything."""
        for slug in MEASURED:
            self.sandbox.fault(vendor=slug, status=503, next=None)
        done = self.run(*inputs, dead=dead, code=3)
        self.sandbox.clear_faults()
        return done

    def replay(self, *options: object, place: object = None, code: int = 0) -> dict[str, Any]:
        """`playrelay replay` of the folder; its report by destination."""
        return self._call("replay", "--from", place or self.dead, *options, code=code)

    def _call(self, command: str, *options: object, code: int) -> dict[str, Any]:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        done = call(command, self.relay, *options, "--report", report)
        self.output = " ".join(done.output.split())
        assert done.exit_code == code, done.output
        if not report.exists():
            return {}
        found: dict[str, Any] = json.loads(report.read_text())
        assert found["balanced"] is True, found
        for one in found["destinations"].values():
            assert sum(one[part] for part in PARTS) == one.get("read", found["records"]["read"]), found
            assert one["items"]["mapped"] == sum(one["items"][part] for part in PARTS[1:]), found
        destinations: dict[str, Any] = found["destinations"]
        return destinations

    @property
    def letters(self) -> list[Letter]:
        return list(read_letters(str(self.dead)))

    @property
    def became(self) -> dict[str, int]:
        """How many letters are open, and what became of the others."""
        found = json.loads(call("dead-letters", self.dead, "--json").stdout)
        return {"open": found["open"], **found["replayed"]}

    def edit(self, **fields: Any) -> None:
        """Changes fields of every letter."""
        for file in self.dead.glob("*.jsonl"):
            lines = [{**json.loads(line), **fields} for line in file.read_bytes().splitlines()]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def taken(self, slug: str) -> Counter[str]:
        """The items that a vendor took."""
        return Counter(json.dumps([one["model"], one["item"]], sort_keys=True) for one in self.sandbox.items(slug))

    def numbers(self, slug: str) -> list[int]:
        return [int(MEASURED[slug](one["item"])) for one in self.sandbox.items(slug)]

    def requests(self) -> int:
        return sum(view["requests"] for view in self.sandbox.received()["vendors"].values())


def write(path: Path, records: Sequence[bytes]) -> Path:
    path.write_bytes(b"\n".join(records) + b"\n")
    return path


SHARDS, KILLS = 4, 2
"""Of the tests that kill."""


def check_once(replays: Replays, slug: str, count: int, kills: int = KILLS) -> None:
    """Every event came, and of those that came twice the first in requests that were in flight at a kill."""
    first: dict[int, int] = {}
    twice = set()
    for one in replays.sandbox.items(slug):
        number = int(MEASURED[slug](one["item"]))
        if number in first:
            twice.add(first[number])
        first.setdefault(number, one["request"])
    assert set(first) == set(range(count))
    assert len(twice) <= kills * SHARDS, f"{slug}: something of {len(twice)} requests came twice"
