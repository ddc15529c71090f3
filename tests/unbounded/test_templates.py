"""The templates say what the jobs take, and name the versions that the product has."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import backfill, stream
from pipelines.options import RelayOptions, StreamOptions

TEMPLATES = Path(__file__).parents[2] / "templates"
CONSTRAINTS = (TEMPLATES.parent / "constraints.txt").read_text()


def options(*classes: type[RelayOptions | StreamOptions]) -> set[str]:
    """Names of the options that a job takes."""
    parser = argparse.ArgumentParser(add_help=False)
    for one in classes:
        one._add_argparse_args(parser)
    return {action.dest for action in parser._actions}


def template(job: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((TEMPLATES / f"dataflow/{job}.json").read_text())
    return document


@pytest.mark.parametrize(
    ("job", "takes", "needs"),
    [
        (
            "stream",
            options(RelayOptions, StreamOptions) - {"input", "report"},
            {"relay", "subscription", "dead_letters"},
        ),
        ("backfill", options(RelayOptions), {"relay", "input"}),
    ],
)
def test_a_dataflow_template_has_the_jobs_parameters(job: str, takes: set[str], needs: set[str]) -> None:
    parameters = template(job)["parameters"]
    assert {one["name"] for one in parameters} == takes
    assert {one["name"] for one in parameters if not one.get("isOptional")} == needs
    assert template(job).get("streaming", False) == (job == "stream")
    for one in parameters:
        assert one["label"] and one["helpText"].endswith((".", "…"))


@pytest.mark.parametrize(
    ("job", "name", "good", "bad"),
    [
        ("stream", "subscription", "projects/a/subscriptions/b", "projects/a/topics/b"),
        ("stream", "dead_letters", "projects/a/topics/b", "projects/a/subscriptions/b"),
        ("stream", "dead_letters", "gs://bucket/letters", "/letters"),
        ("backfill", "input", "gs://bucket/*.jsonl.gz", "events.jsonl"),
    ],
)
def test_parameters_are_checked_before_the_job_starts(job: str, name: str, good: str, bad: str) -> None:
    (expected,) = (one["regexes"][0] for one in template(job)["parameters"] if one["name"] == name)
    assert re.fullmatch(expected, good)
    assert not re.fullmatch(expected, bad)


def test_the_image_has_the_products_beam_and_its_jobs() -> None:
    dockerfile = (TEMPLATES / "dataflow/Dockerfile").read_text()
    (beam,) = set(re.findall(r"^apache-beam==(\S+)", CONSTRAINTS, re.MULTILINE))
    assert set(re.findall(r"apache/beam_python3\.11_sdk:(\S+)", dockerfile)) == {beam}
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" in dockerfile
    assert (TEMPLATES / "dataflow/main.py").is_file()
    assert callable(stream.main) and callable(backfill.main)


def test_the_flink_deployment_submits_the_streaming_job() -> None:
    services = yaml.safe_load((TEMPLATES / "flink/compose.yaml").read_text())["services"]
    assert set(services) == {"jobmanager", "taskmanager", "workers", "jobserver", "submit"}
    (beam,) = set(re.findall(r"^apache-beam==(\S+)", CONSTRAINTS, re.MULTILINE))
    assert services["jobserver"]["image"].endswith(f":{beam}")
    assert services["workers"]["network_mode"] == "service:taskmanager"
    assert services["submit"]["entrypoint"] == ["python", "-m", "pipelines.stream"]
    given = {one.partition("=")[0].removeprefix("--") for one in services["submit"]["command"]}
    ours = options(RelayOptions, StreamOptions)
    assert {"relay", "subscription", "dead_letters"} <= given & ours
    assert given - ours == {
        "runner", "job_endpoint", "artifact_endpoint", "environment_type", "environment_config",
        "checkpointing_interval", "parallelism",
    }  # fmt: skip
