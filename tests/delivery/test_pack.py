"""pack: every item in exactly one batch, within every limit, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from transforms.elements import Item, Origin
from transforms.pack import Packing, SourcedItem, TooLarge, in_time_order, pack
from transforms.vendors.base import Batch, Limits, Route

USERS = ["a", "bb", "ccc", "ä"]


class Case(NamedTuple):
    items: list[SourcedItem]
    packing: Packing


def frame(route: Route, user: str) -> bytes:
    return b"{%s:%s[]}" % (route.name.encode(), user.encode())


def wrap(route: Route) -> Callable[[Item], bytes]:
    return lambda item: b"<%s:%s>%s" % (route.name.encode(), item[2].encode(), item[0])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    routes = [
        Route(
            f"r{n}",
            f"/{n}",
            Limits(draw(st.integers(1, 6)), draw(st.integers(12, 120)), "made up"),
            by_user=draw(st.booleans()),
            wrapped=draw(st.booleans()),
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    models = draw(st.lists(st.sampled_from(routes), min_size=1, max_size=4))
    sizes = draw(st.lists(st.integers(0, 40), max_size=60))
    items: list[SourcedItem] = []
    for number, size in enumerate(sizes):
        model = draw(st.integers(0, len(models) - 1))
        user = draw(st.sampled_from(USERS))
        items.append(((b"%d" % number + b"x" * size, model, user, number // 2, number), Origin("file")))
    packing = Packing(
        routes=models,
        items=draw(st.integers(1, 8)),
        bytes=draw(st.integers(12, 160)),
        by_user=draw(st.booleans()),
        in_order_across_routes=draw(st.booleans()),
        frame_size=lambda route, user: len(frame(route, user)),
        wrap=wrap if draw(st.booleans()) else None,
    )
    return Case(items, packing)


def body(batch: Batch) -> bytes:
    whole = frame(batch.route, batch.user)
    return whole[:-2] + b",".join(batch.parts) + whole[-2:]


def part(packing: Packing, item: Item) -> bytes:
    route = packing.routes[item[1]]
    return wrap(route)(item) if packing.wrap and route.wrapped else item[0]


def limit(packing: Packing, route: Route) -> int:
    return min(packing.bytes, route.limits.bytes)


def own_user(packing: Packing, item: Item) -> str:
    """The user whose batch this item must be in; empty when users share batches."""
    return item[2] if packing.by_user or packing.routes[item[1]].by_user else ""


@given(cases())
def test_every_item_is_in_exactly_one_batch_or_too_large(case: Case) -> None:
    found: list[SourcedItem] = []
    for batch in pack(*case):
        if isinstance(batch, Batch):
            assert batch.items, "an empty batch"
            found += batch.items
        else:
            found.append((batch.item, batch.origin))
    assert sorted(found, key=lambda pair: pair[0][4]) == case.items


@given(cases())
def test_no_batch_is_above_a_limit(case: Case) -> None:
    packing = case.packing
    for batch in pack(*case):
        if isinstance(batch, Batch):
            assert len(batch.items) <= min(packing.items, batch.route.limits.items)
            assert len(body(batch)) <= limit(packing, batch.route)
            assert list(batch.parts) == [part(packing, item) for item, _ in batch.items]
            assert {packing.routes[item[1]] for item, _ in batch.items} == {batch.route}


@given(cases())
def test_only_what_no_request_can_hold_is_too_large(case: Case) -> None:
    packing = case.packing
    for batch in pack(*case):
        if isinstance(batch, TooLarge):
            route = packing.routes[batch.item[1]]
            alone = Batch(route, own_user(packing, batch.item), [], [part(packing, batch.item)])
            assert batch.size == len(body(alone)) > batch.limit == limit(packing, route)


@given(cases())
def test_a_batch_by_user_is_of_one_user(case: Case) -> None:
    for batch in pack(*case):
        if isinstance(batch, Batch):
            assert {own_user(case.packing, item) for item, _ in batch.items} == {batch.user}


@given(cases())
def test_each_users_order_is_kept_on_each_route(case: Case) -> None:
    newest: dict[tuple[str, Route], int] = {}
    for batch in pack(*case):
        if isinstance(batch, Batch):
            for item, _ in batch.items:
                key = (item[2], batch.route)
                assert item[4] > newest.get(key, -1)
                newest[key] = item[4]


@given(cases())
def test_each_users_order_is_kept_across_routes_when_asked(case: Case) -> None:
    newest: dict[str, int] = {}
    for batch in pack(case.items, case.packing._replace(in_order_across_routes=True)):
        if isinstance(batch, Batch):
            for item, _ in batch.items:
                assert item[4] > newest.get(item[2], -1)
                newest[item[2]] = item[4]


def full(packing: Packing, batch: Batch, after: Item) -> bool:
    """Whether a batch could not have taken one more item."""
    more = batch._replace(parts=[*batch.parts, part(packing, after)])
    return len(batch.items) == min(packing.items, batch.route.limits.items) or len(body(more)) > limit(
        packing, batch.route
    )


@given(cases())
def test_a_batch_ends_only_when_it_could_not_take_the_next_item(case: Case) -> None:
    packing = case.packing._replace(in_order_across_routes=False)
    open_: dict[tuple[Route, str], Batch | None] = {}
    for batch in pack(case.items, packing):
        if isinstance(batch, TooLarge):
            # It stood next in line, so the batch before it ends there.
            open_[packing.routes[batch.item[1]], own_user(packing, batch.item)] = None
            continue
        before = open_.get((batch.route, batch.user))
        if before is not None:
            assert full(packing, before, batch.items[0][0])
        open_[batch.route, batch.user] = batch


def plain(count: int, limit_bytes: int, limit_items: int = 10_000) -> Packing:
    route = Route("r", "/r", Limits(limit_items, limit_bytes, "made up"))
    return Packing([route], limit_items, limit_bytes, False, False, lambda route, user: 2)


def seconds(items: Sequence[SourcedItem], packing: Packing) -> tuple[float, int]:
    started = time.perf_counter()
    number = sum(1 for _ in pack(items, packing))
    return time.perf_counter() - started, number


def test_time_does_not_grow_faster_than_the_items_when_bytes_end_batches() -> None:
    for size, end in ((100, 1_000), (1_000, 1_000), (2_000, 1_000)):
        # Ten, one and no items a batch, where a batch could hold 10,000 by count.
        items: list[SourcedItem] = [((b"x" * size, 0, "u", n, n), Origin("f")) for n in range(20_000)]
        took, number = seconds(items, plain(20_000, end + 3))
        assert number == (20_000 if size >= 1_000 else -(-20_000 // 9))
        assert took < 1.0, f"{took:.2f} s for 20,000 items of {size} bytes"


def test_a_batch_grows_again_after_large_items() -> None:
    items: list[SourcedItem] = [((b"x" * 900, 0, "u", n, n), Origin("f")) for n in range(10)]
    items += [((b"x", 0, "u", n, n), Origin("f")) for n in range(10, 5_000)]
    sizes = [len(batch.items) for batch in pack(items, plain(0, 1_000)) if isinstance(batch, Batch)]
    assert sizes[:9] == [1] * 9
    assert set(sizes[10:-1]) == {499}


@given(
    st.lists(st.tuples(st.sampled_from(["f1", "f2"]), st.lists(st.integers(0, 5), max_size=5)), max_size=6),
    st.randoms(),
)
def test_chunks_in_any_order_give_one_time_order(chunks: list[tuple[str, list[int]]], random: object) -> None:
    made: list[tuple[str, list[Item]]] = []
    ref = 0
    for source, times in chunks:
        own: list[Item] = []
        for time_ms in times:
            own.append((b"", 0, "u", time_ms, ref))
            ref += 1
        made.append((source, own))
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordered = in_time_order(shuffled)
    assert ordered == sorted(
        ((item, source) for source, own in made for item in own), key=lambda pair: (pair[0][3], pair[1], pair[0][4])
    )
