"""`playrelay preview`: what each vendor would get for single records. Sends nothing."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence

from pipelines.plan import Plan
from transforms.credentials import MASK, CredentialError, resolve
from transforms.decode import Decoder
from transforms.deliver.sink import packing_of
from transforms.destination import Destination
from transforms.elements import Item, Origin, record_ref
from transforms.map_records import compile_for, first
from transforms.mapping import MapTally
from transforms.pack import TooLarge, in_time_order, pack
from transforms.read import Part, chunks
from transforms.sources.files import match
from transforms.vendors import get
from transforms.vendors.base import Batch, Settings


def preview(plan: Plan, inputs: Sequence[str], number: int) -> Iterator[str]:
    """Lines that show, for the first `number` records, each request, what was filtered or rejected, and why."""
    decoder = Decoder(plan.source.schema)
    mappers = [(to, compile_for(plan.source, to, plan.selection), _settings(to)) for to in plan.destinations]
    left = number
    for chunk in itertools.chain.from_iterable(chunks(Part(file.name, 0, None), plan.layout) for file in match(inputs)):
        decoded = first(decoder.decode(chunk), left)
        left -= len(decoded.records) + len(decoded.undecodable)
        bad = {one.ref: one for one in decoded.undecodable}
        raws, attributes = decoder.raws(chunk, decoded), decoder.attributes(chunk, decoded)
        good = iter(zip(decoded.records, raws, attributes or itertools.repeat(None), strict=False))
        for index in range(len(decoded.records) + len(bad)):
            ref = record_ref(chunk.position, index)
            if ref in bad:
                line = f" line {bad[ref].line}" if bad[ref].line else ""
                yield f"record {chunk.source}{line}: undecodable: {bad[ref].reason}"
                yield ""
                continue
            record, raw, own = next(good)
            yield f"record {chunk.source}, {index + 1} of the chunk at byte {chunk.position}:"
            yield "  " + raw.decode("utf-8", "replace")
            for to, mapper, settings in mappers:
                shards: list[list[Item]] = [[] for _ in range(to.shards)]
                counts = MapTally()
                mapper.map_chunk([record], [raw], [ref], shards, counts, [own])
                yield from _one(to, mapper.models, settings, chunk.source, shards, counts)
            yield ""
        if left <= 0:
            return


def _one(
    to: Destination,
    models: Sequence[str],
    settings: Settings,
    source: str,
    shards: Sequence[list[Item]],
    counts: MapTally,
) -> Iterator[str]:
    for reason in counts.filtered:
        yield f"  {to.name}: filtered: {reason}"
    for rejected in counts.rejected:
        where = f"{rejected.model}.{rejected.field}" if rejected.field else rejected.model
        yield f"  {to.name}: rejected: {where}: {rejected.reason}"
    vendor = get(to.vendor)
    for items in shards:
        for batch in pack(in_time_order([(Origin(source), items)]), packing_of(to, settings, models)):
            if isinstance(batch, TooLarge):
                yield f"  {to.name}: rejected: {batch.size} bytes, {batch.limit} are allowed in a request"
                continue
            query = vendor.query(settings, batch.route) if vendor.query else ""
            yield f"  {to.name}: POST {settings.url}{batch.route.path}{query}"
            for header in (f"Content-Type: {batch.route.content_type}", *vendor.headers(settings, batch.route)):
                yield f"    {header}"
            yield "    " + _body(to, settings, batch)


def _body(to: Destination, settings: Settings, batch: Batch) -> str:
    prefix, suffix = get(to.vendor).frame(settings, batch.route, batch.user, time.time())
    body = prefix + b",".join(batch.parts) + suffix
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2).replace("\n", "\n    ")
    except ValueError:
        return body.decode("utf-8", "replace")


def _settings(to: Destination) -> Settings:
    """The destination's settings with `***` for each secret: what is shown needs none, so none is resolved."""
    vendor = get(to.vendor)
    secret = {one.name for one in vendor.credentials if one.secret}
    credentials = {key: MASK if key in secret else _open_value(to, key) for key in to.credentials}
    return Settings(to.name, to.url or vendor.base_url(credentials, to.options), credentials, to.options)


def _open_value(to: Destination, key: str) -> str:
    """A credential that is no secret, such as an app's id; its reference when that leads nowhere here."""
    reference = to.credentials[key]
    try:
        return resolve(reference, folder=to.base_dir, destination=to.name, key=key)
    except CredentialError:
        return reference
