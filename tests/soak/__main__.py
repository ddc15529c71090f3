"""`make soak`: kill -9 at random moments, over a stream and over a backfill, and the sums afterwards.

    python -m tests.soak [--only stream|backfill] [--events N] [--kills N] [--seed N]

Writes a line a kill and a verdict a vendor. Exit code 1 when an event was lost, came more often than the requests in
flight at the kills can explain, or was not acknowledged.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emulator import Emulator
from streamed import SHARDS, Streamed, to
from streams import VENDORS, Command, Elsewhere, Relay, arrived, events

WHICH = ("stream", "backfill")
EVENTS = 50_000
KILLS = 20
ALIVE_S = (0.5, 6.0)
"""Seconds that a process lives, of which its start takes the first two or three."""

PAUSE_S = 0.01
"""Seconds that each vendor takes for an answer, so that requests are in flight when the process is killed."""

QUIET_S = 30.0
"""Seconds without anything new after which nothing more is expected: what a killed process had comes again after 20."""

LIMIT_S = 1_200.0


class Soak:
    """One long run."""

    def __init__(self, sandbox: Elsewhere, count: int, kills: int, moments: random.Random) -> None:
        self.sandbox = sandbox
        self.count = count
        self.kills = kills
        self._moments = moments
        sandbox.reset()
        for slug in VENDORS:
            sandbox.fault(vendor=slug, delay_s=PAUSE_S, next=None)

    def stream(self, folder: Path) -> bool:
        """A subscription; some of the events come in each life. Returns whether all is as it must be."""
        with Emulator() as emulator:
            relay = Streamed(folder, self.sandbox, emulator, to())
            portion = -(-self.count // (self.kills + 1))
            for kill in range(self.kills):
                relay.publish(events(portion, kill * portion))
                self._life(kill, relay.start)
            relay.publish(events(self.count - self.kills * portion, self.kills * portion))
            self.sandbox.clear_faults()
            with relay.start() as command:
                self._settle(command)
                command.stop()
            left = len(relay.left())
            return self._verdict("stream", relay, acknowledged=left == 0, note=f", {left} messages not acknowledged")

    def backfill(self, folder: Path) -> bool:
        """Files, with --state. Returns whether all is as it must be."""
        relay = Relay(folder, self.sandbox, to())
        inputs: list[object] = []
        for number in range(5):
            path = folder / f"{number}.jsonl"
            share = self.count // 5 + (self.count % 5 if number == 4 else 0)
            path.write_bytes(b"\n".join(events(share, number * (self.count // 5))) + b"\n")
            inputs += ["--input", path]
        altered = {"transforms.intake.SLICE_BYTES": 1 << 20}
        for kill in range(self.kills):
            self._life(kill, lambda: relay.command("run", *inputs, altered=altered))
        self.sandbox.clear_faults()
        with relay.command("run", *inputs, altered=altered) as command:
            code = command.wait(LIMIT_S)
        return self._verdict("backfill", relay, acknowledged=code == 0, note=f", exit code {code}")

    def _life(self, kill: int, start: Callable[[], Command]) -> None:
        """Starts a process and kills it at a random moment."""
        before = self._accepted()
        seconds = self._moments.uniform(*ALIVE_S)
        with start() as command:
            time.sleep(seconds)
            ended = "" if command.running else " (IT HAD ENDED BEFORE)"
            command.kill()
        accepted = self._accepted()
        print(
            f"kill {kill + 1:2} of {self.kills} after {seconds:.2f} s: {accepted - before:,} items taken in this life, "
            f"{accepted:,} in all{ended}",
            flush=True,
        )

    def _accepted(self) -> int:
        return sum(map(self.sandbox.accepted, VENDORS))

    def _settle(self, command: Command) -> None:
        """Waits until nothing has come for some time."""
        accepted, since = 0, time.monotonic()
        while command.running and time.monotonic() < since + QUIET_S:
            now = self._accepted()
            if now != accepted:
                accepted, since = now, time.monotonic()
            time.sleep(1.0)

    def _verdict(self, name: str, relay: Relay, *, acknowledged: bool, note: str) -> bool:
        """Prints what arrived, and returns whether it is as it must be."""
        bound = self.kills * SHARDS
        good = acknowledged and relay.report["balanced"] and relay.report["records"]["read"] == self.count
        for slug in VENDORS:
            found = arrived(self.sandbox, slug, range(self.count))
            delivered = relay.report["destinations"][slug]["delivered"]
            fine = not (found.lost or found.strange) and found.requests_twice <= bound and delivered == self.count
            good = good and fine
            print(
                f"{name}, {slug}: {len(found.lost)} lost, {found.twice} came twice, from {found.requests_twice} requests "
                f"(bound: {bound}, those in flight at {self.kills} kills){'' if fine else ' FAILED'}",
                flush=True,
            )
        print(f"{name}: {'as it must be' if good else 'FAILED'}{note}", flush=True)
        return bool(good)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="playrelay-soak-") as folder:
        yield Path(folder)


def main() -> int:
    """Runs what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="kill -9 at random moments.")
    parser.add_argument("--only", choices=WHICH, help="default: both")
    parser.add_argument("--events", type=int, default=EVENTS, help="default %(default)s")
    parser.add_argument("--kills", type=int, default=KILLS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: another each time")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    good = True
    with Elsewhere() as sandbox:
        for which in [options.only] if options.only else WHICH:
            soak = Soak(sandbox, options.events, options.kills, random.Random(options.seed))
            with _folder() as folder:
                good = getattr(soak, which)(folder) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
