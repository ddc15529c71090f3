"""Options of the Beam jobs; those of the command are in pipelines/cli.py."""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.quantities import point_in_time
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


def selection_of(options: RelayOptions) -> Selection:
    """The records to relay. Problems for a time that is none."""
    return Selection(_when("--since", options.since), _when("--until", options.until))


def _when(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else point_in_time(text)
    except ValueError as error:
        raise Problems([Problem("options", 0, 0, option, str(error))]) from None
