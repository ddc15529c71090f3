"""--help answers at once, whatever it is asked about."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from commands import ENVIRONMENT, call

from pipelines.cli import main

COMMANDS = ["", *main.commands]
CPU_SECONDS = 0.3
HEAVY = {"apache_beam", "msgspec", "pycurl", "fastavro", "yaml", "rich", "starlette", "uvicorn", "grpc"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_costs_little(command: str) -> None:
    """CPU time, not time on the clock: the least of three runs, as other work on the machine makes it look more."""
    arguments = [sys.executable, "-m", "pipelines.cli", *command.split(), "--help"]
    spent = []
    for _ in range(3):
        with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            shown = running.stdout.read()
            _, status, usage = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
        assert running.returncode == 0
        assert shown.startswith(f"Usage: playrelay {command}".rstrip())
        spent.append(usage.ru_utime + usage.ru_stime)
        if spent[-1] < CPU_SECONDS / 2:
            break
    assert min(spent) < CPU_SECONDS


def test_help_imports_nothing_heavy() -> None:
    code = """
import json, sys
from pipelines.cli import main
for command in ["", *main.commands]:
    try:
        main([*command.split(), "--help"], prog_name="playrelay")
    except SystemExit as done:
        assert done.code == 0
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_help_tells_every_option_and_the_exit_codes() -> None:
    for name, command in main.commands.items():
        shown = call(name, "--help").stdout
        assert command.help
        assert command.help.splitlines()[0][:40] in " ".join(shown.split())
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(option in shown for option in parameter.opts)
                assert parameter.help, f"{name} {parameter.name} has no help"
    shown = call("run", "--help").stdout
    assert all(f"{code} " in shown for code in (0, 2, 3, 4))


def test_version() -> None:
    assert re.match(r"playrelay(,? (\d+\.\d+\.\d+|run from its source.*))\n", call("--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The script is the shell's, and what it asks the command for is answered."""
    script = call("completion", shell).stdout
    assert "_PLAYRELAY_COMPLETE" in script
    assert "playrelay" in script
    word = "" if shell == "fish" else "1"  # fish tells the word itself, the others its number
    environment = {
        **ENVIRONMENT,
        "_PLAYRELAY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "playrelay ",
        "COMP_CWORD": word,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli"], env=environment, capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in main.commands)


def test_bash_takes_its_completion_script() -> None:
    script = call("completion", "bash").stdout + "complete -p playrelay"
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert "playrelay" in done.stdout
