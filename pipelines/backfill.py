"""The batch job: files in, vendors out, as one plain Beam pipeline for any runner.

    python -m pipelines.backfill --relay=relay.yaml --input='gs://bucket/events/*.jsonl.gz' \
        --report=gs://bucket/report.json --runner=DataflowRunner --project=…

    read -> decode, map, shard -> (for each destination) group by shard -> send -> outcomes -> report, dead letters
"""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.explain import explained
from pipelines.fetch import load_from
from pipelines.options import RelayOptions, selection_of
from pipelines.plan import Plan, make_plan
from transforms.account import WriteReport
from transforms.dead_letter import WriteDeadLettersFn
from transforms.deliver.sink import Deliver
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.read import Read
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
        writer = WriteDeadLettersFn(dead_letters, plan.vendors, plan.versions, plan.layout)
        every_failed | "Write dead letters" >> beam.ParDo(writer)
    (tallies | "Tallies" >> beam.Flatten(), every_failed) | "Report" >> WriteReport(report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job and waits for it. Returns the exit code: that of the report when one is written, else 0."""
    options = PipelineOptions(list(arguments) if arguments is not None else None)
    ours = options.view_as(RelayOptions)
    if not ours.relay or not ours.input:
        print(
            "usage: python -m pipelines.backfill --relay=FILE --input=GLOB [--input=GLOB…] [Beam's options]",
            file=sys.stderr,
        )
        return 2
    try:
        plan, _ = make_plan(load_from(ours.relay), selection_of(ours), ours.only or ())
        options.view_as(SetupOptions).save_main_session = False
        pipeline = beam.Pipeline(runner=_runner(options), options=options)
        build(pipeline, plan, ours.input, ours.dead_letters, ours.report)
        result = pipeline.run()
        if options.view_as(GoogleCloudOptions).template_location is not None:
            return 0  # a template's launcher has only described the job: Dataflow starts it
        result.wait_until_finish()
        return 0 if ours.report is None else _exit_code(ours.report)
    except Exception as error:
        lines = explained(error)
        if lines is None:
            raise
        print("\n".join(lines), file=sys.stderr)
        return 2


def _exit_code(report: str) -> int:
    with FileSystems.open(report) as file:
        return exit_code(json.load(file))


def _runner(options: PipelineOptions) -> str | FnApiRunner:
    """The runner to use. Beam's DirectRunner first tries to download another one; what it would fall back to is this."""
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    return (
        FnApiRunner() if name.rpartition(".")[2] in ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner") else name
    )


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    sys.exit(main())
