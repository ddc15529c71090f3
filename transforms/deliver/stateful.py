"""The unbounded batcher and sender: one stateful step a destination, keyed by shard.

Everything lies in the global window, so the runner never drops an item as late; event-time windows are kept in the state.
A vendor's bad day is state too: what was not taken stays, in order, with a timer at the time of the next try, and no
bundle waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from transforms.deliver.sink import FAILED, Delivered
from transforms.deliver.visit import END, Patience, Step, Visit
from transforms.deliver.waiting import NO_WINDOW, Held
from transforms.destination import Destination

_NOTE = beam.DoFn.StateParam(ReadModifyWriteStateSpec("note", BytesCoder()))
_WAITING = beam.DoFn.StateParam(BagStateSpec("waiting", BytesCoder()))
_GOING = beam.DoFn.StateParam(BagStateSpec("going", BytesCoder()))
_DUE_TIMER = TimerSpec("due", TimeDomain.REAL_TIME)
_DUE = beam.DoFn.TimerParam(_DUE_TIMER)
_CLOSE_TIMER = TimerSpec("close", TimeDomain.WATERMARK)
_CLOSE = beam.DoFn.TimerParam(_CLOSE_TIMER)


class BatchAndSendFn(beam.DoFn):
    """Gathers a shard's items into batches and sends them, one request at a time.

    In: (shard, packed items with their records), with the window's start as timestamp when the destination has windows.
    Out: (destination, Tally); tagged `failed`: (destination, list of Failed with their records).
    """

    def __init__(self, destination: Destination, models: tuple[str, ...], run: str, patience: Patience) -> None:
        self.destination = destination
        self.models = models
        self.run = run
        self.patience = patience

    def setup(self) -> None:
        """Resolves the references, once a process."""
        self._step = Step.of(self.destination, self.models, self.patience, self.run)

    def start_bundle(self) -> None:
        """Begins with nothing sent."""
        self._step.sent.clear()

    def process(
        self,
        element: tuple[int, bytes],
        stamp: Timestamp = beam.DoFn.TimestampParam,
        note: Any = _NOTE,
        waiting: Any = _WAITING,
        going: Any = _GOING,
        due: Any = _DUE,
        close: Any = _CLOSE,
    ) -> Iterator[Any]:
        """Takes items in, and sends when there are enough."""
        shard, data = element
        visit = Visit(self._step, shard, Held(note, waiting, going), due, close, _now())
        yield from visit.take_in(NO_WINDOW if self.destination.batch.window_ms is None else stamp.micros // 1000, data)
        yield from visit.go_on()

    @on_timer(_DUE_TIMER)  # type: ignore[untyped-decorator]
    def on_due(
        self,
        shard: int = beam.DoFn.KeyParam,
        stamp: Timestamp = beam.DoFn.TimestampParam,
        note: Any = _NOTE,
        waiting: Any = _WAITING,
        going: Any = _GOING,
        due: Any = _DUE,
        close: Any = _CLOSE,
    ) -> Iterator[Any]:
        """Items are old enough, or it is time to try again or to ask for a flight."""
        # The runner's clock may be ahead of this machine's: what it says is due is due.
        visit = Visit(self._step, shard, Held(note, waiting, going), due, close, max(_now(), stamp.micros // 1000))
        visit.held.note.due = 0
        yield from visit.go_on()

    @on_timer(_CLOSE_TIMER)  # type: ignore[untyped-decorator]
    def on_close(
        self,
        shard: int = beam.DoFn.KeyParam,
        stamp: Timestamp = beam.DoFn.TimestampParam,
        note: Any = _NOTE,
        waiting: Any = _WAITING,
        going: Any = _GOING,
        due: Any = _DUE,
        close: Any = _CLOSE,
    ) -> Iterator[Any]:
        """A window is over, or the job drains."""
        visit = Visit(self._step, shard, Held(note, waiting, going), due, close, _now())
        kept = visit.held.note
        kept.close = 0
        if stamp >= END:
            kept.ending = kept.ending or visit.now
        else:
            kept.closed = max(kept.closed, stamp.micros // 1000)
        yield from visit.go_on()


def _now() -> int:
    return int(time.time() * 1000)


def _as_it_is(element: tuple[int, bytes]) -> tuple[int, bytes]:
    return element


class DeliverStream(beam.PTransform):
    """Batches a destination's items as they come, and sends them.

    In: (shard, packed items with their records), as MapRecordsFn gives them with `carry`. Out: Delivered.

        delivered = items | DeliverStream(destination, models=("event",), run="stream")
    """

    def __init__(
        self, destination: Destination, models: tuple[str, ...], run: str, patience: Patience = Patience()
    ) -> None:
        super().__init__()
        self.sink = BatchAndSendFn(destination, models, run, patience)

    def expand(self, items: beam.PCollection) -> Delivered:
        """Wires the one step."""
        keyed = items | "By shard" >> beam.Map(_as_it_is).with_output_types(tuple[int, bytes])
        sent = keyed | "Batch and send" >> beam.ParDo(self.sink).with_outputs(FAILED, main="tallies")
        return Delivered(sent.tallies, sent[FAILED])


__all__ = ["BatchAndSendFn", "DeliverStream"]
