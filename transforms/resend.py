"""Dead letters' stored payloads as items: sent as they were mapped, without their records being mapped anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms.destination import Destination
from transforms.elements import Chunk, Packer, record_ref
from transforms.letter_shape import Letter
from transforms.letters import payload_of
from transforms.map_records import EARLIEST_MS, LATEST_MS, TALLY, tag
from transforms.mapping.runtime import sharder
from transforms.progress import progress
from transforms.sources.messages import unpack_messages
from transforms.tally import Tally


class _Stored(NamedTuple):
    payload: bytes
    user: str
    time_ms: int


_stored: dict[str, dict[str, _Stored]] = {}
"""Run -> id of a letter -> what it holds: payloads do not travel in the job graph."""


def put(run: str, letters: Iterable[Letter]) -> None:
    """What the next slice of a run in this process sends; in place of what was put before. Letters without a payload
    are not sent."""
    found = _stored[run] = {}
    for letter in letters:
        payload = payload_of(letter)
        if payload is not None:
            found[letter.id] = _Stored(payload, letter.user or "", letter.time or 0)


def forget(run: str) -> None:
    """Drops what was put."""
    _stored.pop(run, None)


class ResendFn(beam.DoFn):
    """In: Chunk of letters' messages (transforms/letters.py). Out: as MapRecordsFn's, of one destination and model.

    Only for runners inside this process, where `put` said what the letters hold.
    """

    def __init__(self, to: Destination, run: str) -> None:
        self.to = to
        self.run = run

    def process(self, chunk: Chunk) -> Iterator[Any]:
        """One item a message."""
        _, shard_of = sharder(self.to.shards)
        window = self.to.batch.window_ms
        stored = _stored[self.run]
        packers: dict[tuple[int, int], Packer] = {}
        messages = unpack_messages(chunk.payload)
        for index, message in enumerate(messages):
            payload, user, time_ms = stored[message.id]
            number = 0 if window is None else min(max(time_ms, EARLIEST_MS), LATEST_MS) // window
            packer = packers.setdefault((shard_of(user), number), Packer())
            packer.add([(payload, 0, user, time_ms, record_ref(chunk.position, index))], 1)
        for (shard, number), packer in packers.items():
            element: Any = (shard, packer.packed(chunk.source))
            if window is not None:
                element = TimestampedValue(element, Timestamp(micros=number * window * 1000))
            yield beam.pvalue.TaggedOutput(tag(self.to.name), element)
        count = len(messages)
        progress(self.run).records += count
        yield beam.pvalue.TaggedOutput(TALLY, (self.to.name, Tally(records=count, touched=count, mapped=count)))
