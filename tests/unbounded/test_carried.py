"""Items that travel with their records."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.make_events import events
from transforms.carried import pack_carried, size_of, unpack_carried
from transforms.dead_letter import REJECTED, Failed
from transforms.elements import Item, pack_items
from transforms.sources.messages import Message
from transforms.sources.records import RawRecord


def records(number: int, a_message: int) -> Mapping[int, RawRecord]:
    """Records of messages that hold so many of them each."""
    found = {}
    for at in range(0, number, a_message):
        message = Message(b"data", {"at": str(at)}, f"m{at}", "key", 1000 + at)
        for index in range(at, min(number, at + a_message)):
            found[7_000_000 + index] = RawRecord(0, 0, b"record %d" % index, message=message, number=index - at)
    return found


@given(
    items=st.lists(
        st.tuples(st.binary(max_size=40), st.integers(0, 3), st.text(max_size=9), st.integers(), st.integers(0, 19))
    ),
    a_message=st.integers(1, 20),
)
def test_items_come_back_with_the_records_they_are_of(items: list[Item], a_message: int) -> None:
    known = records(20, a_message)
    items = [(payload, model, user, time % 2**63, 7_000_000 + index) for payload, model, user, time, index in items]
    carried = unpack_carried(packed := pack_carried("s", items, known))
    assert size_of(packed) == (len(items), sum(len(item[0]) for item in items))
    assert carried.source == "s"
    assert [one[:4] for one in carried.items] == [one[:4] for one in items]
    half = carried.items[::2]
    rest = unpack_carried(carried.only(half))
    assert rest.items == half
    for some in (carried, rest):
        for payload, model, user, time, place in some.items:
            failed = some.complete(Failed(REJECTED, "why", "", 0, str(model), user, time, payload), place)
            number = failed.ref - 7_000_000
            first = number - number % a_message
            assert failed.source == "s"
            assert failed.original == b"record %d" % number
            assert failed.message == Message(b"", {"at": str(first)}, f"m{first}", "key", 1000 + first)
            assert failed.number == number - first
            assert some.name(place) == (f"m{first}", failed.number)


def test_with_their_records_they_are_smaller_than_they_were_without() -> None:
    """Which is why they may travel at all: docs/unbounded.md has the figures."""
    lines = [json.dumps(event).encode() for event in events(1000)]
    items = [
        (json.dumps({"player_id": e["user_id"], "action_name": e["event_type"], "data": e["event_data"]}).encode(), 0, e["user_id"], 0, n)
        for n, e in enumerate(events(1000))
    ]  # fmt: skip
    known = {n: RawRecord(0, 0, line, message=Message(line, {}, str(n))) for n, line in enumerate(lines)}
    assert len(pack_carried("s", items, known)) < len(pack_items("s", items))
