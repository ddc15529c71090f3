"""Logs: for people and for machines, with nothing that acts on a terminal and no secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import CONTROL, ENVIRONMENT
from deliveries import destination

from pipelines import logs
from transforms import credentials

SECRET = 'k3y with "quotes" & more'


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What set_up changes for the whole process is put back."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, logs.OURS)]
    levels = [one.level for one in loggers]
    handlers, hooks = root.handlers[:], (sys.excepthook, threading.excepthook)
    known = set(credentials._known)
    credentials._known.clear()  # words such as `wrong` are other tests' secrets
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)
    credentials._known.clear()
    credentials._known.update(known)


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The JSON lines since it was last called."""

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    return lines


log = logging.getLogger("pipelines.stream")


def fail() -> None:
    raise ValueError(f"cannot reach https://vendor/?key={SECRET}\x1b[31m")


def test_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    log.info("slice %d done", 7, extra={"destination": "teak", "items": 100})
    line = capsys.readouterr().err
    assert line[4] == line[7] == "-" and line[20:] == "INFO slice 7 done destination=teak items=100\n"


def test_an_object_for_machines(written: Callable[[], list[dict[str, Any]]]) -> None:
    logs.set_up("json")
    log.warning("parked\nnow", extra={"destination": "teak", "figures": {"items": 3, "age": float("nan")}, "n": 1.5})
    (line,) = written()
    assert line.pop("time")[10] == "T"
    assert line == {
        "severity": "WARNING",
        "message": "parked\nnow",
        "logger": "pipelines.stream",
        "fields": {"destination": "teak", "figures": {"items": 3, "age": "nan"}, "n": 1.5},
    }


@pytest.mark.parametrize(
    ("level", "severity"),
    [(10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL"), (5, "DEFAULT")],
)
def test_severities_are_those_of_cloud_logging(
    written: Callable[[], list[dict[str, Any]]], level: int, severity: str
) -> None:
    logs.set_up("json", level=1)
    log.log(level, "x")
    assert [line["severity"] for line in written()] == [severity]


@pytest.mark.parametrize("format", logs.FORMATS)
def test_nothing_acts_on_a_terminal(capsys: pytest.CaptureFixture[str], format: str) -> None:
    logs.set_up(format)
    log.error("user %s", "a\x1b[2J\x07\u202eb\nFORGED", extra={"model": "\x9bx\r\n"})
    try:
        fail()
    except ValueError:
        log.exception("failed")
    text = capsys.readouterr().err
    assert not CONTROL.search(text)
    assert not any(line.startswith("FORGED") for line in text.splitlines())


@pytest.mark.parametrize("format", logs.FORMATS)
def test_no_secret_is_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setenv("TEAK_SECRET_KEY", SECRET)
    to = destination("teak", "http://vendor", credentials={"game_id": "chess", "secret_key": "env:TEAK_SECRET_KEY"})
    credentials.resolve_all(to)
    logs.set_up(format)
    log.error("for chess: %s", SECRET, extra={"body": {"secret_key": SECRET}, "list": [SECRET], SECRET: 1})
    # Not through the logger: pytest's own handler fails on it.
    wrong = log.makeRecord(log.name, logging.ERROR, "", 0, "wrong %d", (SECRET,), None)
    logging.getLogger().handlers[-1].handle(wrong)
    try:
        fail()
    except ValueError:
        log.exception("failed")
    text = capsys.readouterr().err
    assert "k3y" not in text
    assert "***" in text
    assert "chess" in text
    assert "wrong %d" in text


def test_others_speak_from_warnings_on_and_so_does_python(written: Callable[[], list[dict[str, Any]]]) -> None:
    logs.set_up("json")
    logging.getLogger("apache_beam").info("much")
    logging.getLogger("apache_beam").warning("something")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", FutureWarning, stacklevel=1)
    found = written()
    assert [line["logger"] for line in found] == ["apache_beam", "py.warnings"]
    assert "FutureWarning: old" in found[1]["message"]


def test_the_last_set_up_counts(written: Callable[[], list[dict[str, Any]]]) -> None:
    logs.set_up()
    logs.set_up("json")
    log.info("once")
    assert [line["message"] for line in written()] == ["once"]


def test_what_ends_a_thread_or_the_process_is_logged() -> None:
    program = (
        "import threading\nfrom pipelines import logs\nlogs.set_up('json')\ndef fail(): raise ValueError('no')\n"
        "one = threading.Thread(target=fail, name='deliver-teak')\none.start()\none.join()\nfail()"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["severity"], line["message"]) for line in lines] == [
        ("CRITICAL", "deliver-teak ended by an error that is not expected"),
        ("CRITICAL", "ended by an error that is not expected"),
    ]
    assert all(line["exception"].endswith("ValueError: no") for line in lines)
