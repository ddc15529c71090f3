"""Where `playrelay replay` takes letters from: a folder, in which they are marked, or a subscription to a topic."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Container, Iterable, Iterator
from typing import Final, Protocol

from google.api_core.exceptions import GoogleAPICallError

from transforms.ledger import Ledger
from transforms.letter_marks import DELIVERED, FAILED_AGAIN, REPLAYED, WAITS, Marks
from transforms.letter_shape import Letter
from transforms.letter_stores import is_topic
from transforms.letters import letter_files, letter_of, read_letters
from transforms.pull import Amount, Puller, number_of
from transforms.sources.files import is_local
from transforms.sources.messages import Message
from transforms.subscriber import Pulled

BATCH_LETTERS: Final = 20_000
BATCH_BYTES: Final = 64 << 20
"""Most letters, and bytes of them, that are held in memory at a time."""

QUIET_S = 5.0
"""Seconds without a message after which a subscription is taken to hold no more letters."""

_SUBSCRIPTION: Final = re.compile(r"projects/[^/\s]+/subscriptions/[^/\s]+")

_log = logging.getLogger(__name__)


def key_of(id: str, failures: int) -> int:
    """A letter in 64 bits, for the ledger."""
    return number_of(f"{id}/{failures}")


class LetterSource(Protocol):
    """Letters that are open, and how it is kept which were replayed."""

    folder: str | None
    """Where what fails again goes unless it is said; None when it must be."""

    def batches(self) -> Iterator[list[Letter]]:
        """The open letters, each once, some at a time. LetterError or SubscriptionError when they cannot be had."""

    def mark(self, letters: Iterable[Letter], outcome: str) -> None:
        """They are replayed: what became of them, as far as it is known. It is durable once `done` returns."""

    def done(self) -> None:
        """The last batch is gone through."""

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        """Writes down what became of letters that were sent. target: where those are that failed again, if any did."""

    def close(self) -> None:
        """Lets go of it; what is not replayed stays."""


def letter_source(place: str, write: bool) -> LetterSource:
    """The letters at a place. LetterError when there can be none. write: they may be marked."""
    if _SUBSCRIPTION.fullmatch(place):
        return _Subscription(place)
    letter_files(place)
    return _Folder(place, write)


class _Folder:
    """A folder of letters, or a file in one."""

    def __init__(self, place: str, write: bool) -> None:
        self._place = place
        file = is_local(place) and os.path.isfile(place)
        self.folder: str | None = (os.path.dirname(place) or ".") if file else place
        self._marks = Marks(self.folder or place, write=write)

    def batches(self) -> Iterator[list[Letter]]:
        held: list[Letter] = []
        size = 0
        for letter in read_letters(self._place):
            if self._marks.is_marked(letter.id, letter.failures):
                continue
            held.append(letter)
            size += _size(letter)
            if len(held) >= BATCH_LETTERS or size >= BATCH_BYTES:
                yield held
                held, size = [], 0
        if held:
            yield held

    def mark(self, letters: Iterable[Letter], outcome: str) -> None:
        self._marks.mark([(one.id, one.failures) for one in letters], outcome)

    def done(self) -> None:
        pass

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        slices = {one.slice for to in ledger.destinations() for one in ledger.waiting(to.name)}
        known = {number: ids for number, _, ids in ledger.messages() if number in slices}
        told = all_delivered or not is_topic(target)
        if told and not all_delivered:
            for again in _pieces(_failed_before(target)):
                self._marks.settle(again, FAILED_AGAIN)
        if slices - known.keys():
            return  # it is forgotten which letters wait: what became of them is known when nothing does
        waiting: Container[int] = {own for ids in known.values() for own in ids}
        for sent in self._marks.unsettled(WAITS):
            self._marks.settle([one for one in sent if key_of(*one) not in waiting], DELIVERED if told else REPLAYED)

    def close(self) -> None:
        self._marks.close()


def _size(letter: Letter) -> int:
    original = letter.original
    text = original if isinstance(original, str) else original.base64 if original is not None else ""
    return len(bytes(letter.payload)) + len(text) + 1_000


def _failed_before(folder: str) -> Iterator[tuple[str, int]]:
    """Id and failures of the letters that others in a folder stand for by now."""
    for letter in read_letters(folder, lambda _: None):
        for failures in range(1, letter.failures):
            yield letter.id, failures


def _pieces(marks: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    held: list[tuple[str, int]] = []
    for one in marks:
        held.append(one)
        if len(held) >= BATCH_LETTERS:
            yield held
            held = []
    if held:
        yield held


class _Subscription:
    """Letters of a topic, pulled until no more come. What is replayed is acknowledged, the rest given back at the end:
    given back sooner, it would come again."""

    folder: str | None = None

    def __init__(self, place: str) -> None:
        self._puller = Puller(place)
        self._taken: list[tuple[Pulled, list[int]]] = []
        """What the last batch was made of, and the keys of its letters; 0 for a message that is none."""
        self._seen: set[int] = set()
        self._replayed: set[int] = set()

    def batches(self) -> Iterator[list[Letter]]:
        self._puller.start()
        batch = Amount(BATCH_LETTERS, BATCH_BYTES)
        while pulled := self._puller.take(0.2, batch, batch, time.monotonic() + QUIET_S):
            letters = []
            for one in pulled:
                keys = []
                for message in one.messages:
                    letter = _letter(message)
                    key = 0 if letter is None else key_of(letter.id, letter.failures)
                    keys.append(key)
                    if letter is not None and key not in self._seen:  # it may have been published twice
                        letters.append(letter)
                        self._seen.add(key)
                self._taken.append((one, keys))
            yield letters

    def mark(self, letters: Iterable[Letter], outcome: str) -> None:
        self._replayed.update(key_of(one.id, one.failures) for one in letters)

    def done(self) -> None:
        acknowledged = []
        for pulled, keys in self._taken:
            for replayed, part in self._puller.parts(pulled, [int(key in self._replayed) for key in keys]):
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

    def settle(self, ledger: Ledger, target: str, all_delivered: bool) -> None:
        pass

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
