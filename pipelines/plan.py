"""From a relay file to what the pipeline's steps are given, with everything checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import schemas
from pipelines import relay_file
from pipelines.relay_file import Relay
from transforms import presets
from transforms.credentials import resolve_all
from transforms.dead_letter import DeadLetterWriter
from transforms.dedupe import compile_ids
from transforms.destination import Destination
from transforms.located import Problem, Problems, suggestion
from transforms.map_records import Selection, SourceMapping, compile_for
from transforms.mapping import Mapper
from transforms.sources.formats import Layout
from transforms.vendors import schemas_of


@dataclass(frozen=True)
class Plan:
    """What a job does: travels in the job graph, so it holds references, never secrets."""

    source: SourceMapping
    layout: Layout
    """How records stand in files."""
    destinations: tuple[Destination, ...]
    models: dict[str, tuple[str, ...]]
    """Destination -> its models, in the order of the items' model index."""
    versions: dict[str, str]
    """Destination -> version of its mapping."""
    selection: Selection
    notes: tuple[str, ...] = ()
    """What the user should know before the run."""

    @property
    def vendors(self) -> dict[str, str]:
        """Destination -> vendor."""
        return {to.name: to.vendor for to in self.destinations}

    @property
    def schemas(self) -> dict[str, dict[str, str]]:
        """Destination -> model -> the schema of its payloads."""
        return {to.name: schemas_of(to.vendor, to.options) for to in self.destinations}

    def letters_to(self, location: str) -> Callable[[], DeadLetterWriter]:
        """What opens a writer of this job's dead letters; it travels in the job graph too."""
        return partial(DeadLetterWriter, location, self.vendors, self.versions, self.layout, self.schemas)


def load(path: str) -> Relay:
    """The relay file at a local path. Problems with all that is wrong in it; when anything is, its mappings are checked
    along, so that all is told at once."""
    try:
        return relay_file.load(path)
    except relay_file.Faulty as faulty:
        found = list(faulty.problems)
        with suppress(schemas.SchemaError):  # told when all else is right
            source, _, _ = _source(faulty.relay)
            found += _compiled(source, faulty.relay.destinations.values(), Selection())[1]
        raise Problems(found) from None


def make_plan(
    relay: Relay, selection: Selection = Selection(), only: Sequence[str] = ()
) -> tuple[Plan, dict[str, Mapper]]:
    """The plan of a relay file and the compiled mappings by destination.

    `only`: names of the destinations to relay to; all when empty. Raises Problems with everything that is
    wrong in the mappings, and for a name in `only` that is no destination.
    """
    unknown = [name for name in only if name not in relay.destinations]
    if unknown:
        names = tuple(relay.destinations)
        raise Problems(
            [
                Problem(relay.path, 0, 0, "--only", f"{name} is no destination{suggestion(name, names)}")
                for name in unknown
            ]
        )
    source, layout, notes = _source(relay)
    chosen = tuple(to for name, to in relay.destinations.items() if not only or name in only)
    mappers, problems = _compiled(source, chosen, selection)
    problems = problems or _without_ids(relay, source)
    if problems:
        raise Problems(problems)
    plan = Plan(
        source=source,
        layout=layout,
        destinations=chosen,
        models={name: mapper.models for name, mapper in mappers.items()},
        versions={name: mapper.version for name, mapper in mappers.items()},
        selection=selection,
        notes=notes,
    )
    return plan, mappers


def _compiled(
    source: SourceMapping, destinations: Iterable[Destination], selection: Selection
) -> tuple[dict[str, Mapper], list[Problem]]:
    """The mappings that hold together, by destination, and what is wrong in the others."""
    mappers: dict[str, Mapper] = {}
    problems: list[Problem] = []
    for to in destinations:
        try:
            mappers[to.name] = compile_for(source, to, selection)
        except Problems as found:
            problems += found.problems
    return mappers, problems


def _without_ids(relay: Relay, source: SourceMapping) -> list[Problem]:
    """The problem of `dedupe: {by: id}` where no event has an id."""
    node = relay.source.dedupe_node
    if node is None or source.dedupe is None or source.dedupe.by != "id":
        return []
    if compile_ids(source.schema, source.hop_one, source.override).sends:
        return []
    hint = "give source.event an event_id, or write by: message"
    return [node.problem(f"by: id needs events with an event_id, and hop one gives none; {hint}")]


def _source(relay: Relay) -> tuple[SourceMapping, Layout, tuple[str, ...]]:
    given = relay.source
    notes: tuple[str, ...] = ()
    hop_one = None
    if given.preset is not None:
        preset = presets.get(given.preset)
        hop_one = preset.hop_one
        if not _overrides_user(relay):
            notes = preset.notes
    if given.schema is not None:
        schema = schemas.load_file(given.schema)
    else:
        schema = schemas.load(presets.get(given.preset or "canonical").schema)
    return (
        SourceMapping(schema, hop_one, given.event, given.dedupe),
        Layout(given.format, given.max_record, given.delimiter),
        notes,
    )


def _overrides_user(relay: Relay) -> bool:
    event = relay.source.event
    return event is not None and isinstance(event.value, dict) and "user_id" in event.value


def check_credentials(plan: Plan) -> None:
    """Resolves every reference once, so that a missing secret is told before anything is read. CredentialError."""
    for to in plan.destinations:
        resolve_all(to)


__all__ = ["Plan", "check_credentials", "load", "make_plan"]
