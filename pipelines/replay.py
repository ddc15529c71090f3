"""`playrelay replay`: dead letters, sent again after their cause is mended.

A replay is a run like any other, over message files made of letters, with a ledger of its own: a letter is marked once
its record is in that ledger, so what is cut off goes on, and what was replayed is not replayed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipelines import display, outputs
from pipelines.local import Run
from pipelines.plan import Plan, check_credentials, make_plan
from pipelines.printable import one_line
from pipelines.relay_file import Relay
from pipelines.replay_sources import LetterSource, is_there, letter_source, number_in_ledger
from pipelines.run_files import begin, stopped_by_signals, write_report
from pipelines.standing import standing
from transforms import resend
from transforms.destination import Destination
from transforms.intake import Slice
from transforms.ledger import Ledger
from transforms.letter_marks import FILTERED, REPLAYED, WAITS, key_of
from transforms.letter_shape import Letter
from transforms.letter_stores import LetterError
from transforms.letters import letter_message, payload_of, unreplayable
from transforms.located import Problems
from transforms.map_records import compile_for
from transforms.read import Read
from transforms.report import DONE, UNDELIVERED
from transforms.sources.files import is_local
from transforms.sources.messages import write_messages

FORGET_S = 7 * 86_400.0
"""How long the ledger remembers letters, in case the process is killed before they are marked."""


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


def replay(
    relay: Relay,
    place: str,
    *,
    choice: Choice,
    dry_run: bool = False,
    as_mapped: bool = False,
    state: str | None = None,
    dead_letters: str | None = None,
    reopen: bool = False,
    report: str | None = None,
    quiet: bool = False,
) -> int:
    """Sends letters again and returns the exit code.

    place: a folder, or a subscription to a topic of dead letters. as_mapped: the stored payloads, not the records mapped
    anew. dead_letters: where what fails again goes; the same folder when None. reopen: also letters that wait in a state
    folder that is no more. Raises what a user can mend.
    """
    plan, _ = make_plan(relay, only=tuple(choice.only))
    sorter = _Sorter(plan, choice, as_mapped)
    with contextlib.ExitStack() as stack:
        source = letter_source(place, write=not dry_run, reopen=reopen)
        stack.callback(source.close)
        if dry_run:
            _show_dry(source, sorter)
            return DONE
        check_credentials(plan)
        target = dead_letters or source.folder
        if target is None:
            raise LetterError(f"{place}: say with --dead-letters where what fails again is to go")
        outputs.prepare(target, report)
        ledger = stack.enter_context(contextlib.closing(Ledger(state or _state_of(place, source))))
        notes = [*plan.notes, *begin(ledger, plan)]
        if not quiet:
            display.show_notes(notes)
        # What is sent again was seen before: that is no reason to leave it out.
        anew = replace(plan, source=replace(plan.source, dedupe=None))
        job = Run(anew, dead_letters=target, ledger=ledger)
        stack.callback(resend.forget, job.id)
        with stopped_by_signals(job.interrupt), job:
            _send_all(job, ledger, place, source, sorter)
        result = job.report
        failed = any(total.rejected or total.undelivered for total in result.totals.values())
        source.settle(ledger, target, all_delivered=not failed)
        ledger.forget(ledger.acknowledged_before(time.time() - FORGET_S))
        ledger.end(complete=not job.interrupted)
        write_report(result, report)
        if not quiet:
            _show_left(sorter)
            display.show_report(result, target)
            if job.interrupted:
                display.show_notes(["interrupted: letters that are in no figure above are still open"])
        waiting = [*_waiting_here(ledger, relay, plan), *_waiting_elsewhere(source, ledger.id)]
        display.show_notes(waiting)
        code = result.exit_code()
        return UNDELIVERED if (job.interrupted or waiting) and code == DONE else code


def _send_all(job: Run, ledger: Ledger, place: str, source: LetterSource, sorter: _Sorter) -> None:
    """Sends every letter that is meant, batch by batch, until the run is stopped."""
    taken = {own for _, _, ids in ledger.messages() for own in ids}
    for letters in source.batches():
        known: list[Letter] = []
        fresh: list[Letter] = []
        for one in letters:
            (known if number_in_ledger(key_of(one)) in taken else fresh).append(one)
        # A kill came between their slice and their mark; what became of them since is for the report to tell.
        source.mark(known, REPLAYED, ledger)
        for group, own in sorter.sort(fresh).items():
            if job.interrupted:
                break
            job.check()
            source.mark(own, _send(job, ledger, place, group, own, sorter.as_mapped), ledger)
        source.done()
        if job.interrupted:
            return


def _send(job: Run, ledger: Ledger, place: str, group: _Group, letters: Sequence[Letter], as_mapped: bool) -> str:
    """One slice of letters, through the mapping or as they were mapped. Returns what became of all of them, as far as
    it is known."""
    number = ledger.new_slice()
    path = ledger.message_file(number)
    write_messages(path, place, map(letter_message, letters))
    step = None
    if as_mapped:
        (to,) = (one for one in job.plan.destinations if one.name == group.destination)
        resend.put(job.id, letters)
        step = resend.ResendFn(to, job.id)
    ids = [number_in_ledger(key_of(letter)) for letter in letters]
    before = _filtered(job, group.destination)
    read = Read([path], split=False)
    job.map(Slice(read, (group.destination,), messages=ids, number=number, model=group.model, step=step))
    ledger.acknowledged([number])
    filtered = _filtered(job, group.destination) - before
    if filtered == len(letters):
        return FILTERED
    # Of some that were filtered it is not known which. A record that got to no model may give several items.
    return WAITS if not filtered and group.model is not None else REPLAYED


def _filtered(job: Run, name: str) -> int:
    """Records that no model of a destination took, so far in this process."""
    figures = job.spool.figures(name)
    return figures.records - figures.touched


class _Sorter:
    """Sorts letters by what maps them. Those that cannot be sent are counted with why, each once."""

    def __init__(self, plan: Plan, choice: Choice, as_mapped: bool) -> None:
        self.as_mapped = as_mapped
        self.left: Counter[str] = Counter()
        """Reason -> letters that are left as they are."""
        self._plan = plan
        self._choice = choice
        self._to = {to.name: to for to in plan.destinations}
        self._schemas = plan.schemas
        self._problems: dict[_Group, str] = {}

    def sort(self, letters: Sequence[Letter]) -> dict[_Group, list[Letter]]:
        """Those of the letters that are to be sent."""
        chosen: dict[_Group, list[Letter]] = {}
        for letter in letters:
            if not self._choice.takes(letter):
                continue
            why = self._why_not(letter)
            if why:
                self.left[why] += 1
            else:
                chosen.setdefault(_Group(letter.destination, letter.model), []).append(letter)
        return chosen

    def _why_not(self, letter: Letter) -> str:
        """Why a letter cannot be sent again; empty when it can."""
        name = letter.destination
        to = self._to.get(name)
        if to is None:
            return f"{name} is no destination of the relay file"
        if self.as_mapped:
            return self._why_not_as_mapped(letter, to)
        why = unreplayable(letter)
        if why:
            stored = letter.model is not None and payload_of(letter) is not None
            return f"{why}; --as-mapped sends what was mapped before" if stored else why
        group = _Group(name, letter.model)
        if group not in self._problems:
            self._problems[group] = self._problem(to, letter.model)
        return self._problems[group]

    def _why_not_as_mapped(self, letter: Letter, to: Destination) -> str:
        if letter.model is None or payload_of(letter) is None:
            return "it holds nothing that was mapped: replay it without --as-mapped"
        if letter.vendor != to.vendor:
            return f"it was mapped for {letter.vendor}, and {to.name} is {to.vendor} now: replay it without --as-mapped"
        if not letter.schema:
            return "it does not say to what it was mapped: replay it without --as-mapped"
        schema = self._schemas[to.name].get(letter.model)
        if schema and letter.schema != schema:
            return f"it was mapped to {letter.schema}, and {to.name} takes {schema} now: replay it without --as-mapped"
        return self._no_model(to, letter.model)

    def _problem(self, to: Destination, model: str | None) -> str:
        """Why letters of a model cannot be mapped by the relay file as it is; empty when they can."""
        if model is None:
            return ""
        why = self._no_model(to, model)
        if why:
            return why
        try:
            compile_for(self._plan.source, replace(to, models=(model,)))
        except Problems as problems:
            return f"{to.name}.{model}: {problems.problems[0]}"
        return ""

    def _no_model(self, to: Destination, model: str) -> str:
        return "" if model in self._plan.models[to.name] else f"{to.name} has no model {model} in the relay file"


def _state_of(place: str, source: LetterSource) -> str:
    """The state folder of letters at a place, unless another one is named."""
    if source.folder is not None and is_local(source.folder):
        return os.path.join(source.folder, ".replay")
    return os.path.join(".playrelay", f"replay-{hashlib.blake2b(place.encode(), digest_size=6).hexdigest()}")


def _waiting_here(ledger: Ledger, relay: Relay, plan: Plan) -> Iterator[str]:
    """Of destinations that this command did not send to: what waits for them in its state folder."""
    for to in ledger.destinations():
        if to.name not in plan.vendors and ledger.waiting(to.name):
            remedy = "leave out --only" if to.name in relay.destinations else f"put {to.name} into the relay file again"
            yield f"{_count(standing(ledger, to.name).items, 'item')} for {to.name} in {ledger.folder} not sent: {remedy}"


def _waiting_elsewhere(source: LetterSource, ledger: int) -> Iterator[str]:
    """What waits in other state folders."""
    for state, count in source.elsewhere(ledger).items():
        remedy = f"go on with --state {state.folder}"
        if not is_there(state):
            remedy = "which is not there; if it is lost, --reopen sends them again"
        yield f"{_letters(count)} not sent, taken up in {state.folder}: {remedy}"


def _show_dry(source: LetterSource, sorter: _Sorter) -> None:
    """What would be sent."""
    found: Counter[_Group] = Counter()
    for letters in source.batches():
        found.update({group: len(own) for group, own in sorter.sort(letters).items()})
        source.done()
    for group, count in sorted(found.items(), key=lambda pair: (pair[0].destination, pair[0].model or "")):
        model = f" {group.model}" if group.model else ""
        display.line(f"would replay {_letters(count)} of {group.destination}{model}")
    _show_left(sorter)
    if not found:
        display.line("nothing to replay")
    display.show_notes([*_waiting_elsewhere(source, 0)])


def _show_left(sorter: _Sorter) -> None:
    for why, count in sorter.left.most_common():
        display.line(f"left as they are: {_letters(count)}: {one_line(why)}")


def _letters(count: int) -> str:
    return _count(count, "dead letter")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
