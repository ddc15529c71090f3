"""The live view of a stream, on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from commands import ENVIRONMENT, ROOT
from emulator import Emulator
from streamed import Streamed, to
from streams import Elsewhere, events, until


class Screen:
    """What is written to a terminal, without what moves its cursor."""

    def __init__(self) -> None:
        self._end, self.terminal = pty.openpty()
        self._written = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self._written += os.read(self._end, 1 << 16)
            except OSError:  # the other end is closed
                return

    @property
    def text(self) -> str:
        """All of it so far."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._written.decode("utf-8", "replace"))


def test_what_a_terminal_shows(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("parcelvoy", "teak"))
    sandbox.fault(vendor="teak", status=503, next=None)
    screen = Screen()
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "stream", str(relay.file), "--subscription", relay.subscription,
         "--state", str(relay.state)],
        env=ENVIRONMENT | emulator.environment | {"TERM": "xterm", "COLUMNS": "160"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=screen.terminal,
    ) as process:  # fmt: skip
        try:
            relay.publish(events(300))
            until(lambda: re.search(r"teak +0 items delivered +300 wait; parked: HTTP 503", screen.text), 40)
            until(lambda: re.search(r"parcelvoy +300 items delivered", screen.text))
            until(lambda: re.search(r"300 records +\d+/s +\d:\d\d\s+0 unacknowledged +\d+ slices", screen.text))
            sandbox.clear_faults()
            until(lambda: re.search(r"teak +300 items delivered\s", screen.text), 40)
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows:\n{screen.text[-3000:]}") from None
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert "Traceback" not in screen.text
