"""What the vendors' tests share: credentials, option combinations, and requests as the pipeline packs them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transforms.elements import Item
from transforms.pack import Packing, TooLarge, pack
from transforms.vendors import get, slugs
from transforms.vendors.base import Answer, Batch, Option, Settings, Vendor, Verdict

NOW = 1_700_000_000.5
SECRETS = {"api_key": "pk_s3cret", "token": "t0ken", "secret_key": "s3cret", "identity_secret_key": "id3ntity"}
PLAIN = {"game_id": "my-app", "app_id": "123"}


def settings(slug: str, credentials: Sequence[str] = (), **options: Any) -> Settings:
    """A destination's settings with the vendor's defaults; without `credentials`, its first sufficient set."""
    vendor = get(slug)
    names = credentials or sorted(vendor.credential_sets[0])
    values = {**SECRETS, **PLAIN}
    defaults = {option.name: option.default for option in vendor.options}
    return Settings(slug, "http://127.0.0.1:9/x", {name: values[name] for name in names}, {**defaults, **options})


def combinations() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """(slug, options, credentials) that go together: every way to send (a vendor's first option), and under each
    of them every value of every other option, one at a time, with every sufficient set of credentials."""
    for slug in slugs():
        vendor = get(slug)
        defaults = {option.name: option.default for option in vendor.options}
        others = vendor.options[1:]
        ways = [{**defaults, one.name: value} for one in vendor.options[:1] for value in _values(one)] or [defaults]
        chosen = ways + [
            {**way, option.name: value} for way in ways for option in others for value in _values(option)[1:]
        ]
        for options, credentials in itertools.product(chosen, vendor.credential_sets):
            if not (vendor.check and vendor.check(credentials, options)):
                yield slug, options, tuple(sorted(credentials))


def _values(option: Option) -> list[Any]:
    """The option's values, its default first."""
    every = option.choices or ((True, False) if isinstance(option.default, bool) else ("1.00",))
    return [option.default, *(value for value in every if value != option.default)]


def batches(at: Settings, model: str, payloads: Sequence[bytes], users: Sequence[str] = ()) -> list[Batch]:
    """Payloads of one model as batches; each item is of user u1 unless said."""
    vendor = get(at.name)
    models = vendor.models_under(at.options)
    number = list(models).index(model)
    items: list[tuple[Item, str]] = [
        ((payload, number, users[index] if users else "u1", index, index), "file")
        for index, payload in enumerate(payloads)
    ]
    wrap = vendor.wrap
    packed = pack(
        items,
        Packing(
            routes=[one.route for one in models.values()],
            items=1_000_000,
            bytes=100_000_000,
            by_user=False,
            in_order_across_routes=vendor.in_order_across_routes,
            frame_size=lambda route, user: sum(map(len, vendor.frame(at, route, user, NOW))),
            wrap=None if wrap is None else lambda route: wrap(at, route),
        ),
    )
    result = []
    for batch in packed:
        assert not isinstance(batch, TooLarge)
        result.append(batch)
    return result


def body(at: Settings, batch: Batch, now: float = NOW) -> bytes:
    """The request's body."""
    frame = get(at.name).frame(at, batch.route, batch.user, now)
    return frame.prefix + b",".join(batch.parts) + frame.suffix


def request(at: Settings, model: str, *payloads: bytes, users: Sequence[str] = ()) -> tuple[str, list[str], bytes]:
    """(path with query, headers, body) of the one request that these payloads make."""
    vendor: Vendor = get(at.name)
    (batch,) = batches(at, model, payloads, users)
    query = vendor.query(at, batch.route) if vendor.query else ""
    headers = [f"Content-Type: {batch.route.content_type}", *vendor.headers(at, batch.route)]
    return batch.route.path + query, headers, body(at, batch)


def answered(
    at: Settings, model: str, payloads: Sequence[bytes], status: int, answer: bytes, users: Sequence[str] = ()
) -> Verdict:
    """What an answer to these payloads' one request means."""
    (batch,) = batches(at, model, payloads, users)
    return get(at.name).read(Answer(status, answer), batch)


def path(base: Mapping[str, str], slug: str) -> str:
    """The vendor's own base URL under its default options."""
    vendor = get(slug)
    return vendor.base_url(base, {option.name: option.default for option in vendor.options})
