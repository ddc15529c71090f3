"""The batch job: files in, vendors out, as one plain Beam pipeline for any runner.

    python -m pipelines.backfill --relay=relay.yaml --input='gs://bucket/events/*.jsonl.gz' \
        --report=gs://bucket/report.json --runner=DataflowRunner --project=…

    read -> decode, map, shard -> (for each destination) group by shard -> send -> outcomes -> report, dead letters

The exit code is that of the job's report (USAGE). With Beam's local runner, the default, there always is a report; a job
that runs elsewhere must be told to write one where this machine can read it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines import outputs
from pipelines.jobs import exit_code_of, plan_of
from pipelines.options import RelayOptions, is_local, runner_of
from pipelines.plan import Plan, check_credentials
from transforms.account import WriteReport
from transforms.dead_letter import WriteDeadLettersFn
from transforms.deliver.sink import Deliver
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.read import Read, check_schemas
from transforms.report import exit_code


def build(
    pipeline: beam.Pipeline, plan: Plan, inputs: Sequence[str], dead_letters: str | None, report: str | None
) -> None:
    """Wires the whole job into a pipeline."""
    run = uuid.uuid4().hex
    layout = plan.layout
    chunks = pipeline | "Read" >> Read(inputs, layout.format, layout.max_record, layout.delimiter)
    mapped = chunks | "Map" >> beam.ParDo(
        MapRecordsFn(plan.source, plan.destinations, plan.selection, run)
    ).with_outputs(TALLY, FAILED, *(tag(to.name) for to in plan.destinations))
    tallies, failed = [mapped[TALLY]], [mapped[FAILED]]
    for to in plan.destinations:
        delivered = mapped[tag(to.name)] | f"Deliver to {to.name}" >> Deliver(to, plan.models[to.name], run)
        tallies.append(delivered.tallies)
        failed.append(delivered.failed)
    every_failed = failed | "Failed" >> beam.Flatten()
    if dead_letters is not None:
        writer = WriteDeadLettersFn(plan.letters_to(dead_letters))
        every_failed | "Write dead letters" >> beam.ParDo(writer)
    (tallies | "Tallies" >> beam.Flatten(), every_failed) | "Report" >> WriteReport(report)


USAGE = """\
usage: python -m pipelines.backfill --relay=FILE --input=GLOB [--input=GLOB…] [--report=FILE] [--dead_letters=PLACE]
           [--only=DESTINATION…] [--since=TIME] [--until=TIME] [--runner=RUNNER] [Beam's options]

Relays files to the destinations of a relay file, as a Beam job. The options are those of `playrelay run`.

exit codes: 0 all accounted for and nothing undelivered; 2 usage or relay file; 3 items undelivered; 4 the sums do not
add up. They are those of the job's report. When the job runs elsewhere than in this process (Dataflow, Flink), give it
a --report that can be read from here, such as gs://…: without one, 0 says only that the job came to its end.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job and waits for it. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in given or "-h" in given:
        print(USAGE, end="")
        return 0
    options = PipelineOptions(given)
    ours = options.view_as(RelayOptions)
    if not ours.relay or not ours.input:
        print(USAGE, end="", file=sys.stderr)
        return 2
    return exit_code_of(lambda: _run(options))


def _run(options: PipelineOptions) -> int:
    ours = options.view_as(RelayOptions)
    here = is_local(options)
    # Beam's DirectRunner first tries to download another one; what it would fall back to is this.
    runner = FnApiRunner() if here else runner_of(options)
    plan = plan_of(options)
    _check(plan, ours, here)
    options.view_as(SetupOptions).save_main_session = False
    with contextlib.ExitStack() as stack:
        report = ours.report
        if report is None and here:
            report = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(prefix="playrelay-")), "report")
        pipeline = beam.Pipeline(runner=runner, options=options)
        build(pipeline, plan, ours.input, ours.dead_letters, report)
        result = pipeline.run()
        if options.view_as(GoogleCloudOptions).template_location is not None:
            return 0  # a template's launcher has only described the job: Dataflow starts it
        result.wait_until_finish()
        return 0 if report is None else _exit_code(report)


def _check(plan: Plan, ours: RelayOptions, here: bool) -> None:
    """Raises what a user can mend before the job runs; `here`: on this machine, so that all of it can be tried."""
    if here:
        check_credentials(plan)
        check_schemas(ours.input, plan.layout, plan.source.schema)
        outputs.prepare(ours.dead_letters, ours.report)
        return
    with contextlib.suppress(BeamIOError):  # a store that can be reached from the workers only
        check_schemas(ours.input, plan.layout, plan.source.schema)
    letters, report = (
        place if place is not None and FileSystems.get_scheme(place) else None  # else a path of the workers
        for place in (ours.dead_letters, ours.report)
    )
    outputs.prepare(letters, report)


def _exit_code(report: str) -> int:
    with FileSystems.open(report) as file:
        return exit_code(json.load(file))


if __name__ == "__main__":
    logging.getLogger("apache_beam").setLevel(logging.INFO)
    sys.exit(main())
