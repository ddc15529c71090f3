"""What the delivery tests share: numbered items of each vendor, destinations on a sandbox, and the sums afterwards."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sandbox import credentials
from sandbox.server import Running
from transforms.dead_letter import REJECTED, Failed
from transforms.deliver.gate import Gate
from transforms.deliver.policy import Policy
from transforms.deliver.sender import Sender
from transforms.deliver.sink import packing_of, settings_of
from transforms.destination import BatchRule, Destination
from transforms.elements import Item, Origin
from transforms.pack import SourcedItem, pack
from transforms.tally import Tally
from transforms.vendors import get, slugs

VENDORS = slugs()
SOURCE = Origin("events.jsonl")
START_MS = 1_700_000_000_000


class Kind(NamedTuple):
    """The model that a vendor's tests send, and how an item carries its number there and back."""

    model: str
    payload: Callable[[str, int], dict[str, Any]]
    number: Callable[[dict[str, Any]], Any]


KINDS = {
    "12traits": Kind(
        "action",
        lambda user, n: {"player_id": user, "action_id": str(n), "action_name": "spin"},
        lambda body: body["action_id"],
    ),
    "traitly": Kind(
        "event",
        lambda user, n: {"customer_id": user, "name": f"spin {n}", "created_at": START_MS // 1000 + n},
        lambda body: body["name"][5:],
    ),
    "parcelvoy": Kind(
        "event",
        lambda user, n: {"external_id": user, "name": "spin", "data": {"n": n}},
        lambda body: body["data"]["n"],
    ),
    "swrve": Kind(
        "event",
        lambda user, n: {"type": "event", "time": START_MS + n, "name": "spin", "payload": {"n": n}},
        lambda body: body["payload"]["n"],
    ),
    "teak": Kind(
        "event",
        lambda user, n: {"user_id": user, "action_type": "spin", "object_instance_id": str(n)},
        lambda body: body["object_instance_id"],
    ),
}

BAD: dict[str, dict[str, Any]] = {
    "12traits": {"action_id": ""},
    "parcelvoy": {"name": None},
    "swrve": {"name": ""},
}
"""What makes these vendors refuse a request without a word on which of its items it is."""


def item(slug: str, number: int, user: str, **more: Any) -> Item:
    """Item `number`: its time is that many ms after START_MS, and its record's reference is the number."""
    payload = json.dumps({**KINDS[slug].payload(user, number), **more}, separators=(",", ":")).encode()
    return payload, 0, user, START_MS + number, number


def some_items(slug: str, count: int, users: int = 7) -> list[Item]:
    """Items 0 to count - 1 of users u0, u1, … in turn."""
    return [item(slug, number, f"u{number % users}") for number in range(count)]


def destination(slug: str, url: str, **more: Any) -> Destination:
    """A destination at a sandbox, or anywhere else. `batch` gives fields of the batch rule."""
    vendor = get(slug)
    rule = {"by": vendor.by, "items": 1_000_000, "bytes": 100_000_000, **more.pop("batch", {})}
    defaults: dict[str, Any] = {
        "name": slug,
        "vendor": slug,
        "credentials": credentials.RELAY_FILE[slug],
        "url": url,
        "batch": BatchRule(**rule),
        "shards": 4,
        "rate": None,
        "retry_s": 5.0,
        "connect_timeout_s": 2.0,
        "timeout_s": 5.0,
        "gzip": vendor.gzip,
    }
    options = {option.name: option.default for option in vendor.options} | more.pop("options", {})
    return Destination(**{**defaults, **more}, options=options)


def at(sandbox: Running, slug: str, **more: Any) -> Destination:
    """A destination at a sandbox."""
    return destination(slug, f"{sandbox.url}/{slug}", **more)


class Sent(NamedTuple):
    """What became of items that were sent."""

    to: Destination
    items: Sequence[Item]
    tally: Tally
    failed: list[Failed]
    gate: Gate
    seconds: float

    def numbers(self, outcome: str) -> list[int]:
        """Numbers of the items with this outcome other than delivered."""
        return sorted(failed.ref for failed in self.failed if failed.outcome == outcome)

    @property
    def delivered(self) -> set[int]:
        """Numbers of the items that are said to be delivered."""
        return {one[4] for one in self.items} - {failed.ref for failed in self.failed}


def shard_of(user: str, shards: int) -> int:
    """Any function of the user will do."""
    return zlib.crc32(user.encode()) % shards


def send(to: Destination, items: Sequence[Item], *, models: tuple[str, ...] = (), first_pause: float = 0.02) -> Sent:
    """Sends items with one sender, and checks that each has exactly one outcome."""
    settings = settings_of(to)
    models = models or (KINDS[to.vendor].model,)
    packing = packing_of(to, settings, models)
    gate = Gate(to.rate, to.shards)
    gate.enter(to.shards)  # as a process that sends alone does
    policy = Policy(to.retry_s, to.connect_timeout_s, to.timeout_s, to.gzip, min(to.shards, 64), first_pause)
    sender = Sender(get(to.vendor), settings, models, policy, gate)
    shards: dict[int, list[SourcedItem]] = {}
    for one in items:
        shards.setdefault(shard_of(one[2], to.shards), []).append((one, SOURCE))
    for shard, own in shards.items():
        sender.put(shard, pack(own, packing))
    started = time.monotonic()
    sender.drain()
    sender.close()
    sent = Sent(to, items, sender.tally, sender.failed, gate, time.monotonic() - started)
    _check_sums(sent)
    return sent


def _check_sums(sent: Sent) -> None:
    tally = sent.tally
    assert len({(failed.source, failed.ref) for failed in sent.failed}) == len(sent.failed), "an item failed twice"
    rejected = sum(failed.outcome == REJECTED for failed in sent.failed)
    assert (tally.rejected, tally.undelivered) == (rejected, len(sent.failed) - rejected)
    assert tally.delivered + tally.rejected + tally.undelivered == len(sent.items)
    assert sum(tally.reasons.values()) == len(sent.failed)
    assert (sent.gate.delivered, sent.gate.failed) == (tally.delivered, len(sent.failed))


def arrived(sandbox: Running, slug: str) -> list[tuple[str, int]]:
    """(user, number) of what the vendor took, in order of arrival."""
    number = KINDS[slug].number
    return [(one["user"], int(number(one["item"]))) for one in sandbox.items(slug)]


def check_arrived(
    sandbox: Running,
    sent: Sent,
    *,
    duplicates: int = 0,
    undelivered_may_arrive: bool = False,
    violations: bool = False,
) -> None:
    """What the vendor took is what is said to be delivered, each user's in order and one request at a time.

    duplicates: items that may have come twice, as an answer was lost.
    """
    slug = sent.to.vendor
    found = arrived(sandbox, slug)
    counts = Counter(number for _, number in found)
    if undelivered_may_arrive:
        assert sent.delivered <= set(counts)
    else:
        assert set(counts) == sent.delivered
    assert len(found) - len(counts) <= duplicates
    check_order(found)
    view = sandbox.received(vendor=slug)
    assert view["vendors"][slug]["requests"] <= sent.tally.requests, "something was sent that nobody counted"
    assert view["vendors"][slug]["overlaps"] == 0
    assert view["vendors"][slug]["max_in_flight"] <= sent.to.shards
    if not violations:
        assert view["violations"] == []


def check_order(found: Iterable[tuple[str, int]]) -> None:
    """A user's items first came in the order of their numbers."""
    newest: dict[str, int] = {}
    seen: set[int] = set()
    for user, number in found:
        if number not in seen:
            assert number > newest.get(user, -1), f"{user}: {number} came after {newest[user]}"
            newest[user] = number
            seen.add(number)


def traffic(sandbox: Running, slug: str) -> dict[str, Any]:
    """The sandbox's counts of a vendor."""
    view: dict[str, Any] = sandbox.received(vendor=slug)["vendors"][slug]
    return view
