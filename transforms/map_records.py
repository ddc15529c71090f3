"""Decode, map and shard: one step, because a chunk's records are gone through once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import schemas
from transforms import dedupe, located
from transforms.carried import CarryingPacker, kinds_of, with_record
from transforms.dead_letter import REJECTED, Failed
from transforms.decode import Decoded, Decoder, Undecodable
from transforms.dedupe import DUPLICATE, Dedupe, Duplicates, compile_ids
from transforms.destination import Destination
from transforms.elements import Chunk, Item, Packer, record_ref, split_ref
from transforms.located import Node
from transforms.mapping import Mapper, MapTally, ModelSpec, Rejected, compile_mapping
from transforms.progress import GivenUp, Progress, progress
from transforms.sources.records import RawRecord, raw_records
from transforms.tally import Tally
from transforms.vendors import get, mapping_file

EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999
"""The years 1 to 9999: what a broken clock put outside lies in the first or last window, as Beam's time is bounded."""

TALLY = "tally"
FAILED = "failed"
"""Tags of the outputs beside those of the destinations, which are tagged `to-NAME`."""

HELD_RECORDS = 4_000
"""Records after which a destination's items are passed on."""

CARRIED_BYTES = 8 << 20
"""Bytes of records that travel with their items after which these are passed on: runners take no large elements."""


MAX_MAPPERS = 200
"""Compiled mappings that a process keeps at the most."""

_mappers: dict[str, Mapper] = {}
"""By all that went in."""


def tag(destination: str) -> str:
    """Tag of the output with a destination's items."""
    return f"to-{destination}"


@dataclass(frozen=True)
class SourceMapping:
    """How records are decoded and become canonical events (hop one). Travels in the job graph."""

    schema: schemas.Schema
    """Of one record."""
    hop_one: Node | None
    """The preset's mapping; None: records are canonical events, or `override` says everything."""
    override: Node | None
    """The relay file's `source.event`."""
    dedupe: Dedupe | None = None
    """Which events count as the same; None: each is one of its own."""


@dataclass(frozen=True)
class Selection:
    """Which records are relayed; others are filtered with a reason. Times in ms since 1970 UTC."""

    since_ms: int | None = None
    until_ms: int | None = None
    limit: int | None = None
    """Only the first so many records are read (runners inside this process)."""

    def text(self) -> str:
        """What names the span of time: two that differ leave out other records."""
        return "" if self.since_ms is None and self.until_ms is None else f"{self.since_ms}..{self.until_ms}"


def compile_for(source: SourceMapping, destination: Destination, selection: Selection = Selection()) -> Mapper:
    """The compiled mapping of a destination; located.Problems with everything that is wrong in it.

    What this process compiled before is not compiled again: a command checks all mappings before its pipeline needs them.
    """
    hops = (source.hop_one, source.override, destination.map)
    key = repr((
        source.schema.name, source.schema.avro, *map(_content, hops),
        destination.vendor, destination.models, destination.options, destination.shards, selection,
    ))  # fmt: skip
    found = _mappers.get(key)
    if found is None:
        while len(_mappers) >= MAX_MAPPERS:
            _mappers.pop(next(iter(_mappers), ""), None)
        found = _mappers[key] = _compile(source, destination, selection)
    return found


