"""The built distributions, installed where nothing else is, relay files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sandbox.server import Running

ROOT = Path(__file__).parent.parent
EVENTS = ROOT / "templates" / "demo" / "aws_game_analytics.ndjson"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_all_modules_and_data_and_no_tests(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    packages = ("pipelines/", "sandbox/", "schemas/", "transforms/")
    wanted = {name for name in tracked if name.startswith(packages) and (ROOT / name).exists()}
    assert wanted - names == set()
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_source_distribution_can_be_built_from_itself(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "README.md", "LICENSE", "schemas/teak/event.avsc", "transforms/vendors/teak.yaml"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names), "a part of the tests is of no use"


def test_the_demo_outside_of_a_checkout_says_what_it_needs(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "sandbox.demo"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    sample = tmp_path / "installed" / "templates" / "demo" / "aws_game_analytics.ndjson"
    assert done.stderr.startswith(f"the demo's sample is not there: {sample}. It comes with a checkout, ")
    assert not (tmp_path / "demo").exists()


def needed(requirements: Iterable[str]) -> Iterator[metadata.Distribution]:
    """The distributions that are required, and those that they require, as they are installed here."""
    seen: set[tuple[str, str]] = set()
    left = [(Requirement(one), "") for one in requirements]
    while left:
        requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        found = metadata.distribution(requirement.name)
        if (found.name, "") not in seen:
            yield found
        for more in {"", *requirement.extras}:
            if (found.name, more) not in seen:
                seen.add((found.name, more))
                left += [(Requirement(one), more) for one in found.requires or ()]


def test_an_installed_wheel_relays_files(distributions: Path, tmp_path: Path) -> None:
    """Beside what it says that it requires, and nothing else: `make install` has shown that pip finds that."""
    (wheel,) = distributions.glob("*.whl")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python, command = environment / "bin" / "python", environment / "bin" / "playrelay"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, cwd=tmp_path)
    (site,) = environment.glob("lib/python*/site-packages")
    (own,) = metadata.distributions(name="playrelay", path=[str(site)])
    for distribution in needed(own.requires or ()):
        for file in distribution.files or ():
            link = site / file
            if ".." not in file.parts:  # commands
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(distribution.locate_file(file)))  # type: ignore[arg-type]
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    report = tmp_path / "report.json"
    with Running() as sandbox:
        for arguments in (
            ["init", "--preset", "aws-game-analytics", "--sandbox", sandbox.url, "--output", "relay.yaml"],
            ["run", "relay.yaml", "--input", str(EVENTS), "--report", str(report)],
        ):
            done = subprocess.run([str(command), *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr + done.stdout
        assert sandbox.violations() == []
    figures = json.loads(report.read_text())
    assert figures["records"] == {"read": 5000, "undecodable": 0}
    assert figures["balanced"] is True
