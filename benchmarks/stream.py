"""`make bench-stream`: `playrelay stream` on Google's Pub/Sub emulator, as a Markdown table.

python -m benchmarks.stream [--events N] [--repeat N] [--cases NAME…]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import backlog, measure
from benchmarks.make_events import events
from benchmarks.runs import Bench
from benchmarks.sink import Sink
from benchmarks.table import Row
from sandbox.server import Running
from tests.pubsub.emulator import Emulator
from tests.stream.streams import START_S, check_arrived

EVENTS = 100_000
RATE = 2_000
"""Events a second of the latency case."""
SECONDS = 20
WAITING = (40_000, 100_000)
"""Messages that wait while throughput is measured."""
FED = 4
"""Times the number of events that throughput is measured with."""
HOLD_S = 0.2
"""Seconds for which the second yardstick holds messages: no longer than the fastest relay of them would."""


class Streams:
    """Measures the cases; each method gives the rows of one."""

    def __init__(self, bench: Bench, emulator: Emulator, count: int, repeat: int) -> None:
        self.bench = bench
        self.emulator = emulator
        self.count = count
        self.repeat = repeat
        self._lines: list[bytes] = []

    def lines(self, count: int) -> list[bytes]:
        """Made events."""
        if len(self._lines) < count:
            self._lines = [json.dumps(event, separators=(",", ":")).encode() for event in events(count)]
        return self._lines[:count]

    # Throughput --------------------------------------------------------------------------------

    def throughput(self) -> Iterator[Row]:
        """Messages a second, against loops that pull and acknowledge."""
        for waiting in WAITING:
            ratios, held, rates = [], [], []
            for _ in range(self.repeat):
                bare, holding = self._loop_rate(waiting, 0.0), self._loop_rate(waiting, HOLD_S)
                ours = self._stream_rate(waiting)
                rates.append(ours)
                ratios.append(ours / bare)
                held.append(ours / holding)
            ratio = statistics.median(ratios)
            yield Row(
                f"Streaming to Teak, messages of one event, {waiting:,} waiting",
                f"**{ratio:.2f} x** a loop that acknowledges each pull before the next; {statistics.median(rates):,.0f}/s",
                "at least 0.8 x",
                ratio >= 0.8,
            )
            figure = f"**{statistics.median(held):.2f} x** a loop that acknowledges {HOLD_S:g} s after pulling"
            yield Row("↳ the emulator gives fewer messages while any are out", figure)

    def _loop_rate(self, waiting: int, hold_s: float) -> float:
        topic, subscription = self.emulator.make()
        lines = self.lines(FED * self.count)
        with _environment(self.emulator), backlog.loop(subscription, len(lines), hold_s) as taken:
            return backlog.rate(self.emulator, topic, lines, waiting, taken)

    def _stream_rate(self, waiting: int) -> float:
        topic, subscription = self.emulator.make()
        taken = backlog.taken_by(self.bench.sink)
        with self._streaming(self.bench.relay("teak"), subscription):
            return backlog.rate(self.emulator, topic, self.lines(FED * self.count), waiting, taken)

    @contextlib.contextmanager
    def _streaming(self, relay: Path, subscription: str) -> Iterator[float]:
        """`playrelay stream` as a process, ended in order; gives when it was started."""
        state = self.bench.folder / f"state-{uuid.uuid4().hex}"
        command = ["stream", str(relay), "--subscription", subscription, "--state", str(state), "--quiet"]
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command],
            cwd=measure.ROOT,
            env={**os.environ, **self.emulator.environment},
        ) as process:
            try:
                yield started
            finally:
                process.send_signal(signal.SIGTERM)
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode} from playrelay {' '.join(command)}")

    # Latency -----------------------------------------------------------------------------------

    def latency(self) -> Iterator[Row]:
        """From publishing to acceptance, at a steady rate."""
        with Running(keep=1_000_000) as sandbox:
            relay = self._relay(sandbox, "teak")
            topic, subscription = self.emulator.make()
            with self._streaming(relay, subscription):
                self.emulator.publish(topic, [_stamped(0)])
                backlog.until(lambda: bool(sandbox.items("teak")))
                count = RATE * SECONDS
                self.emulator.publish(topic, (_stamped(number) for number in range(1, count)), rate=RATE)
                backlog.until(lambda: sandbox.received()["vendors"]["teak"]["accepted"] >= count)
            waited = sorted(one["at"] - float(one["item"]["object_instance_id"]) for one in sandbox.items("teak")[1:])
        p50, p99 = waited[len(waited) // 2], waited[int(len(waited) * 0.99)]
        yield Row(
            f"Published to accepted at {RATE:,} events/s, `batch: age` 1 s",
            f"p50 **{p50:.2f} s**, p99 **{p99:.2f} s**",
            "p50 under 1.5 s, p99 under 3 s",
            p50 < 1.5 and p99 < 3,
        )

    def _relay(self, sandbox: Running, *vendors: str, retry: str = "5m") -> Path:
        from sandbox.credentials import RELAY_FILE

        path = self.bench.folder / "stream.yaml"
        destinations = {
            slug: {"credentials": RELAY_FILE[slug], "url": f"{sandbox.url}/{slug}", "retry": {"for": retry}}
            for slug in vendors
        }
        destinations["teak"]["map"] = {"event": {"fields": {"object_instance_id": "$event_id"}}}  # type: ignore[dict-item]
        relay = {"allow_literal_secrets": True, "source": {"preset": "canonical"}, "destinations": destinations}
        path.write_text(json.dumps(relay), encoding="utf-8")  # which is YAML too
        return path

    # A vendor's bad day ------------------------------------------------------------------------

    def bad_day(self) -> Iterator[Row]:
        """Teak down for the whole stream: how long the other four take, against healthy runs, in turns."""
        healthy, down = [], []
        for _ in range(self.repeat):
            healthy.append(self._four(down=False))
            down.append(self._four(down=True))
        ratio = statistics.median(down) / statistics.median(healthy)
        yield Row(
            f"The other four while Teak is down, {self.count:,} events",
            f"**{ratio:.2f} x** the time of a healthy run ({statistics.median(down):.1f} s, {statistics.median(healthy):.1f} s)",
            "at most 1.05 x",
            ratio <= 1.05,
        )

    def _four(self, down: bool) -> float:
        """Seconds until the other four have everything. Checks that Teak has nothing then if it is down, and that all
        five get each event once, and each user's in order."""
        others = ("12traits", "parcelvoy", "swrve", "traitly")
        with Running(keep=6 * self.count) as sandbox:
            relay = self._relay(sandbox, *others, "teak", retry="2s")
            if down:
                sandbox.fault(vendor="teak", status=503, next=None)
            topic, subscription = self.emulator.make()
            self.emulator.publish(topic, map(_numbered, self.lines(self.count), range(self.count)))

            def taken(names: Iterable[str]) -> bool:
                view = sandbox.received()["vendors"]
                return all(view[name]["accepted"] >= self.count for name in names)

            with self._streaming(relay, subscription) as started:
                backlog.until(lambda: taken(others))
                seconds = time.perf_counter() - started
                if down and sandbox.received()["vendors"]["teak"]["accepted"]:
                    raise RuntimeError("Teak took something while it was down")
                sandbox.clear_faults()
                backlog.until(lambda: taken(["teak"]))
            for name in (*others, "teak"):
                check_arrived(sandbox, name, range(self.count))
        return seconds

    # The ledger --------------------------------------------------------------------------------

    def ledger(self) -> Iterator[Row]:
        """CPU time of a backfill that keeps a ledger, against one without."""
        for case, count in (("teak", 1_000_000), ("swrve_by_user", 1_000_000), ("traitly", 200_000)):
            relay, path = self.bench.relay(case), self.bench.events(count)
            ratios = []
            for _ in range(self.repeat):
                command = ["-m", "pipelines.cli", "run", str(relay), "--input", str(path), "--quiet"]
                without = measure.run(command).cpu
                state = self.bench.folder / f"state-{uuid.uuid4().hex}"
                ratios.append(measure.run([*command, "--state", str(state)]).cpu / without)
            ratio = statistics.median(ratios)
            yield Row(
                f"The ledger, {count:,} events, `{case}`",
                f"**{ratio:.2f} x** the CPU time without",
                "at most 1.15 x",
                ratio <= 1.15,
            )