def _content(node: Node | None) -> Any:
    """A value with its places, which comments of the code name: the same for what was read or unpickled twice."""
    if node is None:
        return None
    value: Any = node.value
    if isinstance(value, dict):
        value = {key: _content(inner) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [_content(inner) for inner in value]
    return value, node.text, node.key, node.file, node.line, node.column, node.key_line


def _compile(source: SourceMapping, destination: Destination, selection: Selection) -> Mapper:
    models = get(destination.vendor).models_under(destination.options)
    chosen = destination.models or tuple(name for name, model in models.items() if model.by_default)
    return compile_mapping(
        source_schema=source.schema,
        hop_one=source.hop_one,
        hop_one_override=source.override,
        canonical=schemas.load("telemetry/event"),
        models=[ModelSpec(name, schemas.load(models[name].schema), models[name].passthrough) for name in chosen],
        hop_two=located.read(mapping_file(destination.vendor, destination.options), f"{destination.vendor}'s mapping"),
        hop_two_override=destination.map,
        shards=destination.shards,
        options=destination.options,
        since_ms=selection.since_ms,
        until_ms=selection.until_ms,
    )


class _Held:
    """What one destination got from the chunks of one source since it was last passed on."""

    def __init__(self, to: Destination, mapper: Mapper) -> None:
        self.to = to
        self.mapper = mapper
        self.kinds = kinds_of(to, mapper.models)
        self.originals: dict[int, RawRecord] | None = None
        """The records by reference, when they travel with their items."""
        self.clear()

    def clear(self) -> None:
        self.shards: list[list[Item]] = [[] for _ in range(self.to.shards)]
        self.packers: dict[tuple[int, int], Packer | CarryingPacker] = {}
        """By shard and number of the window, 0 without windows."""
        self.counts = MapTally()
        self.undecodable: list[Undecodable] = []

    def pack(self) -> None:
        """Packs what a chunk gave."""
        window = self.to.batch.window_ms
        for shard, items in enumerate(self.shards):
            if not items:
                continue
            if window is None:
                self._add(shard, 0, items)
            else:
                windows: dict[int, list[Item]] = {}
                for item in items:
                    windows.setdefault(min(max(item[3], EARLIEST_MS), LATEST_MS) // window, []).append(item)
                for number, own in windows.items():
                    self._add(shard, number, own)
            items.clear()

    def _add(self, shard: int, window: int, items: Sequence[Item]) -> None:
        packer = self.packers.get((shard, window))
        if packer is None:
            packer = Packer() if self.originals is None else CarryingPacker(self.originals, self.kinds)
            self.packers[shard, window] = packer
        several = len(self.mapper.models) > 1
        packer.add(items, len({item[4] for item in items}) if several else len(items))

    def pass_on(self, source: str) -> Iterator[tuple[str, Any, Timestamp | None]]:
        """(tag of the output, element, its timestamp or None for any)."""
        to, window, output = self.to, self.to.batch.window_ms, tag(self.to.name)
        for (shard, number), packer in self.packers.items():
            stamp = None if window is None else Timestamp(micros=number * window * 1000)
            yield output, (shard, packer.packed(source)), stamp
        tally, failures = _outcomes(source, self.counts, self.undecodable)
        yield TALLY, (to.name, tally), None
        if failures:
            if self.originals is not None:
                failures = [_carrying(failed, self.originals[failed.ref]) for failed in failures]
            yield FAILED, (to.name, failures), None
        self.clear()


class MapRecordsFn(beam.DoFn):
    """Chunks of raw records to items of each destination, by shard.

    In: Chunk. Out, tagged `to-NAME` for each destination: (shard, packed items), with the window's start as
    timestamp when the destination has windows. Tagged `tally`: (destination, Tally). Tagged `failed`:
    (destination, list of Failed).

    Where the source asks for it, and `dedupe.use` gave this run a place to keep what was seen, duplicates are filtered.
    What comes out is packed chunk by chunk and held until HELD_RECORDS have gone through it, over several chunks of a
    source: small chunks are quick, as their records stay in the processor's cache, and large elements are.

    carry: the source cannot be read again, so items travel with their records (transforms/carried.py), and what failed
    has its own.
    """

    def __init__(
        self,
        source: SourceMapping,
        destinations: Sequence[Destination],
        selection: Selection,
        run: str,
        carry: bool = False,
    ) -> None:
        self.source = source
        # Mapping needs no credentials, so none go where this goes.
        self.destinations = tuple(replace(to, credentials={}) for to in destinations)
        self.selection = selection
        self.run = run
        self.carry = carry

    def setup(self) -> None:
        """Compiles the decoder and the mappings: functions do not travel in the job graph."""
        self._key = (self.run, *((to.name, to.models) for to in self.destinations))
        kept = _compiled.get(self._key)
        if kept:
            self._decoder, self._held = kept.pop()
        else:
            self._decoder = Decoder(self.source.schema)
            self._held = [_Held(to, compile_for(self.source, to, self.selection)) for to in self.destinations]
        self._raw = any(held.mapper.needs_raw for held in self._held)
        self._attributes = any(held.mapper.needs_attributes for held in self._held)
        self._duplicates = self._finder()
        self._progress: Progress = progress(self.run)

    def teardown(self) -> None:
        """Leaves what was compiled to the next of its kind in this process: a stream maps a slice a second, and compiling
        takes a tenth of one."""
        _compiled.setdefault(self._key, []).append((self._decoder, self._held))

    def _finder(self) -> Duplicates | None:
        """What finds duplicates; None when nobody wants them found, or this process does not keep what was seen."""
        source, seen = self.source, dedupe.of(self.run)
        if source.dedupe is None or seen is None:
            return None
        ids = compile_ids(source.schema, source.hop_one, source.override) if source.dedupe.by == "id" else None
        return Duplicates(seen, source.dedupe.by, self._decoder, ids, [to.name for to in self.destinations])

    def start_bundle(self) -> None:
        """Begins with nothing held."""
        self._of = ""
        self._originals: dict[int, RawRecord] | None = {} if self.carry else None
        self._carried = 0
        for held in self._held:
            held.clear()
            held.originals = self._originals

    def process(self, chunk: Chunk) -> Iterator[Any]:
        """Maps one chunk. GivenUp when the run is not to be waited for."""
        if self._progress.given_up:
            raise GivenUp
        if chunk.source != self._of:
            yield from self._pass_on(0)
            self._of = chunk.source
        decoded = self._decoder.decode(chunk)
        if self.selection.limit is not None:
            decoded = first(decoded, self.selection.limit - self._progress.records)
        read = len(decoded.records) + len(decoded.undecodable)
        duplicates = 0
        if self._duplicates is not None:
            decoded, duplicates = self._duplicates.leave_out(chunk, decoded)
        refs: int | list[int] = record_ref(chunk.position, 0)
        if decoded.indexes is not None:
            refs = [record_ref(chunk.position, index) for index in decoded.indexes]
        raws = self._decoder.raws(chunk, decoded) if self._raw else None
        attributes = self._decoder.attributes(chunk, decoded) if self._attributes else None
        if self._originals is not None:
            for index, raw in enumerate(raw_records(chunk)):
                self._originals[record_ref(chunk.position, index)] = raw
            self._carried += len(chunk.payload)
        for held in self._held:
            held.mapper.map_chunk(decoded.records, raws, refs, held.shards, held.counts, attributes)
            held.pack()
            held.undecodable += decoded.undecodable
            if duplicates:
                held.counts.records += duplicates
                held.counts.filtered[DUPLICATE] = held.counts.filtered.get(DUPLICATE, 0) + duplicates
        self._progress.records += read
        self._progress.bytes += len(chunk.payload)
        yield from self._pass_on(HELD_RECORDS if self._carried < CARRIED_BYTES else 0)

    def _pass_on(self, least: int) -> Iterator[beam.pvalue.TaggedOutput]:
        for held in self._held:
            if held.counts.records + len(held.undecodable) > least:
                for output, element, stamp in held.pass_on(self._of):
                    stamped = element if stamp is None else TimestampedValue(element, stamp)
                    yield beam.pvalue.TaggedOutput(output, stamped)
        if self._originals and not any(held.counts.records or held.undecodable for held in self._held):
            self._originals.clear()
            self._carried = 0

    def finish_bundle(self) -> Iterator[beam.pvalue.TaggedOutput]:
        """Passes on what is held."""
        for held in self._held:
            if held.counts.records or held.undecodable:
                for output, element, stamp in held.pass_on(self._of):
                    placed = WindowedValue(element, MIN_TIMESTAMP if stamp is None else stamp, (GlobalWindow(),))
                    yield beam.pvalue.TaggedOutput(output, placed)


_compiled: dict[tuple[Any, ...], list[tuple[Decoder, list[_Held]]]] = {}
"""Run and destinations -> what was compiled for them and nobody uses."""


def forget(run: str) -> None:
    """Drops what was compiled for a finished run."""
    for key in [key for key in _compiled if key[0] == run]:
        del _compiled[key]


def first(decoded: Decoded, number: int) -> Decoded:
    """The first `number` records of a chunk, undecodable ones included."""
    records, indexes, undecodable = decoded[:3]
    if number >= len(records) + len(undecodable):
        return decoded
    number = max(number, 0)
    bad = [one for one in undecodable if split_ref(one.ref)[1] < number]
    good = number - len(bad)
    return decoded._replace(
        records=records[:good], indexes=None if indexes is None else indexes[:good], undecodable=bad
    )


def _outcomes(source: str, counts: MapTally, undecodable: Sequence[Undecodable]) -> tuple[Tally, list[Failed]]:
    """What the step itself decided: figures, and what went nowhere."""
    tally = Tally(
        records=counts.records + len(undecodable),
        undecodable=len(undecodable),
        touched=counts.touched + len(undecodable),
        mapped=counts.items,
        filtered=counts.filtered,
    )
    failures = [
        Failed(
            REJECTED,
            f"undecodable: {bad.reason}",
            source,
            bad.ref,
            line=bad.line,
            original=bad.original,
            format=bad.format,
        )
        for bad in undecodable
    ]
    failures += [_failed(source, rejected) for rejected in counts.rejected]
    for failed in failures:
        tally.reasons[failed.reason] = tally.reasons.get(failed.reason, 0) + 1
    return tally, failures


def _carrying(failed: Failed, raw: RawRecord) -> Failed:
    return with_record(failed, raw.text, raw.message, raw.number)


def _failed(source: str, rejected: Rejected) -> Failed:
    ref, model, field, reason, user, time_ms, payload = rejected
    return Failed(REJECTED, f"{field}: {reason}" if field else reason, source, ref, model, user, time_ms, payload)


__all__ = ["FAILED", "TALLY", "MapRecordsFn", "Selection", "SourceMapping", "compile_for", "tag"]
