"""Audits the installed dependencies, for `make lint`: they fit together, and none has a vulnerability that is known.

    python -m tools.audit                       # asks OSV (osv.dev) by pip-audit
    python -m tools.audit --advisories all.zip  # offline, against OSV's database of PyPI, downloaded before

Where OSV does not answer, the audit was not done: that is said, and is no failure unless `--required` is given. The database
is at https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LONGEST_S = 300.0
"""Seconds that pip-audit may take for some 170 packages; it takes under 60."""

ANSWER_S = 10
"""Seconds for one of its requests."""

OURS = "playrelay"

NOT_DONE = (
    "dependencies NOT AUDITED for vulnerabilities: {reason}\n"
    "  to audit offline, fetch https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip where there is a network,"
    " and: make lint ADVISORIES=all.zip"
)


class Found(NamedTuple):
    """A vulnerability of an installed package."""

    package: str
    version: str
    id: str
    fixed: tuple[str, ...]
    """Versions without it; empty when there is none yet."""


class NotDone(Exception):
    """The audit could not be done, or not for all. The message says why."""

    def __init__(self, message: str, found: Sequence[Found] = ()) -> None:
        super().__init__(message)
        self.found = found
        """What is known all the same."""


def installed() -> dict[str, str]:
    """Name -> version of what is installed here, but for ourselves."""
    found = {canonicalize_name(one.name): one.version for one in metadata.distributions()}
    found.pop(canonicalize_name(OURS), None)
    return dict(sorted(found.items()))


def ask_osv(packages: Mapping[str, str]) -> list[Found]:
    """What OSV says of the packages that are installed. NotDone when it does not answer for each of them."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service=osv", f"--timeout={ANSWER_S}"]
    command += ["--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotDone(f"OSV had not answered within {LONGEST_S:g} s") from None
    # pip-audit's exit code is 1 both for a finding and for no network; its report is written only when it was done.
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise NotDone(f"OSV does not answer ({done.stderr.strip().rpartition(chr(10))[2][:120]}…)") from None
    audited = {canonicalize_name(one["name"]): one["vulns"] for one in answers if "vulns" in one}
    missing = packages.keys() - audited.keys()
    found = [
        Found(name, packages[name], vulnerability["id"], tuple(vulnerability["fix_versions"]))
        for name, vulnerabilities in sorted(audited.items())
        if name in packages
        for vulnerability in vulnerabilities
    ]
    if missing:
        raise NotDone(f"OSV gave no answer for {', '.join(sorted(missing)[:10])}", found)
    return found


def look_up(packages: Mapping[str, str], advisories: str) -> list[Found]:
    """What a downloaded database of OSV says of the packages. NotDone when the file is none."""
    try:
        with zipfile.ZipFile(advisories) as archive:
            records = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise NotDone(f"{advisories}: {error}") from error
    if not any("affected" in record for record in records):
        raise NotDone(f"{advisories} holds no advisories of OSV")
    return sorted({found for record in records for found in _in_record(record, packages)})


def _in_record(record: Mapping[str, Any], packages: Mapping[str, str]) -> Iterator[Found]:
    if "withdrawn" in record:
        return
    for affected in record.get("affected", ()):
        package = affected.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        if package.get("ecosystem") != "PyPI" or name not in packages:
            continue
        ranges = [one for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM"]
        version = packages[name]
        if version in affected.get("versions", ()) or any(_within(version, one["events"]) for one in ranges):
            fixed = tuple(event["fixed"] for one in ranges for event in one["events"] if "fixed" in event)
            yield Found(name, version, record["id"], fixed)


def _within(version: str, events: Sequence[Mapping[str, str]]) -> bool:
    """Whether a version lies in one of a range's stretches: from `introduced` to before `fixed`, or to `last_affected`."""
    try:
        own = Version(version)
        known = sorted((Version(text), kind) for event in events for kind, text in event.items() if kind != "limit")
    except InvalidVersion:
        return False  # such versions are also listed one by one
    inside = False
    for at, kind in known:
        if at > own:
            break
        # A version after the last that is affected is not; that one itself is.
        inside = at == own if kind == "last_affected" else kind == "introduced"
    return inside


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when the dependencies do not fit together or one is known to be vulnerable."""
    parser = argparse.ArgumentParser(description="Audit the installed dependencies.")
    parser.add_argument("--advisories", metavar="ZIP", help="OSV's database of PyPI, instead of asking OSV")
    parser.add_argument("--required", action="store_true", help="exit with 1 when the audit could not be done")
    options = parser.parse_args(arguments)
    fitting = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if fitting.returncode:
        print(fitting.stdout + fitting.stderr, end="")
    packages = installed()
    try:
        found = look_up(packages, options.advisories) if options.advisories else ask_osv(packages)
    except NotDone as error:
        _tell(error.found)
        print(NOT_DONE.format(reason=error))
        return int(bool(fitting.returncode) or bool(error.found) or options.required)
    _tell(found)
    print(f"{len(packages)} dependencies audited, {len(found)} known vulnerabilities")
    return int(bool(fitting.returncode) or bool(found))


def _tell(found: Sequence[Found]) -> None:
    for one in found:
        remedy = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no version without it yet"
        print(f"{one.package} {one.version}: {one.id}, {remedy}")


if __name__ == "__main__":
    sys.exit(main())
