"""`playrelay replay`: dead letters, sent again after their cause is mended.

A replay is a run like any other, over message files made of letters, with a ledger of its own: a letter is marked once
its record is in that ledger, so what is cut off goes on, and what was replayed is not replayed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam

from pipelines import display, outputs
from pipelines.local import Run
from pipelines.plan import Plan, check_credentials, make_plan
from pipelines.relay_file import Relay
from pipelines.run_files import begin, stopped_by_signals, write_report
from transforms.destination import Destination
from transforms.elements import Chunk, Item, Packer, record_ref
from transforms.intake import Slice
from transforms.ledger import Ledger
from transforms.letter_marks import Marks
from transforms.letter_shape import Letter
from transforms.letter_stores import LetterError
from transforms.letters import letter_message, letter_of, payload_of, read_letters, unreplayable
from transforms.located import Problems
from transforms.map_records import TALLY, compile_for, tag
from transforms.mapping.runtime import sharder
from transforms.progress import progress
from transforms.pull import Pulled, Puller, number_of
from transforms.read import Read
from transforms.report import DONE, UNDELIVERED
from transforms.sources.files import is_local
from transforms.sources.messages import Message, unpack_messages, write_messages
from transforms.tally import Tally

SLICE_LETTERS = 20_000
"""Letters that are sent again in one go, of one destination and model."""

QUIET_S = 3.0
"""Seconds without a message after which a subscription is taken to hold no more letters."""

FORGET_S = 7 * 86_400.0
"""How long the ledger remembers letters, in case the process is killed before they are marked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Which letters are meant."""

    only: Collection[str] = ()
    """Destinations; all when empty."""
    reason: str = ""
    """Regular expression that is looked for in the reason."""

    def takes(self, letter: Letter) -> bool:
        """Whether this letter is meant."""
        return (not self.only or letter.destination in self.only) and bool(re.search(self.reason, letter.reason))


class _Group(NamedTuple):
    """Letters that are mapped alike."""

    destination: str
    model: str | None
    """None: whatever the mapping makes of the record, as it got to no model before."""


@dataclass
class _Sorted:
    """Letters, sorted by what is to be done with them."""

    chosen: dict[_Group, list[Letter]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """Reason -> letters that are left as they are."""

    def leave(self, why: str) -> None:
        """Counts a letter that is left as it is."""
        self.left[why] = self.left.get(why, 0) + 1


def replay(
    relay: Relay,
    place: str,
    *,
    choice: Choice,
    dry_run: bool = False,
    as_mapped: bool = False,
    state: str | None = None,
    dead_letters: str | None = None,
    report: str | None = None,
    quiet: bool = False,
) -> int:
    """Sends letters again and returns the exit code.

    place: a folder, or a subscription to a topic of dead letters. as_mapped: the stored payloads, not the records mapped
    anew. dead_letters: where what fails again goes; the same folder when None. Raises what a user can mend.
    """
    plan, _ = make_plan(relay, only=[name for name in choice.only if name in relay.destinations])
    subscription = place.startswith("projects/")
    if subscription and dead_letters is None and not dry_run:
        raise LetterError(f"{place}: say with --dead-letters where what fails again is to go")
    with contextlib.ExitStack() as stack:
        source: _Folder | _Subscription = _Subscription(place) if subscription else _Folder(place, write=not dry_run)
        stack.callback(source.close)
        if dry_run:
            _show(_sort(plan, source.letters(), choice, as_mapped, {}), dry_run=True)
            return DONE
        check_credentials(plan)
        target = dead_letters or place
        outputs.prepare(target, report)
        ledger = stack.enter_context(contextlib.closing(Ledger(state or _state_of(place))))
        notes = begin(ledger, plan)
        if not quiet:
            display.show_notes(notes)
        taken = {own: number for number, _, ids in ledger.messages() for own in ids}
        # What is sent again was seen before: that is no reason to leave it out.
        anew = replace(plan, source=replace(plan.source, dedupe=None))
        job = Run(anew, dead_letters=target, ledger=ledger)
        with stopped_by_signals(job.interrupt), job:
            found = _Sorted()
            for letters in source.batches():
                found = _sort(plan, letters, choice, as_mapped, taken, found.left)
                source.mark(letter for letter in letters if _key(letter) in taken)
                for group, own in found.chosen.items():
                    for at in range(0, len(own), SLICE_LETTERS):
                        if job.interrupted:
                            break
                        job.check()
                        _send(job, ledger, place, group, own[at : at + SLICE_LETTERS], as_mapped)
                        source.mark(own[at : at + SLICE_LETTERS])
                source.done(letters)
        ledger.forget(ledger.acknowledged_before(time.time() - FORGET_S))
        ledger.end(complete=not job.interrupted)
        write_report(job.report, report)
        if not quiet:
            _show(found, dry_run=False)
            display.show_report(job.report, target)
        code = job.report.exit_code()
        return UNDELIVERED if job.interrupted and code == DONE else code


def _send(job: Run, ledger: Ledger, place: str, group: _Group, letters: Sequence[Letter], as_mapped: bool) -> None:
    """One slice of letters, through the mapping or as they were mapped."""
    number = ledger.new_slice()
    path = ledger.message_file(number)
    write_messages(path, place, map(letter_message, letters))
    step = None
    if as_mapped:
        (to,) = (one for one in job.plan.destinations if one.name == group.destination)
        payloads = {letter.id: (payload_of(letter) or b"", letter.user or "", letter.time or 0) for letter in letters}
        step = ResendFn(to, payloads, job.id)
    ids = [_key(letter) for letter in letters]
    destinations = (group.destination,)
    job.map(Slice(Read([path], split=False), destinations, messages=ids, number=number, model=group.model, step=step))
    ledger.acknowledged([number])


def _sort(
    plan: Plan,
    letters: Sequence[Letter],
    choice: Choice,
    as_mapped: bool,
    taken: Mapping[int, int],
    left: dict[str, int] | None = None,
) -> _Sorted:
    """What is to be sent again, by what maps it; each other letter is counted with why it is left."""
    found = _Sorted(left=left if left is not None else {})
    known = {to.name: to for to in plan.destinations}
    problems: dict[_Group, str] = {}
    for letter in letters:
        group = _Group(letter.destination, letter.model)
        if not choice.takes(letter) or _key(letter) in taken:
            continue
        if letter.destination not in known:
            found.leave(f"{letter.destination} is no destination of the relay file")
            continue
        why = unreplayable(letter)
        if not why and as_mapped and (letter.model is None or payload_of(letter) is None):
            why = "it was not mapped: replay it without --as-mapped"
        if not why:
            if group not in problems:
                problems[group] = _problem(plan, known[letter.destination], letter.model)
            why = problems[group]
        if why:
            found.leave(why)
        else:
            found.chosen.setdefault(group, []).append(letter)
    return found


def _problem(plan: Plan, to: Destination, model: str | None) -> str:
    """Why letters of a model cannot be mapped by the relay file as it is; empty when they can."""
    if model is None:
        return ""
    if model not in plan.models[to.name]:
        return f"{to.name} has no model {model} in the relay file"
    try:
        compile_for(plan.source, replace(to, models=(model,)))
    except Problems as problems:
        return f"{to.name}.{model}: {problems.problems[0]}"
    return ""


def _key(letter: Letter) -> int:
    """A letter in 64 bits, for the ledger."""
    return number_of(f"{letter.id}/{letter.failures}")


def _state_of(place: str) -> str:
    if is_local(place) and not place.startswith("projects/"):
        return os.path.join(place if os.path.isdir(place) else os.path.dirname(place), ".replay")
    return os.path.join(".playrelay", f"replay-{hashlib.blake2b(place.encode(), digest_size=6).hexdigest()}")


class _Folder:
    """Letters in a folder."""

    def __init__(self, place: str, write: bool) -> None:
        self._place = place
        folder = place if not (is_local(place) and os.path.isfile(place)) else os.path.dirname(place) or "."
        self._marks = Marks(folder, write=write)

    def letters(self) -> list[Letter]:
        """All that are open."""
        return [one for one in read_letters(self._place) if not self._marks.is_marked(one.id, one.failures)]

    def batches(self) -> Iterator[list[Letter]]:
        """All that are open, some at a time."""
        held: list[Letter] = []
        for letter in read_letters(self._place):
            if not self._marks.is_marked(letter.id, letter.failures):
                held.append(letter)
            if len(held) >= SLICE_LETTERS:
                yield held
                held = []
        if held:
            yield held

    def mark(self, letters: Any) -> None:
        """They are replayed."""
        self._marks.mark([(one.id, one.failures) for one in letters], "replayed")

    def done(self, letters: Sequence[Letter]) -> None:
        """A batch is gone through."""

    def close(self) -> None:
        """Lets go of the marks."""
        self._marks.close()


class _Subscription:
    """Letters of a topic, pulled until no more come. Those that are not meant are given back."""

    def __init__(self, place: str) -> None:
        self._puller = Puller(place)
        self._taken: list[tuple[Pulled, list[Letter | None]]] = []
        self._replayed: set[tuple[str, int]] = set()

    def letters(self) -> list[Letter]:
        """All that come; every one is given back."""
        return [letter for batch in self.batches() for letter in batch]

    def batches(self) -> Iterator[list[Letter]]:
        """All that come, some at a time."""
        self._puller.start()
        while pulled := self._puller.take(0.2, SLICE_LETTERS, 64 << 20, time.monotonic() + QUIET_S):
            letters = []
            for one in pulled:
                own = [_letter(message) for message in one.messages]
                self._taken.append((one, own))
                letters += [letter for letter in own if letter is not None]
            yield letters

    def mark(self, letters: Any) -> None:
        """They are replayed."""
        self._replayed.update((one.id, one.failures) for one in letters)

    def done(self, letters: Sequence[Letter]) -> None:
        """A batch is gone through: what was replayed is acknowledged."""
        for pulled, own in self._taken:
            places = [int(one is not None and (one.id, one.failures) in self._replayed) for one in own]
            for replayed, part in self._puller.parts(pulled, places):
                if replayed:
                    self._puller.acknowledge([part])
        self._taken.clear()

    def close(self) -> None:
        """Gives back what was not replayed."""
        self._puller.give_back()
        self._puller.stop()
        self._puller.close()


def _letter(message: Message) -> Letter | None:
    try:
        return letter_of(message.data, message.attributes)
    except ValueError as error:
        _log.warning("message %s: %s; left as it is", message.id, error)
        return None


class ResendFn(beam.DoFn):
    """Letters' stored payloads as items. In: Chunk of letters' messages. Out: as MapRecordsFn's, of one destination.

    payloads: id of a letter -> (payload, user, time in ms).
    """

    def __init__(self, to: Destination, payloads: Mapping[str, tuple[bytes, str, int]], run: str) -> None:
        self.to = to
        self.run = run
        self.payloads = payloads

    def process(self, chunk: Chunk) -> Iterator[Any]:
        """One item a message."""
        _, shard_of = sharder(self.to.shards)
        shards: dict[int, list[Item]] = {}
        messages = unpack_messages(chunk.payload)
        for index, message in enumerate(messages):
            payload, user, time_ms = self.payloads[message.id]
            item = (payload, 0, user, time_ms, record_ref(chunk.position, index))
            shards.setdefault(shard_of(user), []).append(item)
        for shard, items in shards.items():
            packer = Packer()
            packer.add(items, len(items))
            yield beam.pvalue.TaggedOutput(tag(self.to.name), (shard, packer.packed(chunk.source)))
        count = len(messages)
        progress(self.run).records += count
        yield beam.pvalue.TaggedOutput(TALLY, (self.to.name, Tally(records=count, touched=count, mapped=count)))


def _show(found: _Sorted, *, dry_run: bool) -> None:
    for group, letters in sorted(found.chosen.items(), key=lambda pair: str(pair[0])):
        if dry_run:
            model = f" {group.model}" if group.model else ""
            display.line(f"would replay {len(letters):,} dead letters of {group.destination}{model}")
    for why, count in found.left.items():
        display.line(f"left as they are: {count:,} dead letters: {why}")
    if dry_run and not found.chosen:
        display.line("nothing to replay")
