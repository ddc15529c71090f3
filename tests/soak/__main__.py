"""`make soak`: kill -9 at random moments, over a stream and over a backfill, and the sums afterwards.

    python -m tests.soak [--only stream|backfill] [--events N] [--kills N] [--seed N]

Writes a line a kill and a verdict a vendor. Exit code 1 when an event was lost, came more often than the requests in
flight at the kills can explain, or was not acknowledged; and when the kills did not strike what they are for.
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
ALIVE_S = (0.0, 4.0)
"""Seconds that a process lives on from its first request."""

EARLY, EARLY_S = 6, (0.1, 1.5)
"""One life in so many is cut off while it starts, which takes two or three seconds; and when."""

START_S = 60.0
"""Seconds within which a process sends its first request."""

LEAST = 3 / 4
"""Of the kills so many must strike a process of which something was taken."""

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
        self._struck = 0
        """Kills of a process of which something was taken."""
        self._ended = 0
        """Processes that were gone when they were to be killed."""
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
        before, asked = self._count("accepted"), self._count("requests")
        early = kill % EARLY == EARLY // 2
        seconds = self._moments.uniform(*(EARLY_S if early else ALIVE_S))
        with start() as command:
            if not early:
                end = time.monotonic() + START_S
                while command.running and self._count("requests") == asked and time.monotonic() < end:
                    time.sleep(0.01)
            end = time.monotonic() + seconds
            while command.running and time.monotonic() < end:
                time.sleep(0.01)
            ended = not command.running
            command.kill()
        accepted = self._count("accepted")
        self._struck += accepted > before and not ended
        self._ended += ended
        print(
            f"kill {kill + 1:2} of {self.kills}, {seconds:.2f} s after its {'start' if early else 'first request'}: "
            f"{accepted - before:,} items taken in this life, {accepted:,} in all{' (IT HAD ENDED BEFORE)' if ended else ''}",
            flush=True,
        )

    def _count(self, what: str) -> int:
        """Of all vendors: items `accepted`, or `requests`."""
        return sum(one[what] for one in self.sandbox.received()["vendors"].values())

    def _settle(self, command: Command) -> None:
        """Waits until nothing has come for some time."""
        accepted, since = 0, time.monotonic()
        while command.running and time.monotonic() < since + QUIET_S:
            now = self._count("accepted")
            if now != accepted:
                accepted, since = now, time.monotonic()
            time.sleep(1.0)

    def _verdict(self, name: str, relay: Relay, *, acknowledged: bool, note: str) -> bool:
        """Prints what arrived, and returns whether it is as it must be."""
        bound = self.kills * SHARDS
        good = acknowledged and relay.report["balanced"] and relay.report["records"]["read"] == self.count
        wrong = wanting(self.kills, self._struck, self._ended)
        if wrong:
            good = False
            print(f"{name}: {wrong} FAILED", flush=True)
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


def wanting(kills: int, struck: int, ended: int) -> str:
    """What these kills lack to prove anything; empty when they prove something.

    struck: kills of a process of which something was taken. ended: processes that were gone before their kill.
    """
    if ended:
        return f"{ended} of {kills} processes had ended before their kill: see why, or give more --events;"
    if struck < LEAST * kills:
        return f"only {struck} of {kills} kills struck a process of which something was taken;"
    return ""


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
