"""`playrelay stream`: a subscription, relayed on one machine until it is stopped.

Beam's local runners acknowledge messages when they read them and let timers wait, so this is a loop of slices: pull,
write down, map with a pipeline of its own, hand to the deliveries, acknowledge. docs/design.md tells why it survives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from array import array
from collections.abc import Mapping, Sequence

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from pipelines import display, logs, outputs
from pipelines.local import Run
from pipelines.metrics import serving
from pipelines.plan import Plan, check_credentials, make_plan
from pipelines.relay_file import Relay
from pipelines.run_files import begin, rarely_collecting, stopped_by_signals, write_report
from pipelines.stream_display import watching_stream
from transforms.deliver import parking
from transforms.intake import Slice
from transforms.ledger import Ledger
from transforms.ledger_reader import LETTERS
from transforms.pull import Amount, Puller, number_of
from transforms.read import Read
from transforms.report import DONE, NOT_BALANCED, Report
from transforms.snapshot import DestinationState, Snapshot
from transforms.sources.messages import Message, write_messages
from transforms.subscriber import Pulled

ENOUGH = Amount(messages=30_000, bytes=32 << 20)
"""What makes a slice at once. When less comes, the age of its oldest message does."""

MOST = Amount(messages=100_000, bytes=64 << 20)
"""Most of a slice, when more came than enough while the one before was mapped: starting Beam costs the same for any."""

DEFAULT_AGE_S = 1.0

PATIENCE_S = 10.0
"""Seconds after which what a vendor has not taken counts as parked: it waits in the ledger, not at Pub/Sub, so a slow
vendor neither holds up acknowledgements nor lets leases pile up."""

REMEMBER_S = 120.0
"""Seconds for which acknowledged messages are known by their ids, as Pub/Sub may give them once more."""

REMEMBER_KILLED_S = 660.0
"""The same for messages of a process before this one, which may have been killed: a subscription's deadline may be 10
minutes."""

SWITCH_S = 0.0005
"""Seconds after which a thread that computes lets others go on: pulling waits for it after every answer."""

TELL_S = 30.0
"""Seconds between the lines that tell how it goes, in the log."""

FORGET_S = 10.0
"""Seconds between the looks at what may be forgotten."""

ACKNOWLEDGE_S = 0.05
"""Seconds between the looks at what may be acknowledged."""

MAPPED_S = 2.0
"""Seconds that a slice may still be mapped when the stream is stopped; its messages go back to Pub/Sub otherwise."""

STOP_S = 1.5
"""Seconds that the deliveries go on when the stream is stopped."""

_log = logging.getLogger(__name__)


class _Pending:
    """A slice whose messages are not acknowledged yet."""

    def __init__(self) -> None:
        self.pulled: list[Pulled] = []
        self.durable_since: float | None = None
        """Since when all that came of it is on disk; None: it is not."""


class Stream:
    """One stream. `run` returns when it is stopped, with the report."""

    def __init__(self, plan: Plan, ledger: Ledger, puller: Puller, dead_letters: str) -> None:
        self.job = Run(plan, dead_letters=dead_letters, ledger=ledger, park=True)
        self._stopping = threading.Event()
        self.holding = ""
        """Why nothing is pulled; empty when it is."""
        self._plan = plan
        self._ledger = ledger
        self._puller = puller
        ages = [to.batch.age_ms for to in plan.destinations if to.batch.age_ms is not None]
        self._age_s = min(ages) / 1000 if ages else DEFAULT_AGE_S
        self._pending: dict[int, _Pending] = {}
        self._ids: dict[int, array[int]] = {}
        """Slice -> numbers of its messages, while it is remembered."""
        self._slices: dict[int, int] = {}
        """Number of a message -> its slice."""
        self._lock = threading.Lock()
        self._done = threading.Event()
        """Nothing more is acknowledged."""
        self._forget_at: dict[int, float] = {}
        """Slice -> when its messages are forgotten, in seconds of time.monotonic(): the wall clock may jump."""
        self._look_at = time.monotonic()
        self._told_at = time.monotonic()
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        """Ends `run` in order."""
        self._stopping.set()
        self.job.give_up_mapping(MAPPED_S)

    def run(self) -> Report:
        """Relays until `stop` is called. Raises what ended it otherwise."""
        for number, acknowledged, ids in self._ledger.messages():
            now = time.monotonic()
            self._ids[number] = ids
            self._slices.update(dict.fromkeys(ids, number))
            self._forget_at[number] = now + REMEMBER_KILLED_S
            if not acknowledged:
                self._pending[number] = _Pending()
                self._pending[number].durable_since = now
        acknowledging = threading.Thread(target=self._acknowledge_on, name="acknowledge", daemon=True)
        try:
            with self.job as job:
                self._puller.start()
                acknowledging.start()
                while not self._stopping.is_set():
                    self._check()
                    self._hold()
                    self._next()
                    self._tell()
                self._puller.stop()
                self._let_finish()
                job.interrupt()
            self._done.set()
            acknowledging.join()
            # What was mapped is delivered or waits in the ledger: Pub/Sub need not keep it.
            if self._acknowledge(patience_s=0.0):
                self._puller.give_back()
        finally:
            self._done.set()
            self._puller.close()
        return job.report

    def snapshot(self) -> Snapshot:
        """How it goes."""
        job = self.job
        return Snapshot(
            seconds=time.monotonic() - job.started,
            records=job.progress.records,
            undecodable=job.undecodable,
            slices=job.slices,
            unacknowledged=self._puller.unacknowledged,
            oldest_unacknowledged_s=self._puller.oldest_s,
            holding=self.holding,
            errors=self._puller.errors,
            destinations=tuple(self._state(to.name) for to in self._plan.destinations),
        )

    def _state(self, name: str) -> DestinationState:
        job = self.job
        parked, waiting = parking.of(job.id, name), job.spool.waiting(name)
        halt = parked.halt if parked else None
        figures = job.spool.figures(name)
        return DestinationState(
            name,
            "parked" if halt else "sending",
            parking.words(name, halt) if halt else "",
            figures.delivered,
            figures.rejected,
            figures.undelivered,
            waiting.items,
            waiting.bytes,
            figures.requests,
            figures.retries,
        )

    def _check(self) -> None:
        self.job.check()
        if self._errors:
            raise self._errors[0]

    # Slices ------------------------------------------------------------------------------------

    def _next(self) -> None:
        """One slice, when there are messages for one."""
        pulled = self._puller.take(self._age_s, ENOUGH, MOST, time.monotonic() + 0.5)
        if not pulled:
            return
        number = self._ledger.new_slice()
        messages = self._new(pulled, number)
        if not messages:
            return
        path = self._ledger.message_file(number)
        write_messages(path, self._puller.subscription, messages)
        names = tuple(to.name for to in self._plan.destinations)
        if not self.job.map(Slice(Read([path], split=False), names, messages=self._ids[number], number=number)):
            return  # given up
        with self._lock:
            self._pending[number].durable_since = time.monotonic()

    def _new(self, pulled: Sequence[Pulled], number: int) -> list[Message]:
        """The messages that are in no slice yet, for slice `number`. Others are acknowledged with their own slices."""
        fresh: list[Message] = []
        ids = array("Q")
        with self._lock:
            for one in pulled:
                places = []
                for message in one.messages:
                    own = number_of(message.id, message.published_ms)
                    place = self._slices.get(own)
                    places.append(number if place is None else place)
                    if place is None:
                        self._slices[own] = number
                        ids.append(own)
                        fresh.append(message)
                for slice_, part in self._puller.parts(one, places):
                    # A slice that is acknowledged already gets an entry of its own, to be acknowledged again.
                    pending = self._pending.setdefault(slice_, _Pending())
                    pending.pulled.append(part)
                    if slice_ != number and pending.durable_since is None:
                        pending.durable_since = time.monotonic()
            if fresh:
                self._ids[number] = ids
        return fresh

    def _hold(self) -> None:
        """Pulls nothing while more waits on disk for a destination than it may."""
        full = [to for to in self._plan.destinations if self.job.spool.waiting(to.name).bytes >= to.park_bytes]
        reason = (
            f"{full[0].name} has {full[0].park_bytes:,} bytes waiting, the most that `park: max` allows" if full else ""
        )
        if reason != self.holding:
            self.holding = reason
            self._puller.pause(bool(reason))
            if reason:
                _log.warning("nothing is pulled: %s", reason)
            else:
                _log.info("pulling again")

    def _tell(self) -> None:
        """A line now and then for those who read logs."""
        now = time.monotonic()
        if now < self._told_at + TELL_S:
            return
        self._told_at = now
        state = self.snapshot()
        fields = {
            "records": state.records,
            "undecodable": state.undecodable,
            "slices": state.slices,
            "unacknowledged": state.unacknowledged,
        }
        for to in state.destinations:
            fields |= {f"{to.name}_delivered": to.delivered, f"{to.name}_waiting": to.parked_items}
        _log.info("relaying", extra=fields)

    def _let_finish(self) -> None:
        """Gives the deliveries a moment for what is on its way."""
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and any(self._sending(to.name) for to in self._plan.destinations):
            time.sleep(0.02)

    def _sending(self, name: str) -> bool:
        parked = parking.of(self.job.id, name)
        return self.job.spool.waiting(name).items > 0 and not (parked and parked.halt)

    # Acknowledging -----------------------------------------------------------------------------

    def _acknowledge_on(self) -> None:
        try:
            while not self._done.wait(ACKNOWLEDGE_S):
                self._acknowledge(PATIENCE_S)
        except BaseException as error:  # handed to the thread that runs the stream
            self._errors.append(error)

    def _acknowledge(self, patience_s: float) -> bool:
        """Acknowledges the slices of which every item is delivered, dead, or waiting on disk for a parked vendor. False
        when Pub/Sub cannot be told."""
        now = time.monotonic()
        with self._lock:
            chosen = {
                number: one for number, one in self._pending.items() if self._may_go(number, one, now, patience_s)
            }
            for number in chosen:
                del self._pending[number]
        told = not chosen or self._told(chosen)
        if chosen and told:
            self._ledger.acknowledged(chosen)
            for number in chosen:
                self._forget_at[number] = max(self._forget_at.get(number, 0.0), now + REMEMBER_S)
        if now >= self._look_at:
            if self.holding or self._puller.failing:
                # What could not come again has still to be known when it does.
                elapsed = FORGET_S + now - self._look_at
                self._forget_at = {number: at + elapsed for number, at in self._forget_at.items()}
            self._look_at = now + FORGET_S
            self._forget([number for number, at in self._forget_at.items() if at <= now])
        return told

    def _told(self, chosen: Mapping[int, _Pending]) -> bool:
        """Acknowledges; what Pub/Sub cannot be told is pending again."""
        try:
            self._puller.acknowledge([one for pending in chosen.values() for one in pending.pulled])
        except (GoogleAPICallError, GoogleAuthError) as error:
            self._puller.errors += 1
            _log.warning("%s: not acknowledged, tried again: %s", self._puller.subscription, error)
            with self._lock:
                for number, one in chosen.items():
                    pending = self._pending.setdefault(number, one)
                    if pending is not one:  # some of its messages came again meanwhile
                        pending.pulled += one.pulled
            self._done.wait(1.0)
            return False
        return True

    def _forget(self, slices: Sequence[int]) -> None:
        if not slices:
            return
        self._ledger.forget(slices)
        with self._lock:
            for number in slices:
                del self._forget_at[number]
                for own in self._ids.pop(number, ()):
                    self._slices.pop(own, None)

    def _may_go(self, number: int, one: _Pending, now: float, patience_s: float) -> bool:
        if one.durable_since is None:
            return False
        return now - one.durable_since >= patience_s or not any(map(self._taking, self.job.spool.unfinished(number)))

    def _taking(self, name: str) -> bool:
        """Whether a destination is expected to take its items soon."""
        parked = parking.of(self.job.id, name)
        return parked is None or parked.halt is None


def run_stream(
    relay: Relay,
    subscription: str,
    *,
    state: str,
    only: Sequence[str] = (),
    dead_letters: str | None = None,
    report: str | None = None,
    quiet: bool = False,
    log_format: str = "text",
    metrics: tuple[str, int] | None = None,
) -> int:
    """Relays a subscription until SIGINT or SIGTERM, and returns the exit code. Raises what a user can mend.

    dead_letters: where they go; LETTERS in the state folder when None, as what is one is acknowledged. metrics: address and
    port to serve Prometheus metrics at.
    """
    plan, _ = make_plan(relay, only=only)
    check_credentials(plan)
    sys.setswitchinterval(SWITCH_S)
    logs.set_up(log_format)
    with contextlib.closing(Ledger(state)) as ledger:
        letters = dead_letters or os.path.join(state, LETTERS)
        outputs.prepare(letters, report)
        notes = [*plan.notes, *begin(ledger, plan)]
        if dead_letters is None:
            notes.append(f"dead letters go to {letters}")
        if log_format == logs.JSON:
            for note in notes:
                _log.info(note)
        elif not quiet:
            display.show_notes(notes)
        stream = Stream(plan, ledger, Puller(subscription), letters)
        with contextlib.ExitStack() as stack:
            stack.enter_context(stopped_by_signals(stream.stop))
            stack.enter_context(rarely_collecting())
            if metrics is not None:
                stack.enter_context(serving(stream.snapshot, metrics[1], metrics[0]))
            stack.enter_context(watching_stream(stream.snapshot, quiet=quiet))
            result = stream.run()
        ledger.end(complete=True)
    write_report(result, report)
    if not quiet:
        display.show_report(result, letters, state)
    return DONE if result.balanced else NOT_BALANCED
