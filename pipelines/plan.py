"""From a relay file to what the pipeline's steps are given, with everything checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import schemas
from pipelines.relay_file import Relay
from transforms import presets
from transforms.credentials import resolve_all
from transforms.destination import Destination
from transforms.located import Problem, Problems, suggestion
from transforms.map_records import Selection, SourceMapping, compile_for
from transforms.mapping import Mapper
from transforms.sources.formats import Layout


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
    mappers: dict[str, Mapper] = {}
    problems: list[Problem] = []
    for to in chosen:
        try:
            mappers[to.name] = compile_for(source, to, selection)
        except Problems as found:
            problems += [problem for problem in found.problems if problem not in problems]
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
        SourceMapping(schema, hop_one, given.event),
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


__all__ = ["Plan", "check_credentials", "make_plan"]
