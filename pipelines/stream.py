"""The streaming job: a Pub/Sub subscription in, vendors out, as one plain Beam pipeline for a runner that never ends.

    python -m pipelines.stream --relay=relay.yaml --subscription=projects/P/subscriptions/S \
        --dead_letters=projects/P/topics/T --runner=DataflowRunner --project=P --region=…

    read -> chunks -> decode, map, shard -> (for each destination) batch and send -> outcomes -> counters, dead letters

On one machine, `playrelay stream` does the same and more; docs/unbounded.md says which to use when.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
from apache_beam.runners.dataflow import DataflowRunner
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

from pipelines import logs
from pipelines.jobs import exit_code_of, plan_of
from pipelines.options import RelayOptions, StreamOptions, is_local, patience_of, runner_of
from pipelines.plan import Plan
from transforms.counters import CountFn
from transforms.dead_letter import WriteDeadLettersFn
from transforms.deliver.stateful import DeliverStream
from transforms.deliver.visit import Patience
from transforms.keep import Keep
from transforms.letter_stores import check_location
from transforms.map_records import FAILED, TALLY, MapRecordsFn, tag
from transforms.sources.subscription import ReadSubscription
from transforms.sources.unbounded import ReadUnbounded

USAGE = (
    "usage: python -m pipelines.stream --relay=FILE --subscription=projects/P/subscriptions/S"
    " --dead_letters=projects/P/topics/T [Beam's options]"
)


def build(
    pipeline: beam.Pipeline, plan: Plan, chunks: beam.PTransform, dead_letters: str, patience: Patience = Patience()
) -> None:
    """Wires the whole job into a pipeline.

    Its steps are always in one order, whatever the relay file's: a job that is updated finds its state again by them.
    """
    run = uuid.uuid4().hex
    destinations = sorted(plan.destinations, key=lambda to: to.name)
    mapped = (
        pipeline
        | "Read" >> chunks
        | "Map"
        >> beam.ParDo(MapRecordsFn(plan.source, destinations, plan.selection, run, carry=True)).with_outputs(
            TALLY, FAILED, *(tag(to.name) for to in destinations)
        )
    )
    tallies, failed = [mapped[TALLY]], [mapped[FAILED]]
    for to in destinations:
        deliver = DeliverStream(to, plan.models[to.name], run, patience)
        delivered = mapped[tag(to.name)] | f"Deliver to {to.name}" >> deliver
        tallies.append(delivered.tallies)
        failed.append(delivered.failed)
    tallies | "Tallies" >> beam.Flatten() | "Count" >> beam.ParDo(CountFn())
    # Behind a shuffle of their own: letters that cannot be written must not have anything sent again.
    writer = WriteDeadLettersFn(plan.letters_to(dead_letters))
    (failed | "Failed" >> beam.Flatten() | "Keep dead letters" >> Keep() | "Write dead letters" >> beam.ParDo(writer))


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts the job. On Dataflow it returns when the job runs; elsewhere when it ends. Returns the exit code."""
    options = PipelineOptions(list(arguments) if arguments is not None else None)
    ours, streaming = options.view_as(RelayOptions), options.view_as(StreamOptions)
    if not ours.relay or not streaming.subscription or not ours.dead_letters:
        print(USAGE, file=sys.stderr)
        return 2
    return exit_code_of(lambda: _start(options))


def _start(options: PipelineOptions) -> int:
    ours, streaming = options.view_as(RelayOptions), options.view_as(StreamOptions)
    local = is_local(options)
    runner = BundleBasedDirectRunner() if local else runner_of(options)
    plan = plan_of(options)
    check_location(ours.dead_letters)
    if plan.source.dedupe is not None:
        logs.tell(["warning: source.dedupe is of `playrelay stream`; this job does not heed it"])
    options.view_as(StandardOptions).streaming = True
    options.view_as(SetupOptions).save_main_session = False
    read = ReadSubscription if local or isinstance(runner, DataflowRunner) else ReadUnbounded
    pipeline = beam.Pipeline(runner=runner, options=options)
    build(pipeline, plan, read(streaming.subscription), ours.dead_letters, patience_of(streaming))
    result = pipeline.run()
    if local:
        result.wait_until_finish()
    return 0


if __name__ == "__main__":
    logging.getLogger("apache_beam").setLevel(logging.INFO)
    sys.exit(main())
