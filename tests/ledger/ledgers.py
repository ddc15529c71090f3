"""What the ledger's tests share: slices of records with known items, put into a ledger as a run would put them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from transforms.dead_letter import REJECTED, UNDELIVERED, Failed
from transforms.deliver import journal
from transforms.elements import Item, Origin, pack_items, record_ref, unpack_items
from transforms.ledger import Ledger, Mapped
from transforms.ledger_reader import Place, Segment
from transforms.outcomes import RecordOutcomes
from transforms.segments import NO_WINDOW, Element, Head, read_segment, write_element, write_head
from transforms.tally import Tally

MODELS = ("event", "user")
SHARDS = 4
HEAD = Head(list(MODELS), [f"teak/{model}" for model in MODELS], SHARDS)
TARGETS = {"teak": ("teak", "https://teak"), "swrve": ("swrve", "https://swrve, app_id 7")}


def item(ref: int, model: int = 0) -> Item:
    """One item of a record."""
    return b'{"ref":%d}' % ref, model, f"u{ref % 5}", 1000 + ref, ref


class Record(NamedTuple):
    """A record as the mapping of one destination left it."""

    models: tuple[int, ...] = (0,)
    """Of its items."""
    rejected: bool = False
    """An item of it the mapping itself rejected."""
    segment: int = 0
    """Which of the slice's segments holds its items: they have one user and time, so they are never apart."""


FILTERED = Record(())


def write_slice(
    ledger: Ledger,
    records: Mapping[str, Sequence[Record]],
    *,
    source: str = "events.jsonl",
    position: int = 0,
    segments: int = 1,
    places: Mapping[tuple[str, str], Place] | None = None,
    messages: Sequence[int] = (),
) -> int:
    """Maps a slice: records by destination. Returns its number."""
    number = ledger.new_slice()
    parts = {}
    for destination, own in records.items():
        held: list[list[Item]] = [[] for _ in range(segments)]
        tally, failed = Tally(records=len(own)), []
        for index, record in enumerate(own):
            ref = record_ref(position, index)
            if record.rejected:
                failed.append(Failed(REJECTED, "name: missing", source, ref))
                tally.reasons["name: missing"] = tally.reasons.get("name: missing", 0) + 1
                tally.rejected += 1
                tally.mapped += 1
            for model in record.models:
                held[record.segment % segments].append(item(ref, model))
                tally.mapped += 1
            if record.models or record.rejected:
                tally.touched += 1
            else:
                tally.filtered["no model"] = tally.filtered.get("no model", 0) + 1
        outcomes = RecordOutcomes()
        outcomes.add(failed)
        made = [_segment(ledger, number, source, items) for items in held if items]
        parts[destination] = Mapped(tally, outcomes, made)
    ledger.mapped(number, max(map(len, records.values())), parts, places=places, messages=messages)
    return number


def _segment(ledger: Ledger, slice_: int, source: str, items: Sequence[Item]) -> Segment:
    number, path = ledger.new_segment()
    packed = pack_items(source, items, len({one[4] for one in items}))
    with open(path, "wb") as file:
        write_head(file, HEAD)
        for shard in range(SHARDS):
            own = [one for one in items if int(one[2][1:]) % SHARDS == shard]
            if own:
                write_element(file, Element(NO_WINDOW, shard, pack_items(source, own, len({one[4] for one in own}))))
    return Segment(number, slice_, path, len(packed), len(items), len({one[4] for one in items}))


def left(segment: Segment) -> list[tuple[Item, Origin]]:
    """The items of a segment that have no outcome yet."""
    done = journal.read(segment.path)
    found = []
    for element in read_segment(segment.path)[1]:
        source, items = unpack_items(element.packed)
        origin = Origin(source, segment.number)
        for one in items:
            key = done.key(origin, one)
            if key not in done.delivered and key not in done.failed:
                found.append((one, origin))
    return found


def answer(segment: Segment, outcomes: Iterable[tuple[tuple[Item, Origin], str]]) -> None:
    """Journals outcomes of a segment's items."""
    one = journal.Journal()
    one.open({segment.number: segment.path}, {})
    for pair, outcome in outcomes:
        if outcome == "delivered":
            one.delivered([pair])
        else:
            one.failed(outcome, f"because {outcome}", 400, "no", [pair])
    one.flush()
    one.close()


def finish(ledger: Ledger, destination: str, segments: Sequence[Segment]) -> None:
    """Says that segments are delivered, by what their journals hold, as the sink does."""
    tally = Tally()
    failed: dict[int, list[Failed]] = {}
    for segment in segments:
        assert not left(segment), "an item has no outcome"
        done = journal.read(segment.path)
        tally.delivered += len(done.delivered)
        for element in read_segment(segment.path)[1]:
            source, items = unpack_items(element.packed)
            origin = Origin(source, segment.number)
            for one in items:
                key = done.key(origin, one)
                if key in done.failed:
                    failure = done.failure(key, one, origin, MODELS)
                    failed.setdefault(segment.slice, []).append(failure)
                    tally.rejected += failure.outcome == REJECTED
                    tally.undelivered += failure.outcome == UNDELIVERED
                    tally.reasons[failure.reason] = tally.reasons.get(failure.reason, 0) + 1
    ledger.delivered(destination, segments, tally, failed)


def deliver_all(ledger: Ledger, destination: str) -> None:
    """Every item that waits is taken."""
    for segment in ledger.waiting(destination):
        answer(segment, [(pair, "delivered") for pair in left(segment)])
        finish(ledger, destination, [segment])