def _numbered(line: bytes, number: int) -> bytes:
    """A made event of which every vendor takes one item that tells its number."""
    event = json.loads(line)
    event |= {"event_id": str(number), "event_type": "level_up", "event_timestamp": 1000 * (START_S + number)}
    event["event_data"]["level"] = number
    return json.dumps(event, separators=(",", ":")).encode()


def _stamped(number: int) -> bytes:
    """An event that says when it was made."""
    now = time.time()
    event = {
        "event_id": f"{now:.6f}",
        "event_type": "level_up",
        "event_timestamp": int(now * 1000),
        "user_id": f"u{number % 5000}",
    }
    return json.dumps(event).encode()


@contextlib.contextmanager
def _environment(emulator: Emulator) -> Iterator[None]:
    """The emulator in this process's environment, for the processes that it starts."""
    os.environ.update(emulator.environment)
    try:
        yield
    finally:
        for name in emulator.environment:
            del os.environ[name]


CASES = ("throughput", "latency", "bad_day", "ledger")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "playrelay-bench")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with Sink(given.folder) as sink, Emulator() as emulator:
        streams = Streams(Bench(given.folder, sink), emulator, given.events, given.repeat)
        print("| case | figure | goal | met |\n|---|---|---|---|", flush=True)
        for name in given.cases:
            for row in getattr(streams, name)():
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
