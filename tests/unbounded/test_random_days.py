"""The unbounded batcher through days in which anything happens: nothing is lost, and nothing is sent twice without need."""

from __future__ import annotations

import logging

import pytest
from deliveries import some_items
from random_days import Cell, RandomDay
from unbounded_streams import SUBSCRIPTION, record

from transforms.carried import pack_carried
from transforms.deliver.waiting import EARLY_MS, Entry, Held, names_of


@pytest.mark.parametrize("moves", [False, True], ids=["one process", "processes come and go"])
@pytest.mark.parametrize("start", range(0, 100, 50))
def test_whatever_happens_to_a_shard_each_item_has_one_outcome(
    monkeypatch: pytest.MonkeyPatch, start: int, moves: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("transforms"), "disabled", True)
    for seed in range(start, start + 50):
        with monkeypatch.context() as altered:
            try:
                RandomDay(seed, altered, moves).play()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error


def test_what_has_its_outcome_before_it_comes_in_is_remembered_for_an_hour() -> None:
    items = some_items("teak", 5)
    cells = {"note": None, "waiting": [], "going": []}
    held = Held(*(Cell(cells, name) for name in cells))
    entry = Entry(0, 0, EARLY_MS, pack_carried(SUBSCRIPTION, items, {one[4]: record(one) for one in items}))
    known = (("m1", 0), 0), (("m3", 0), 0)
    held.note.early, held.note.early_since = {*known, (("never comes", 0), 0)}, 1
    held.save()
    held = Held(*(Cell(cells, name) for name in cells))
    assert names_of(held.unsettled(entry)) == {(("m0", 0), 0), (("m2", 0), 0), (("m4", 0), 0)}
    assert names_of(held.unsettled(entry)) == names_of([entry]), "it is left out once"
    assert held.note.early == {(("never comes", 0), 0)}
    assert held.unsettled(entry._replace(arrived=EARLY_MS + 2)) != []
    assert held.note.early == set()
