"""How the command's tests call it: in this process, as a process, and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from click.testing import CliRunner, Result

from pipelines.cli import main
from sandbox.credentials import RELAY_FILE

ROOT = Path(__file__).parents[2]
EVENT = '{"event_type":"spin","event_timestamp":1700000000000,"user_id":"u1"}\n'
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What acts on a terminal, line ends left out."""


def call(*arguments: object) -> Result:
    """The command in this process; an unexpected error is raised."""
    return CliRunner().invoke(main, [str(one) for one in arguments], prog_name="playrelay", catch_exceptions=False)


def process(*arguments: object, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, its output going to pipes."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def on_terminal(*arguments: object, columns: int) -> str:
    """What the command writes to a terminal that is so wide."""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # how Linux says that the other end was closed
            pass
        running.wait(60)
    os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def relay_file(destinations: Sequence[str], url: str) -> str:
    """A relay file of canonical events for a sandbox. A destination is a vendor, or `vendor: {more: keys}`."""
    sections = {}
    for text in destinations:
        given = yaml.safe_load(text)
        ((slug, more),) = given.items() if isinstance(given, dict) else ((text, {}),)
        sections[slug] = {"credentials": RELAY_FILE[slug], "url": f"{url}/{slug}", **more}
    return yaml.safe_dump(
        {"allow_literal_secrets": True, "source": {"preset": "canonical"}, "destinations": sections}, sort_keys=False
    )
