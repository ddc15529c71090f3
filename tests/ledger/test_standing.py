"""The sums of a ledger, whatever happens to items and to the process: read = filtered + delivered + rejected + undelivered."""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import FILTERED, MODELS, TARGETS, Record, answer, finish, left, write_slice

from pipelines.standing import standing
from transforms.deliver.journal import journal_of
from transforms.elements import Item, Origin
from transforms.ledger import Ledger
from transforms.ledger_reader import read_ledger

OUTCOMES = ("delivered", "rejected", "undelivered")
WORST = {outcome: rank for rank, outcome in enumerate(("delivered", "rejected", "undelivered"))}

records = st.lists(
    st.one_of(
        st.just(FILTERED),
        st.builds(
            Record,
            models=st.lists(st.sampled_from(range(len(MODELS))), unique=True, max_size=2).map(tuple),
            rejected=st.booleans(),
            segment=st.integers(0, 2),
        ),
    ),
    min_size=1,
    max_size=6,
)


class Expected:
    """What the sums must be, kept in the plainest way: the outcome of each item of each record."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int, int], list[str]] = {}
        """(destination, slice, reference) -> outcomes of its items; waiting ones are undelivered."""
        self.items: dict[tuple[str, int, int, int], str] = {}
        self.rejected_by_mapping: Counter[str] = Counter()

    def mapped(self, number: int, slices: dict[str, list[Record]]) -> None:
        for destination, own in slices.items():
            for index, record in enumerate(own):
                self.records[destination, number, index] = ["rejected"] if record.rejected else []
                self.rejected_by_mapping[destination] += record.rejected
                for model in record.models:
                    self.items[destination, number, index, model] = "undelivered"

    def answered(self, destination: str, slice_: int, pair: tuple[Item, Origin], outcome: str) -> None:
        self.items[destination, slice_, pair[0][4], pair[0][1]] = outcome

    def sums(self, destination: str) -> dict[str, int]:
        """Records by outcome."""
        outcomes = {key: list(own) for key, own in self.records.items() if key[0] == destination}
        for (name, slice_, ref, _), outcome in self.items.items():
            if name == destination:
                outcomes[name, slice_, ref].append(outcome)
        found = Counter(max(own, key=WORST.__getitem__) if own else "filtered" for own in outcomes.values())
        return {"read": len(outcomes), **{name: found[name] for name in ("filtered", *OUTCOMES)}}

    def item_sums(self, destination: str) -> dict[str, int]:
        found = Counter(outcome for key, outcome in self.items.items() if key[0] == destination)
        found["rejected"] += self.rejected_by_mapping[destination]
        return {"mapped": sum(found.values()), **{name: found[name] for name in OUTCOMES}}


def check(ledger: Any, expected: Expected) -> None:
    for destination in TARGETS:
        stands = standing(ledger, destination)
        totals, sums = stands.totals, expected.sums(destination)
        assert totals.tally.records == sums["read"]
        assert totals.balanced(sums["read"])
        found = totals.as_json()
        assert {name: found[name] for name in ("filtered", *OUTCOMES)} == {
            name: sums[name] for name in ("filtered", *OUTCOMES)
        }
        assert found["items"] == expected.item_sums(destination)
        waiting = [pair for segment in ledger.waiting(destination) for pair in left(segment)]
        assert stands.items == len(waiting)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_are_exact_whatever_happens(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(folder)
        ledger.begin(TARGETS)
        expected = Expected()
        try:
            for _ in range(data.draw(st.integers(1, 8))):
                what = data.draw(st.sampled_from(["map", "answer", "answer", "deliver", "deliver", "kill"]))
                destination = data.draw(st.sampled_from(sorted(TARGETS)))
                waiting = ledger.waiting(destination)
                if what == "map" or not waiting:
                    own = data.draw(records)
                    # All destinations read the same records, and make different things of them.
                    others = data.draw(
                        st.lists(records.map(lambda some: some[0]), min_size=len(own), max_size=len(own))
                    )
                    slices = dict(zip(sorted(TARGETS), (own, others), strict=True))
                    number = write_slice(ledger, slices, segments=3)
                    expected.mapped(number, slices)
                elif what == "kill":
                    if data.draw(st.booleans()):
                        with open(journal_of(waiting[0].path), "ab") as file:  # the kill came while it was written
                            file.write(b"d\x05\x00\x00\x00torn"[: data.draw(st.integers(0, 9))])
                    ledger.close()
                    ledger = Ledger(folder)
                    ledger.begin(TARGETS)
                else:
                    segments = waiting[: data.draw(st.integers(1, len(waiting)))]
                    for segment in segments:
                        pairs = left(segment)
                        count = len(pairs) if what == "deliver" else data.draw(st.integers(0, len(pairs)))
                        told = [(pair, data.draw(st.sampled_from(OUTCOMES))) for pair in pairs[:count]]
                        answer(segment, told)
                        for pair, outcome in told:
                            expected.answered(destination, segment.slice, pair, outcome)
                    if what == "deliver":
                        finish(ledger, destination, segments)
                check(ledger, expected)
                other = read_ledger(folder)
                check(other, expected)
                other.close()
        finally:
            ledger.close()
