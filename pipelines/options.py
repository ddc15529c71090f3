"""Options of the Beam jobs; those of the command are in pipelines/cli.py."""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipelines.quantities import duration, point_in_time
from transforms.deliver.visit import Patience
from transforms.located import Problem, Problems
from transforms.map_records import Selection


class RelayOptions(PipelineOptions):
    """What a job needs to know besides Beam's own options."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--relay", help="Relay file.")
        parser.add_argument("--input", action="append", help="Glob of files to read; repeatable.")
        # Beam writes its options with _, the command with -: either is meant.
        parser.add_argument(
            "--dead_letters", "--dead-letters", help="For dead letters: a folder, gs://, or projects/P/topics/T."
        )
        parser.add_argument("--report", help="Where to write the run report.")
        parser.add_argument("--only", action="append", help="Destination to relay to; repeatable; all when absent.")
        parser.add_argument("--since", help="Relay records from this time on.")
        parser.add_argument("--until", help="Relay records before this time.")


class StreamOptions(PipelineOptions):
    """What the streaming job needs to know besides RelayOptions."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--subscription", help="Subscription to relay: projects/PROJECT/subscriptions/NAME.")
        parser.add_argument(
            "--hold", default="24h", help="How long items wait for a vendor that takes nothing, such as 24h or 30m."
        )
        parser.add_argument(
            "--allowed_lateness", default="0s", help="How long after its end a window (batch.window) is kept open."
        )


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs in this process: on Beam's own local runner, by any of its names."""
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    plain: str = name.rpartition(".")[2].lower().removesuffix("runner")
    return plain in ("direct", "switchingdirect", "fnapi", "bundlebaseddirect")


def runner_of(options: PipelineOptions) -> PipelineRunner:
    """The runner elsewhere that is asked for. Problems for a name that is none's."""
    name = options.view_as(StandardOptions).runner
    try:
        return create_runner(name)
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        raise Problems([Problem("options", 0, 0, "--runner", f"{name}: {error}")]) from None


def patience_of(options: StreamOptions) -> Patience:
    """How long things may take. Problems for a duration that is none."""
    return Patience(_length("--hold", options.hold), _length("--allowed_lateness", options.allowed_lateness))


def _length(option: str, text: str) -> int:
    try:
        return round(duration(text) * 1000)
    except ValueError as error:
        raise Problems([Problem("options", 0, 0, option, str(error))]) from None


def selection_of(options: RelayOptions) -> Selection:
    """The records to relay. Problems for a time that is none."""
    return Selection(_when("--since", options.since), _when("--until", options.until))


def _when(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else point_in_time(text)
    except ValueError as error:
        raise Problems([Problem("options", 0, 0, option, str(error))]) from None
