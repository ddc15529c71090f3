"""A job that goes on with another relay file: what waits in its state was mapped by the one before."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from deliveries import destination
from random_days import Cell
from streams import until
from unbounded_streams import SUBSCRIPTION, record

from sandbox.server import Running
from transforms.carried import kinds_of, pack_carried
from transforms.dead_letter import OTHER_FORM, Failed
from transforms.deliver.visit import Patience, Step, Visit
from transforms.deliver.waiting import NO_WINDOW, Held
from transforms.destination import Destination
from transforms.elements import Item

MINUTE_MS = 60_000
NOW_MS = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS


class Job:
    """Bundles of one shard, as a job of the relay file that is in force has them."""

    def __init__(self) -> None:
        cells = {"note": None, "waiting": [], "going": [], "due": None, "close": None}
        *self.state, self.due, self.close = (Cell(cells, name) for name in cells)
        self.failed: list[Failed] = []
        self.delivered = 0

    def runs(self, to: Destination, models: Sequence[str]) -> None:
        """Begins, or goes on with another relay file."""
        self.step = Step.of(to, tuple(models), Patience(), uuid.uuid4().hex)

    def bundle(self, *elements: tuple[int, bytes]) -> None:
        self.step.sent.clear()
        visit = Visit(self.step, 0, Held(*self.state), self.due, self.close, int(time.time() * 1000))
        for window, data in elements:
            self._outcomes(visit.take_in(window, data))
        self._outcomes(visit.go_on())

    def until_nothing_waits(self) -> None:
        def idle() -> bool:
            self.bundle()
            return Held(*self.state).note.idle

        until(idle)

    def _outcomes(self, found: Iterator[Any]) -> None:
        for one in found:
            if isinstance(one, tuple):
                self.delivered += one[1].delivered
            else:
                self.failed += one.value[1]


def mapped(to: Destination, models: Sequence[str], items: Iterable[tuple[str, dict[str, Any]]]) -> bytes:
    """Items as the mapping of a relay file with these models gives them."""
    found: list[Item] = [
        (json.dumps(payload).encode(), models.index(model), "u", NOW_MS + number, number)
        for number, (model, payload) in enumerate(items)
    ]
    return pack_carried(SUBSCRIPTION, found, {one[4]: record(one) for one in found}, kinds_of(to, models))


EVENTS = [("event", {"external_id": "u", "name": "spin", "data": {"n": number}}) for number in range(3)]
IDENTIFY = ("identify", {"external_id": "u"})


@pytest.fixture
def to(sandbox: Running) -> Destination:
    made = destination("parcelvoy", f"{sandbox.url}/parcelvoy", shards=1)
    return dataclasses.replace(made, batch=dataclasses.replace(made.batch, age_ms=0))


@pytest.mark.parametrize("going", [True, False])
@pytest.mark.parametrize("models", [["identify", "event"], ["event"], ["device", "event", "identify"]])
def test_items_are_of_the_model_that_they_were_mapped_to(
    sandbox: Running, to: Destination, models: list[str], going: bool
) -> None:
    """Those that wait, those whose requests were under way, and those that were still on their way to the shard."""
    before = ["event", "identify"]
    sandbox.fault(vendor="parcelvoy", status=503, next=None)
    job = Job()
    job.runs(to if going else dataclasses.replace(to, batch=dataclasses.replace(to.batch, age_ms=MINUTE_MS)), before)
    job.bundle((NO_WINDOW, mapped(to, before, [*EVENTS, IDENTIFY])))
    assert bool(Held(*job.state).note.going) is going
    sandbox.clear_faults()
    job.runs(to, models)
    job.bundle((NO_WINDOW, mapped(to, before, [*EVENTS, IDENTIFY])), (NO_WINDOW, mapped(to, models, EVENTS)))
    job.until_nothing_waits()
    took = [one["model"] for one in sandbox.items("parcelvoy")]
    gone = 0 if "identify" in models else 2
    assert (took.count("event"), took.count("identify")) == (9, 2 - gone)
    assert [(one.model, one.reason) for one in job.failed] == [("identify", OTHER_FORM)] * gone
    assert all(one.original == b"record 3" for one in job.failed)
    assert job.delivered == 11 - gone and sandbox.violations() == []


def test_a_form_that_is_sent_no_more(sandbox: Running) -> None:
    """`send` was changed: the model has its name still, and its payloads are other ones."""
    single = destination("swrve", f"{sandbox.url}/swrve", shards=1, options={"send": "single"})
    batch = dataclasses.replace(single, options={"send": "batch"})
    job = Job()
    job.runs(single, ["event"])
    job.bundle((NO_WINDOW, mapped(batch, ["event"], [("event", {"type": "event", "time": NOW_MS, "name": "spin"})])))
    job.until_nothing_waits()
    assert [(one.model, one.reason) for one in job.failed] == [("event", OTHER_FORM)]
    assert sandbox.received()["vendors"]["swrve"]["requests"] == 0


@pytest.mark.parametrize("windows", [(MINUTE_MS, None), (None, MINUTE_MS)])
def test_what_waits_of_another_window_is_sent(
    sandbox: Running, to: Destination, windows: tuple[int | None, int | None]
) -> None:
    before, after = (
        dataclasses.replace(to, batch=dataclasses.replace(to.batch, age_ms=10 * MINUTE_MS, window_ms=window))
        for window in windows
    )
    job = Job()
    job.runs(before, ["event"])
    job.bundle((NO_WINDOW if windows[0] is None else NOW_MS, mapped(to, ["event"], EVENTS)))
    assert not job.delivered
    job.runs(after, ["event"])
    job.until_nothing_waits()
    assert job.delivered == 3
