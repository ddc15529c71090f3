"""Where `playrelay replay` takes letters from: a folder, in which they are marked, or a subscription to a topic."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from typing import Final, Protocol

from google.api_core.exceptions import GoogleAPICallError

from transforms.ledger import Ledger
from transforms.ledger_reader import StateError, read_ledger
from transforms.letter_marks import DELIVERED, FAILED_AGAIN, GONE, NOWHERE, REPLAYED, WAITS, Key, Marks, State, key_of
from transforms.letter_shape import Letter
from transforms.letter_stores import LetterError, is_topic
from transforms.letters import NEVER, Age, age_of, all_letters, check_letters, letter_of, read_letters
from transforms.pull import Amount, Puller, number_of
from transforms.sources.files import is_local
from transforms.sources.messages import Message
from transforms.subscriber import Pulled

BATCH_LETTERS: Final = 20_000
BATCH_BYTES: Final = 64 << 20
"""Most letters, and bytes of them, that are held in memory at a time."""

QUIET_S = 5.0
"""Seconds without a message after which a subscription is taken to hold no more letters."""

GATHER_S: Final = 0.5
"""Seconds for which messages are gathered: of the letters of one record the latest is to be found among them."""

_SUBSCRIPTION: Final = re.compile(r"projects/[^/\s]+/subscriptions/[^/\s]+")

_log = logging.getLogger(__name__)


def number_in_ledger(letter: Key) -> int:
    """A letter in 64 bits."""
    return number_of("/".join(map(str, letter)))


class LetterSource(Protocol):
    """Letters that are open, and how it is kept which were replayed."""

    folder: str | None
    """Where what fails again goes unless it is said; None when it must be."""

    def batches(self) -> Iterator[list[Letter]]:
        """The open letters, each once, some at a time. LetterError or SubscriptionError when they cannot be had."""

    def mark(self, letters: Iterable[Letter], outcome: str, ledger: Ledger) -> None:
        """They are replayed by way of a ledger: what became of them, as far as it is known. It is durable once `done`
        returns."""

    def done(self) -> None:
        """The last batch is gone through."""

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        """Writes down what became of letters that were sent. target: where those are that failed again, if any did."""

    def elsewhere(self, ledger: int) -> dict[State, int]:
        """How many letters wait to be sent in other state folders than that of a ledger."""

    def close(self) -> None:
        """Lets go of it; what is not replayed stays."""


def letter_source(place: str, write: bool, reopen: bool) -> LetterSource:
    """The letters at a place. LetterError when there can be none. write: they may be marked. reopen: also those that wait
    in a state folder that is no more."""
    if _SUBSCRIPTION.fullmatch(place):
        if reopen:
            raise LetterError(f"{place}: --reopen is for a folder of letters; of a subscription none are kept")
        return _Subscription(place)
    check_letters(place)
    return _Folder(place, write, reopen)


def is_there(state: State) -> bool:
    """Whether a state folder is still where it was, on this machine."""
    try:
        with closing(read_ledger(state.folder)) as ledger:
            return ledger.id == state.ledger
    except StateError:
        return False


class _Folder:
    """A folder of letters, or a file in one."""

    def __init__(self, place: str, write: bool, reopen: bool) -> None:
        self._place = place
        file = is_local(place) and os.path.isfile(place)
        self.folder: str | None = (os.path.dirname(place) or ".") if file else place
        self._marks = Marks(self.folder or place, write=write)
        waiting = self._marks.waiting() if reopen else ()
        self._lost = {state.ledger for state in waiting if not is_there(state)}
        self._there: set[int] = set()
        """All letters that were seen, when something is lost."""
        self._all = False
        """All letters of the folder were seen."""
        self._skipped = False

    def batches(self) -> Iterator[list[Letter]]:
        held: list[Letter] = []
        size = 0
        for letter in read_letters(self._place, self._skip):
            if self._lost:
                self._there.add(number_in_ledger(key_of(letter)))
            if self._marks.is_marked(key_of(letter), self._lost):
                continue
            held.append(letter)
            size += _size(letter)
            if len(held) >= BATCH_LETTERS or size >= BATCH_BYTES:
                yield held
                held, size = [], 0
        self._all = self._place == self.folder and not self._skipped
        if held:
            yield held

    def mark(self, letters: Iterable[Letter], outcome: str, ledger: Ledger) -> None:
        state = State(ledger.id, ledger.folder) if outcome in (WAITS, REPLAYED) else NOWHERE
        self._marks.mark(map(key_of, letters), outcome, state)

    def done(self) -> None:
        pass

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        if self._all:
            self._settle_gone()
        slices = {one.slice for to in ledger.destinations() for one in ledger.waiting(to.name)}
        known = {number: ids for number, _, ids in ledger.messages() if number in slices}
        told = all_delivered or not is_topic(target)
        if told and not all_delivered:
            for again in _pieces(_failed_before(target)):
                self._marks.settle(again, FAILED_AGAIN)
        if slices - known.keys():
            return  # it is forgotten which letters wait: what became of them is known when nothing does
        waiting: Container[int] = {own for ids in known.values() for own in ids}
        for before, after in ((WAITS, DELIVERED if told else REPLAYED), (REPLAYED, REPLAYED)):
            for sent in self._marks.unsettled(before, ledger.id):
                self._marks.settle([one for one in sent if number_in_ledger(one) not in waiting], after)

    def _skip(self, what: str) -> None:
        self._skipped = True
        _log.warning(what)

    def _settle_gone(self) -> None:
        """Letters that are neither here nor in a state folder never come to be sent."""
        for lost in self._lost:
            for outcome in (WAITS, REPLAYED):
                for marked in self._marks.unsettled(outcome, lost):
                    self._marks.settle([one for one in marked if number_in_ledger(one) not in self._there], GONE)

    def elsewhere(self, ledger: int) -> dict[State, int]:
        return {state: count for state, count in self._marks.waiting().items() if state.ledger != ledger}

    def close(self) -> None:
        self._marks.close()


def _size(letter: Letter) -> int:
    original = letter.original
    text = original if isinstance(original, str) else original.base64 if original is not None else ""
    return len(bytes(letter.payload)) + len(text) + 1_000


def _failed_before(folder: str) -> Iterator[Key]:
    """The letters that others in a folder stand for by now."""
    for letter in all_letters(folder):
        for failures in range(1, letter.failures):
            yield key_of(letter)._replace(failures=failures)


def _pieces(letters: Iterable[Key]) -> Iterator[list[Key]]:
    held: list[Key] = []
    for one in letters:
        held.append(one)
        if len(held) >= BATCH_LETTERS:
            yield held
            held = []
    if held:
        yield held


class _Subscription:
    """Letters of a topic, pulled until no more come. What is replayed is acknowledged, the rest given back at the end:
    given back sooner, it would come again.

    Of each id a letter is taken once: the latest of those that come together, which stands for the earlier ones. One that
    comes later may be what failed again here, so it is for another run.
    """

    folder: str | None = None

    def __init__(self, place: str) -> None:
        self._puller = Puller(place)
        self._taken: list[tuple[Pulled, list[tuple[int, Age] | None]]] = []
        """What the last batch was made of: of each message its letter's id, as a number, and age; None for one that holds
        none."""
        self._given: dict[int, Age] = {}
        """Of each id, the letter that was given."""
        self._replayed: set[int] = set()

    def batches(self) -> Iterator[list[Letter]]:
        self._puller.start()
        batch = Amount(BATCH_LETTERS, BATCH_BYTES)
        while pulled := self._puller.take(GATHER_S, batch, batch, time.monotonic() + QUIET_S):
            latest: dict[int, Letter] = {}
            for one in pulled:
                ages: list[tuple[int, Age] | None] = []
                for message in one.messages:
                    letter = _letter(message)
                    if letter is None:
                        ages.append(None)
                        continue
                    number, age = number_of(letter.id), age_of(letter)
                    ages.append((number, age))
                    if number not in self._given and (number not in latest or age > age_of(latest[number])):
                        latest[number] = letter
                self._taken.append((one, ages))
            self._given.update((number, age_of(letter)) for number, letter in latest.items())
            yield list(latest.values())

    def mark(self, letters: Iterable[Letter], outcome: str, ledger: Ledger) -> None:
        self._replayed.update(number_of(one.id) for one in letters)

    def done(self) -> None:
        acknowledged = []
        for pulled, ages in self._taken:
            for replayed, part in self._puller.parts(pulled, [int(self._is_replayed(one)) for one in ages]):
                if replayed:
                    acknowledged.append(part)
                else:
                    part.messages.clear()  # what is kept is only what it takes to give them back
        self._taken.clear()
        try:
            self._puller.acknowledge(acknowledged)
        except GoogleAPICallError as error:
            # They come again, and the ledger knows them.
            _log.warning("%s: not acknowledged: %s", self._puller.subscription, error)

    def _is_replayed(self, letter: tuple[int, Age] | None) -> bool:
        """Whether a letter was replayed, or is one for which that stands."""
        return letter is not None and letter[0] in self._replayed and letter[1] <= self._given.get(letter[0], NEVER)

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        pass

    def elsewhere(self, ledger: int) -> dict[State, int]:
        return {}

    def close(self) -> None:
        self._puller.stop()  # first: what is given back must not come here again
        self._puller.give_back()
        self._puller.close()


def _letter(message: Message) -> Letter | None:
    try:
        return letter_of(message.data, message.attributes)
    except ValueError as error:
        _log.warning("message %s: %s; left as it is", message.id, error)
        return None
