"""A stream from a subscription of its own on the Pub/Sub emulator, as tests and soaks start it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator import Emulator
from streams import VENDORS, Command, Elsewhere, Relay, check_arrived, until

SHARDS = 4
QUICK = {"pipelines.run_stream.DEFAULT_AGE_S": 0.1, "pipelines.run_stream.TELL_S": 0.1}

PROBES = {"transforms.deliver.parking.LONGEST_PAUSE": 2.0}
"""So that nobody waits for a minute until a vendor that is back is asked."""


def to(*slugs: str, **more: Any) -> dict[str, Any]:
    """Destinations that give up soon, in small requests."""
    own: dict[str, dict[str, Any]] = {slug: {"rate": "unlimited"} for slug in VENDORS if slug != "teak"}
    for slug in ("12traits", "parcelvoy", "teak"):
        own.setdefault(slug, {})["batch"] = {"items": 20, "age": "100ms"}
    return {slug: {"shards": SHARDS, "retry": {"for": "300ms"}, **own[slug], **more} for slug in slugs or VENDORS}


def told(command: Command) -> list[dict[str, Any]]:
    """What the log of a stream told of how it goes."""
    lines = [json.loads(line) for line in command.output.splitlines() if line.startswith("{")]
    return [line["fields"] for line in lines if line["message"] == "relaying"]


class Streamed(Relay):
    """A relay from a subscription of its own."""

    def __init__(
        self, folder: Path, sandbox: Elsewhere, emulator: Emulator, to: Any, source: Mapping[str, Any] = {}
    ) -> None:
        super().__init__(folder, sandbox, to, source)
        self.emulator = emulator
        self._given_at = 0.0
        self.topic, self.subscription = emulator.make()

    def start(self, *arguments: object, altered: Mapping[str, float] = {}, **more: Any) -> Command:
        """Starts the stream."""
        everything = {**self.emulator.environment, **more}
        return self.command(
            "stream", "--subscription", self.subscription, "--log-format", "json", *arguments,
            altered={**QUICK, **altered}, **everything,
        )  # fmt: skip

    def publish(self, messages: Iterable[bytes]) -> None:
        self.emulator.publish(self.topic, messages)

    def wait(self, command: Command, slugs: Sequence[str], items: int, seconds: float = 40.0) -> None:
        """Waits until these vendors took so many items."""

        def done() -> bool:
            assert command.running, command.output
            return all(self.sandbox.accepted(slug) >= items for slug in slugs)

        until(done, seconds)

    def settle(self, command: Command) -> None:
        """Waits until the process has nothing that is not acknowledged, and gets nothing more."""
        # The emulator may have given messages to a pull of the process that was killed: until their deadline is over.
        time.sleep(max(0.0, self._given_at + 10.5 - time.monotonic()))
        before = len(told(command))

        def settled() -> bool:
            lines = told(command)[before:]
            return len(lines) >= 3 and not any(line["unacknowledged"] for line in lines[-3:])

        until(settled)

    def left(self) -> list[Any]:
        """Messages that are not acknowledged; what a process had comes again at once."""
        found = self.emulator.left(self.subscription)
        self._given_at = time.monotonic()
        return found

    def snapshot(self) -> str:
        """What is not acknowledged now, to be given once more by `give_again`."""
        name = f"projects/{self.emulator.project}/snapshots/{self.subscription.rpartition('/')[2]}"
        self.emulator.subscriber.create_snapshot(name=name, subscription=self.subscription)
        return name

    def give_again(self, snapshot: str) -> None:
        """Pub/Sub gives messages that were acknowledged once more."""
        self.emulator.subscriber.seek(request={"subscription": self.subscription, "snapshot": snapshot})

    def check_requests(self, slugs: Sequence[str] = VENDORS) -> None:
        """The report counts every request that came to the vendors: of one process that was not killed."""
        seen = self.sandbox.received()["vendors"]
        for slug in slugs:
            assert self.report["destinations"][slug]["requests"] == seen[slug]["requests"], slug

    def check(self, count: int, slugs: Sequence[str] = VENDORS, **more: Any) -> None:
        """Everything is acknowledged, accounted for, and at the vendors, after a stop in order."""
        left = self.left()
        assert not left, (len(left), [(one.message_id, one.data[:20]) for one in left][:5])
        self.check_report(count)
        for slug in slugs:
            check_arrived(self.sandbox, slug, range(count), **more)
