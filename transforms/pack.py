"""Batches: which items travel in one request. Pure functions over items; they need no pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import NamedTuple

from transforms.elements import Item, Origin
from transforms.vendors.base import Batch, Route

SourcedItem = tuple[Item, Origin]
"""An item and where it comes from."""

Part = bytes
"""An item as it stands in a request's body."""


class TooLarge(NamedTuple):
    """An item that no request can hold, alone or not."""

    item: Item
    origin: Origin
    size: int
    """Bytes of the body with this item alone."""
    limit: int


class Packing(NamedTuple):
    """How a destination's items become batches."""

    routes: Sequence[Route]
    """Route of each model, in the order of the items' model index."""
    items: int
    """Items a batch at the most; a route's own limit holds anyway."""
    bytes: int
    """Bytes of a request body at the most; a route's own limit holds anyway."""
    by_user: bool
    """One user a batch on every route; a route's own `by_user` holds anyway."""
    in_order_across_routes: bool
    """No batch holds an item of a user whose earlier item is in a later batch, whatever their routes."""
    frame_size: Callable[[Route, str], int]
    """(route, user) -> bytes of a body besides its items and their commas."""
    wrap: Callable[[Route], Callable[[Item], Part]] | None = None
    """Of a wrapped route: what makes an item as it stands in the body."""


def in_time_order(chunks: Iterable[tuple[Origin, Sequence[Item]]]) -> list[SourcedItem]:
    """All items of (origin, items) chunks by time; items of the same time stay as their sources had them.

    Chunks come out of a shuffle in any order, so ties are settled by source and position.
    """
    ordered = sorted(chunks, key=_place)
    if len({origin for origin, _ in ordered}) == 1:
        # Mostly a segment is of one file: all in C, at a third of the time.
        items = list(chain.from_iterable(items for _, items in ordered))
        items.sort(key=_TIME)
        return list(zip(items, repeat(ordered[0][0])))
    merged = [(item, origin) for origin, items in ordered for item in items]
    merged.sort(key=lambda pair: pair[0][3])
    return merged


_TIME = itemgetter(3)


def _place(chunk: tuple[Origin, Sequence[Item]]) -> tuple[Origin, int]:
    origin, items = chunk
    return origin, items[0][4] if items else 0


def pack(items: Sequence[SourcedItem], packing: Packing) -> Iterator[Batch | TooLarge]:
    """Cuts items, which come in time order, into batches; each user's order is kept.

    A batch is as large as `packing` and its route allow, by count and by the exact size of its
    body. Batches come in the order in which they are to be sent.
    """
    routes = list(dict.fromkeys(packing.routes))
    # A model's group is a small number: comparing and hashing routes for each item would cost more than the rest.
    group_of = [routes.index(route) for route in packing.routes]
    single = [packing.by_user or route.by_user for route in routes]
    there = {group_of[item[1]] for item, _ in items}
    if len(there) == 1 and not single[min(there)]:
        yield from _cut(items, routes[min(there)], "", packing)
        return
    held: dict[tuple[int, str], list[SourcedItem]] = {}
    newest: dict[str, tuple[int, str]] | None = {} if packing.in_order_across_routes and len(there) > 1 else None
    for pair in items:
        item = pair[0]
        number = group_of[item[1]]
        group = (number, item[2] if single[number] else "")
        if newest is not None:
            # An item closes the open group that holds an earlier item of its user, so that it cannot overtake.
            before = newest.get(item[2], group)
            if before != group and before in held:
                yield from _cut(held.pop(before), routes[before[0]], before[1], packing)
            newest[item[2]] = group
        own = held.get(group)
        if own is None:
            held[group] = [pair]
        else:
            own.append(pair)
    for (number, user), own in held.items():
        yield from _cut(own, routes[number], user, packing)


def _cut(items: Sequence[SourcedItem], route: Route, user: str, packing: Packing) -> Iterator[Batch | TooLarge]:
    """Batches of one route, and of one user when `user` is set."""
    most = guess = max(1, min(packing.items, route.limits.items))
    limit = min(packing.bytes, route.limits.bytes)
    frame = packing.frame_size(route, user)
    wrap = packing.wrap(route) if packing.wrap and route.wrapped else None
    at = 0
    while at < len(items):
        held = items[at : at + guess]
        parts = [wrap(item) for item, _ in held] if wrap else [item[0] for item, _ in held]
        fits = len(parts)
        if frame + sum(map(len, parts)) + fits - 1 > limit:
            fits, size = 0, frame - 1
            for part in parts:
                size += len(part) + 1
                if size > limit:
                    break
                fits += 1
            if not fits:
                yield TooLarge(held[0][0], held[0][1], frame + len(parts[0]), limit)
                at, guess = at + 1, 1
                continue
            # Where bytes are what ends batches, the next one will hold about as many: taking `most` again and
            # again would measure the same items over and over.
            guess = min(most, 2 * fits)
        elif fits == guess < most:
            guess = min(most, 2 * guess)
            if at + fits < len(items):
                continue
        yield Batch(route, user, held[:fits], parts[:fits])
        at += fits
