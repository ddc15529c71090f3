"""What the tests of streams and backfills share: the command and the sandbox in processes of their own, numbered events,
and the sums afterwards."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from commands import ENVIRONMENT, ROOT

from pipelines.standing import Standing, standing
from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.ledger_reader import StateError, read_ledger
from transforms.vendors import slugs

VENDORS = slugs()
START_S = 1_764_000_000
"""Unix seconds of event 0; event n is n seconds later."""

MEASURED: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "12traits": lambda item: item["level"],
    "traitly": lambda item: item["created_at"] - START_S,
    "parcelvoy": lambda item: item["data"]["level"],
    "swrve": lambda item: item["payload"]["level"],
    "teak": lambda item: item["object_instance_id"],
}
"""How each vendor's item tells the number of its event."""

PARTS = ("filtered", "delivered", "rejected", "undelivered")


def event(number: int, users: int = 20, **more: Any) -> bytes:
    """Event `number`, of which every vendor takes one item that tells the number."""
    fields = {
        "event_id": f"e{number}",
        "event_type": "level_up",
        "event_timestamp": 1000 * (START_S + number),
        "user_id": f"u{number % users}",
        "event_data": {"level": number},
        **more,
    }
    return json.dumps(fields).encode()


def events(count: int, start: int = 0, users: int = 20) -> list[bytes]:
    """Events start to start + count - 1."""
    return [event(start + number, users) for number in range(count)]


def until(holds: Callable[[], Any], seconds: float = 20.0, every: float = 0.05) -> Any:
    """Waits until something holds, and returns it; an AssertionError when it does not in time."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(every)


class Elsewhere(Running):
    """A sandbox in a process of its own: neither its work nor its faults touch the test's."""

    def __init__(self, keep: int = 2_000_000) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "--port", "0", "--keep", str(keep)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[2].rstrip("/")

    def __enter__(self) -> Elsewhere:
        return self

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def freeze(self, frozen: bool) -> None:
        """Stops its process, so that nothing at all is answered, or lets it go on."""
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def accepted(self, slug: str) -> int:
        """Items that a vendor took."""
        found: int = self.received(vendor=slug)["vendors"][slug]["accepted"]
        return found

    def numbers(self, slug: str) -> list[int]:
        """Numbers of the events that a vendor took, in order of arrival."""
        return [int(MEASURED[slug](one["item"])) for one in self.items(slug)]


def relay_file(
    folder: Path, sandbox: Running, to: Mapping[str, Mapping[str, Any]] | Sequence[str], source: Mapping[str, Any] = {}
) -> Path:
    """A relay file for the sandbox: destinations are vendors, or what they have beside the usual keys."""
    given = to if isinstance(to, Mapping) else {name: {} for name in to}
    sections = {}
    for name, more in given.items():
        slug = more.get("vendor", name)
        sections[name] = {"credentials": RELAY_FILE[slug], "url": f"{sandbox.url}/{slug}", **more}
    path = folder / "relay.yaml"
    relay = {
        "allow_literal_secrets": True,
        "source": {"preset": "canonical", **source},
        "destinations": sections,
    }
    path.write_text(yaml.safe_dump(relay, sort_keys=False), encoding="utf-8")
    return path


class Command:
    """`playrelay …` as a process of its own.

    altered: module.NAME -> value: constants that a test needs shorter, set before the command begins. clock: a file
    with the seconds by which the process's wall clock is wrong.
    """

    def __init__(
        self,
        *arguments: object,
        log: Path,
        cwd: Path | None = None,
        altered: Mapping[str, float] | None = None,
        clock: Path | None = None,
        before: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.log = log
        program = ["-m", "pipelines.cli"]
        if altered or clock:
            program = ["-c", _prelude(altered or {}, clock)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*before, sys.executable, *program, *map(str, arguments)],
                env=ENVIRONMENT | environment,
                cwd=cwd or ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(30)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code; it is killed when there is none in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds:g} s; it wrote:\n{self.output}") from None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> float:
        """Stops it in order, which must give exit code 0. Returns the seconds that it took."""
        started = time.monotonic()
        self.send(number)
        code = self.wait(seconds)
        assert code == 0, self.output
        return time.monotonic() - started

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


def _prelude(altered: Mapping[str, float], clock: Path | None) -> str:
    lines = []
    if clock is not None:
        lines += [
            "import time",
            "_right = time.time",
            f"time.time = lambda: _right() + float(open({str(clock)!r}).read())",
        ]
    for name, value in altered.items():
        module, _, constant = name.rpartition(".")
        lines += ["import importlib", f"importlib.import_module({module!r}).{constant} = {value!r}"]
    return "\n".join([*lines, "from pipelines.cli import run_main", "run_main()"])


def set_clock(clock: Path, seconds: float) -> None:
    """Sets the file of Command's `clock`."""
    new = clock.with_name(f"{clock.name}.new")
    new.write_text(f"{seconds}")
    new.replace(clock)


