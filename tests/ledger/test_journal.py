"""The journal: what was written down is there after a kill at any byte, and what comes later stands behind it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.dead_letter import REJECTED, UNDELIVERED
from transforms.deliver import journal
from transforms.deliver.journal import Done, Journal, journal_of
from transforms.elements import Item, Origin

SEGMENT = 7
SOURCES = ("events.jsonl", "/state/slices/000000000001.messages", "a\u202e\x00.csv")


def item(ref: int, model: int = 0) -> Item:
    return b'{"n":%d}' % ref, model, f"u{ref % 3}", 1000 + ref, ref


def written(path: Path, sources: Sequence[str] = SOURCES) -> tuple[list[int], set[tuple[str, int, int]]]:
    """Writes a journal of several answers. Returns its size after each, and the (source, model, ref) in it."""
    sizes, keys = [], set()
    one = Journal()
    one.open({SEGMENT: str(path)}, {})
    number = 0
    for source in sources:
        origin = Origin(source, SEGMENT)
        for count in (1, 3):
            own = [item(number + n, n % 2) for n in range(count)]
            one.delivered([(each, origin) for each in own])
            keys |= {(source, each[1], each[4]) for each in own}
            one.flush()
            sizes.append(os.path.getsize(journal_of(str(path))))
            number += count
        one.failed(REJECTED, f"bad \u202e {source}", 422, "answer\x00", [(item(number), origin)])
        keys.add((source, 0, number))
        one.flush()
        sizes.append(os.path.getsize(journal_of(str(path))))
        number += 1
    one.close()
    return sizes, keys


def keys_of(done: Done) -> set[journal.Key]:
    return done.delivered | set(done.failed)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.segment"
    _, keys = written(path)
    done = journal.read(str(path))
    expected = {Done.key(Origin(source, SEGMENT), item(ref, model)) for source, model, ref in keys}
    assert keys_of(done) == expected
    assert len(done.failed) == 3
    key = Done.key(Origin(SOURCES[0], SEGMENT), item(4))
    failed = done.failure(key, item(4), Origin(SOURCES[0], SEGMENT), ["event", "user"])
    assert (failed.outcome, failed.status, failed.answer) == (REJECTED, 422, "answer\x00")
    assert failed.reason.startswith("bad ")
    assert (failed.model, failed.user, failed.payload, failed.segment) == ("event", "u1", b'{"n":4}', SEGMENT)


def test_no_journal_says_nothing(tmp_path: Path) -> None:
    assert not journal.read(str(tmp_path / "none.segment"))


@pytest.mark.parametrize("then", [True, False])
def test_a_kill_at_every_byte(tmp_path: Path, then: bool) -> None:
    """Of an entry that is cut off nothing counts, what stands before it does, and what comes behind it is read."""
    whole = tmp_path / "whole.segment"
    sizes, _ = written(whole)
    data = Path(journal_of(str(whole))).read_bytes()
    path = tmp_path / "cut.segment"
    full = [keys_of_prefix(tmp_path, data[:size]) for size in [0, *sizes]]
    for cut in range(len(data) + 1):
        Path(journal_of(str(path))).write_bytes(data[:cut])
        before = full[sum(size <= cut for size in sizes)]
        assert keys_of(journal.read(str(path))) == before
        if then:
            origin = Origin("later", SEGMENT)
            one = Journal()
            one.open({SEGMENT: str(path)}, {})
            one.delivered([(item(99), origin)])
            one.flush()
            one.close()
            assert keys_of(journal.read(str(path))) == before | {Done.key(origin, item(99))}


def keys_of_prefix(folder: Path, data: bytes) -> set[journal.Key]:
    path = folder / "prefix.segment"
    Path(journal_of(str(path))).write_bytes(data)
    return keys_of(journal.read(str(path)))


def test_what_is_not_flushed_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "one.segment"
    one = Journal()
    one.open({SEGMENT: str(path)}, {})
    one.delivered([(item(1), Origin("a", SEGMENT))])
    assert not journal.read(str(path))
    one.flush()
    one.flush()
    one.close()
    assert len(journal.read(str(path)).delivered) == 1


def test_any_number_of_journals_takes_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "OPEN_FILES", 3)
    one = Journal()
    paths = {number: str(tmp_path / f"{number}.segment") for number in range(20)}
    one.open(paths, {})
    for ref in (1, 2):
        for number in paths:
            one.delivered([(item(ref), Origin("a", number))])
        one.flush()
        assert len(one._files) == 3
    one.close()
    for number, path in paths.items():
        assert keys_of(journal.read(path)) == {Done.key(Origin("a", number), item(ref)) for ref in (1, 2)}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    one = Journal()
    one.open({SEGMENT: str(tmp_path / "one.segment")}, {})
    os.dup2(os.open("/dev/full", os.O_WRONLY), one._files[SEGMENT])
    one.delivered([(item(1), Origin("a", SEGMENT))])
    with pytest.raises(OSError, match="No space left"):
        one.flush()
    one.close()


outcomes = st.lists(
    st.tuples(
        st.sampled_from(SOURCES),
        st.integers(0, 255),
        st.integers(0, 2**63 - 1),
        st.sampled_from(["delivered", REJECTED, UNDELIVERED]),
        st.text(max_size=20),
        st.booleans(),
    ),
    unique_by=lambda one: one[:3],
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(outcomes=outcomes, cut=st.floats(0, 1))
def test_any_outcomes_and_any_kill(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[tuple[str, int, int, str, str, bool]], cut: float
) -> None:
    path = str(tmp_path_factory.mktemp("journal") / "one.segment")
    one = Journal()
    one.open({SEGMENT: path}, {})
    expected: dict[journal.Key, str] = {}
    flushed: list[tuple[int, dict[journal.Key, str]]] = [(0, {})]
    for source, model, ref, outcome, text, flush in outcomes:
        pair = (item(ref, model), Origin(source, SEGMENT))
        if outcome == "delivered":
            one.delivered([pair])
        else:
            one.failed(outcome, text, 400, text[:5], [pair])
        expected[Done.key(pair[1], pair[0])] = outcome
        if flush:
            one.flush()
            flushed.append((os.path.getsize(journal_of(path)), dict(expected)))
    one.close()
    data = Path(journal_of(path)).read_bytes()
    size = round(cut * len(data))
    Path(journal_of(path)).write_bytes(data[:size])
    done = journal.read(path)
    found = dict.fromkeys(done.delivered, "delivered") | {key: one.outcome for key, one in done.failed.items()}
    least = max((held for at, held in flushed if at <= size), key=len)
    assert least.items() <= found.items() <= expected.items()


def test_models_of_another_relay_file_keep_their_own_numbers(tmp_path: Path) -> None:
    """A segment's journal speaks of the segment's models, whatever they are called now."""
    path = str(tmp_path / "one.segment")
    one = Journal()
    one.open({SEGMENT: path}, {SEGMENT: {0: 2}})
    origin = Origin("a", SEGMENT)
    one.delivered([(item(1, 0), origin)])
    one.failed(REJECTED, "bad", 400, "", [(item(2, 0), origin)])
    one.flush()
    one.close()
    assert keys_of(journal.read(path)) == {Done.key(origin, item(1, 2)), Done.key(origin, item(2, 2))}
