"""The options of the Beam jobs."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.options import RelayOptions


@pytest.mark.parametrize("written", ["--dead_letters", "--dead-letters"])
def test_dead_letters_are_asked_for_as_beam_or_as_the_command_writes_it(written: str) -> None:
    options = PipelineOptions(["--relay=relay.yaml", f"{written}=gs://game/dead"]).view_as(RelayOptions)
    assert options.dead_letters == "gs://game/dead"
