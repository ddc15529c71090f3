"""The sink of a run on one machine: takes what it delivers from the spool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os.path import basename
from typing import Any, NamedTuple

import apache_beam as beam

from transforms import segments, spool
from transforms.dead_letter import OTHER_FORM, REJECTED, UNDELIVERED, Failed
from transforms.deliver import journal, parking
from transforms.deliver.gate import Gate
from transforms.deliver.policy import Policy
from transforms.deliver.sender import Sender
from transforms.deliver.sink import FAILED, Delivered, Group, SinkFn
from transforms.destination import Destination
from transforms.elements import Item, Origin
from transforms.ledger_reader import Segment
from transforms.tally import Tally
from transforms.vendors import get, schemas_of


class _Taken(NamedTuple):
    """A segment in hand."""

    slice: int
    done: journal.Done
    """What its journal says."""
    models: list[int | None] | None
    """Index of each of its models among the destination's now; None when they are the same."""
    head: segments.Head
    """How its items were made."""


class DeliverSegmentsFn(SinkFn):
    """The sink over the spool, which has gathered each segment's items: what a shuffle does elsewhere.

    In: one impulse. Out: as DeliverFn's, after each taking of segments, until the destination's spool is closed. So all
    of a destination's segments are one pipeline's work: building a pipeline costs as much as sending a small segment.
    """

    def _open_sender(self, policy: Policy, pace: Gate) -> Sender:
        to = self.destination
        self._failed_before: list[Failed] = []
        self._schemas = schemas_of(to.vendor, to.options)
        self._journal = journal.Journal() if spool.of(self.run).ledger is not None else None
        return Sender(
            get(to.vendor),
            self._settings,
            self.models,
            policy,
            pace,
            self._journal,
            parking.of(self.run, to.name),
        )

    def process(self, _: bytes) -> Iterator[Any]:
        """Sends segments as they come."""
        waiting = spool.of(self.run)
        while taken := waiting.take(self.destination.name):
            tally, failed = self._deliver(taken)
            whole = tally.delivered + tally.rejected + tally.undelivered == sum(one.items for one in taken)
            if not whole:  # a halt; what has no outcome waits on disk, and its journal says the rest
                waiting.sent(self.destination.name, tally.traffic())
                return
            waiting.finish(self.destination.name, taken, tally, failed)
            if waiting.ledger is None:  # which has the sums otherwise
                yield from self._outcomes(tally, [failure for own in failed.values() for failure in own])

    def _deliver(self, taken: list[Segment]) -> tuple[Tally, dict[int, list[Failed]]]:
        """Sends the items of segments that have no outcome yet. Returns the outcomes of all of them that have one:
        figures, and by slice what was not delivered. Adds to `taken` the segments that were taken up meanwhile."""
        self._before, self._failed_before = Tally(), []
        self._taken: dict[int, _Taken] = {}

        def meanwhile() -> None:
            # Items of other users may be what the vendor takes again, or never refused. They are looked for beyond what
            # memory is for: one user's items, which are all there is then, are few.
            assert self._sender is not None
            if not self._sender.parked:
                return
            least = 1 if self._sender.shards == 1 < self.destination.shards else 0
            if more := spool.of(self.run).more(self.destination.name, taken, least):
                self._queue(self._take_up(more))
                taken.extend(more)

        tally, failed = self._send(self._take_up(taken), meanwhile)
        if self._journal is not None:
            self._journal.close()
        tally.add(self._before)
        by_slice: dict[int, list[Failed]] = {}
        for failure in (*self._failed_before, *failed):
            slice_ = self._taken[failure.segment].slice
            by_slice.setdefault(slice_, []).append(self._found(failure, slice_))
        return tally, by_slice

    def _found(self, failure: Failed, slice_: int) -> Failed:
        """A failure with how its payload was made, and its record looked for where its slice's messages are now: the
        folder may have been moved."""
        head = self._taken[failure.segment].head
        failure = failure._replace(schema=head.schema(failure.model), mapping=head.mapping)
        ledger = spool.of(self.run).ledger
        if ledger is None:
            return failure
        path = ledger.message_file(slice_)
        return failure._replace(source=path) if basename(failure.source) == basename(path) else failure

    def _take_up(self, segments: Sequence[Segment]) -> list[Group]:
        """Opens segments and their journals."""
        groups = self._groups(segments)
        if self._journal is not None:
            own = {
                one.number: {now: index for index, now in enumerate(models) if now is not None}
                for one in segments
                if (models := self._taken[one.number].models) is not None
            }
            self._journal.open({one.number: one.path for one in segments}, own)
        return groups

    def _groups(self, taken: Iterable[Segment]) -> list[Group]:
        groups: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        shards = self.destination.shards
        for segment in taken:
            head, elements = segments.read_segment(segment.path)
            models = segments.translation(head, self.models, self._schemas)
            as_now = models == list(range(len(models)))
            done = journal.read(segment.path)
            self._taken[segment.number] = _Taken(segment.slice, done, None if as_now else models, head)
            for element in elements if head.shards == shards else segments.shard_again(elements, shards):
                groups.setdefault((element.start, element.shard), []).append((segment.number, element.packed))
        return [Group(start, shard, packed) for (start, shard), packed in groups.items()]

    def _items(self, segment: int, packed: bytes) -> tuple[Origin, list[Item]]:
        """Without the items that have their outcome already, or can never be sent as they are."""
        origin, items = super()._items(segment, packed)
        held = self._taken[segment]
        if held.models is None and not held.done:
            return origin, items
        left = []
        for item in items:
            key = held.done.key(origin, item)
            if key in held.done.delivered:
                self._before.delivered += 1
            elif key in held.done.failed:
                self._count_failed(held.done.failure(key, item, origin, held.head.models))
            else:
                left.append(item)
        if held.models is not None:
            left = list(self._translated(held.models, held.head.models, origin, left))
        return origin, left

    def _translated(
        self, models: Sequence[int | None], names: Sequence[str], origin: Origin, items: Iterable[Item]
    ) -> Iterator[Item]:
        """Items under the destination's models of now."""
        for payload, model, user, time_ms, ref in items:
            index = models[model]
            if index is None:
                failure = Failed(UNDELIVERED, OTHER_FORM, origin.source, ref, names[model], user, time_ms, payload)
                self._count_failed(failure._replace(segment=origin.segment))
            else:
                yield payload, index, user, time_ms, ref

    def _count_failed(self, failure: Failed) -> None:
        self._failed_before.append(failure)
        self._before.rejected += failure.outcome == REJECTED
        self._before.undelivered += failure.outcome == UNDELIVERED
        self._before.reasons[failure.reason] = self._before.reasons.get(failure.reason, 0) + 1


class DeliverSegments(beam.PTransform):
    """Sends a destination's segments of the spool as they come. In: the pipeline's begin. Out: Delivered."""

    def __init__(self, destination: Destination, models: tuple[str, ...], run: str) -> None:
        super().__init__()
        self.sink = DeliverSegmentsFn(destination, models, run)

    def expand(self, begin: beam.pvalue.PBegin) -> Delivered:
        """Wires the steps."""
        sent = begin | beam.Impulse() | "Send" >> beam.ParDo(self.sink).with_outputs(FAILED, main="tallies")
        return Delivered(sent.tallies, sent[FAILED])
