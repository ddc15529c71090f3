"""What the Beam jobs have in common: how they begin with the relay file, and what they say when something is wrong."""

from __future__ import annotations

from collections.abc import Callable

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import logs
from pipelines.explain import explained, warned
from pipelines.fetch import load_from
from pipelines.options import RelayOptions, is_local, selection_of
from pipelines.plan import Plan, make_plan
from transforms.credentials import FORMS, literals
from transforms.located import Problem, Problems


def exit_code_of(job: Callable[[], int]) -> int:
    """Runs a job: its exit code, or 2 when it ends by what a user can mend, which is told. Its logs hold no secret."""
    logs.set_up()
    try:
        return job()
    except Exception as error:
        lines = explained(error)
        if lines is None:
            raise
        logs.tell(lines)
        return 2


def plan_of(options: PipelineOptions) -> Plan:
    """The plan of a job's relay file, of which warnings are told.

    Raises Problems with everything that is wrong in it, and for secrets in it when the job is sent elsewhere: they would
    be in its graph, which runners keep and show.
    """
    ours = options.view_as(RelayOptions)
    relay = load_from(ours.relay)
    plan, _ = make_plan(relay, selection_of(ours), ours.only or ())
    message = f"a secret stands in the file, and would stand in the job that is sent away; write {FORMS}"
    problems = [
        Problem(relay.path, 0, 0, f"destinations.{to.name}.credentials.{key}", message)
        for to in (() if is_local(options) else plan.destinations)
        for key in literals(to)
    ]
    if problems:
        raise Problems(problems)
    logs.tell(warned(relay.warnings))
    return plan