class Relay:
    """A folder with a relay file, state, dead letters and report, and the commands that work with it."""

    def __init__(self, folder: Path, sandbox: Elsewhere, to: Any, source: Mapping[str, Any] = {}) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.file = relay_file(folder, sandbox, to, source)
        self.state = folder / "state"
        self.letters = folder / "dead"
        self._commands = 0

    def command(self, name: str, *arguments: object, **more: Any) -> Command:
        """Starts a command with the relay file, the state folder, dead letters and a report, unless told otherwise."""
        self._commands += 1
        return Command(
            name, self.file, "--state", self.state, "--dead-letters", self.letters, "--report", self.report_file, *arguments,
            log=self.folder / f"{name}-{self._commands}.log", **more,
        )  # fmt: skip

    def run(self, *inputs: object, code: int = 0, **more: Any) -> dict[str, Any]:
        """`playrelay run` over files until it ends; its report."""
        arguments = [part for one in inputs for part in (("--input", one) if isinstance(one, Path) else (one,))]
        with self.command("run", *arguments, **more) as command:
            assert command.wait() == code, command.output
        return self.report

    @property
    def report_file(self) -> Path:
        return self.folder / "report.json"

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_file.read_text())
        return found

    @property
    def dead(self) -> list[dict[str, Any]]:
        """The dead letters, each once."""
        found = {}
        for file in sorted(self.letters.glob("*.jsonl")):
            for line in file.read_bytes().splitlines():
                letter = json.loads(line)
                found[letter["id"], letter["failures"]] = letter
        return list(found.values())

    def status(self) -> str:
        """What `playrelay status` shows."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "status", "--state", str(self.state)],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def waiting(self, name: str) -> int:
        """Items in segments that wait for a destination, also while a process works with the folder."""
        with contextlib.closing(read_ledger(str(self.state))) as ledger:
            return sum(one.items for one in ledger.waiting(name))

    def parked(self, name: str) -> str | None:
        """Why a destination is parked, None when it is not (or nothing was kept yet)."""
        try:
            with contextlib.closing(read_ledger(str(self.state))) as ledger:
                reasons = [one.reason for one in ledger.destinations() if one.name == name and one.parked_since]
        except StateError:
            return None
        return reasons[0] if reasons else None

    def look(self) -> dict[str, Standing]:
        """How each destination stands, as a status reckons it."""
        with contextlib.closing(read_ledger(str(self.state))) as ledger:
            return {one.name: standing(ledger, one.name) for one in ledger.destinations()}

    def check_report(self, read: int, report: Mapping[str, Any] | None = None) -> None:
        """The sums of the report are exact: every record read has one outcome at each destination."""
        found = report or self.report
        assert found["balanced"] is True, found
        assert found["records"]["read"] == read, found
        for name, one in found["destinations"].items():
            assert sum(one[part] for part in PARTS) == read, (name, one)
            assert one["items"]["mapped"] == sum(one["items"][part] for part in PARTS[1:]), (name, one)


class Arrived(NamedTuple):
    """What a vendor took of the events that were sent."""

    lost: set[int]
    strange: set[int]
    """That were not sent."""
    twice: int
    """Items that came again."""
    most: int
    """Times that one came."""
    requests_twice: int
    """Requests of which something came again."""
    disorder: list[str]
    """Users whose events did not come in order, with the events."""


def arrived(sandbox: Elsewhere, slug: str, numbers: Iterable[int]) -> Arrived:
    """What a vendor took, against the events that it was to take."""
    items = sandbox.items(slug)
    found = [(one["user"], int(MEASURED[slug](one["item"])), one["request"]) for one in items]
    counts = Counter(number for _, number, _ in found)
    expected = set(numbers)
    first: dict[int, int] = {}
    again = set()
    newest: dict[str, int] = {}
    disorder = []
    for user, number, request in found:
        if number in first:
            again.add(first[number])
            continue
        first[number] = request
        if number < newest.get(user, -1):
            disorder.append(f"{user}: {number} came after {newest[user]}")
        newest[user] = number
    return Arrived(
        expected - set(counts),
        set(counts) - expected,
        len(found) - len(counts),
        max(counts.values(), default=1),
        len(again),
        disorder,
    )


def check_arrived(
    sandbox: Elsewhere, slug: str, numbers: Iterable[int], *, twice_in_requests: int = 0, in_order: bool = True
) -> int:
    """A vendor took exactly these events, each user's in order, one request of a user at a time.

    twice_in_requests: of events that came twice, the first may have come in so many requests: those in flight at kills.
    in_order: False where Pub/Sub gave them in another order. Returns how many came twice.
    """
    found = arrived(sandbox, slug, numbers)
    assert not found.lost and not found.strange, (
        f"{slug}: {len(found.lost)} lost, {len(found.strange)} that were not sent"
    )
    assert found.most <= 1 + twice_in_requests, slug
    assert not in_order or not found.disorder, f"{slug}: {found.disorder[:3]}"
    assert found.requests_twice <= twice_in_requests, f"{slug}: of {found.requests_twice} requests something came twice"
    assert sandbox.received(vendor=slug)["vendors"][slug]["overlaps"] == 0, slug
    return found.twice
