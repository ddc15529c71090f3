"""How a destination stands in a ledger: what is done, and what waits."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from transforms import segments
from transforms.dead_letter import REJECTED, UNDELIVERED, Failed
from transforms.deliver import journal
from transforms.elements import Origin, unpack_items
from transforms.ledger_reader import LedgerReader, Segment
from transforms.outcomes import RecordOutcomes
from transforms.report import Totals
from transforms.tally import Tally


class Standing(NamedTuple):
    """One destination."""

    totals: Totals
    """What waits counts as undelivered in it."""
    read: int
    """Records."""
    items: int
    """Items that wait."""
    bytes: int
    """On disk: of the segments that wait, and of the message files of their slices."""


def standing(ledger: LedgerReader, destination: str) -> Standing:
    """How a destination stands; also while a process works with the ledger."""
    with ledger.at_one_moment():
        (kept,) = (one for one in ledger.destinations() if one.name == destination)
        waiting = ledger.waiting(destination)
        marks_of = {segment.slice: ledger.marks([segment.slice], destination) for segment in waiting}
    tally, rejected, undelivered = kept.tally, kept.rejected, kept.undelivered
    items = 0
    for segment in waiting:
        marks = marks_of[segment.slice]
        done = journal.read(segment.path)
        left, more_rejected, more_undelivered = segment.items, 0, segment.records
        if done or marks.rejected() or marks.undelivered():
            # A segment that was finished since then is gone: at that moment it waited.
            with suppress(segments.SegmentGone):
                left, more_rejected, more_undelivered = _gone_through(segment, done, marks, tally)
        items += left
        tally.undelivered += left
        rejected += more_rejected
        undelivered += more_undelivered
    size = sum(segment.bytes for segment in waiting) + sum(map(ledger.message_bytes, marks_of))
    return Standing(Totals(tally, rejected, undelivered), kept.read, items, size)


def _gone_through(segment: Segment, done: journal.Done, marks: RecordOutcomes, tally: Tally) -> tuple[int, int, int]:
    """Item by item: (items that wait, further records rejected, further records undelivered). Adds the outcomes that
    the journal has to the tally."""
    before = marks.rejected(), marks.undelivered()
    head, elements = segments.read_segment(segment.path)
    left = 0
    for element in elements:
        source, items = unpack_items(element.packed)
        origin = Origin(source, segment.number)
        failures = []
        for item in items:
            key = done.key(origin, item)
            if key in done.delivered:
                tally.delivered += 1
            elif key in done.failed:
                failure = done.failure(key, item, origin, head.models)
                tally.rejected += failure.outcome == REJECTED
                tally.undelivered += failure.outcome == UNDELIVERED
                tally.reasons[failure.reason] = tally.reasons.get(failure.reason, 0) + 1
                failures.append(failure)
            else:
                left += 1
                failures.append(Failed(UNDELIVERED, "", source, item[4]))
        marks.add(failures)
    return left, marks.rejected() - before[0], marks.undelivered() - before[1]
