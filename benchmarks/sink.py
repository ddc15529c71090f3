"""The sink's process: built with Go when first used, started on a free port, asked for its counts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

SOURCE = Path(__file__).parent / "sink"


class NoGo(Exception):
    """Go is not installed. The message says how to get it."""


class Counts(NamedTuple):
    """What the sink has taken since it was started."""

    requests: int
    items: int
    bytes: int
    cpu: float
    """Seconds of CPU time of the sink itself."""

    def since(self, before: Counts) -> Counts:
        """What came after `before`."""
        items, size = self.items - before.items, self.bytes - before.bytes
        return Counts(self.requests - before.requests, items, size, self.cpu - before.cpu)


class Sink:
    """A running sink, as a context manager. `folder`: where its program is kept."""

    def __init__(self, folder: Path) -> None:
        self._program = _built(folder)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Sink:
        self._process = subprocess.Popen([str(self._program), str(self.port)])
        deadline = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._process.kill()
                raise RuntimeError(f"the sink did not start on port {self.port}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            self.counts()
        except OSError:
            return False
        return True

    def counts(self) -> Counts:
        """What came until now, all vendors together."""
        with urllib.request.urlopen(f"{self.url}/report", timeout=10) as answer:
            report = json.load(answer)
        vendors = report["vendors"].values()
        requests, items, size = (sum(vendor[name] for vendor in vendors) for name in ("requests", "items", "bytes"))
        return Counts(requests, items, size, report["cpu_seconds"])


def _built(folder: Path) -> Path:
    program = folder / "sink"
    sources = [SOURCE / "main.go", SOURCE / "go.mod"]
    if program.exists() and program.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return program
    if shutil.which("go") is None:
        raise NoGo(
            "the sink is written in Go, which is not installed: https://go.dev/dl/ or your package manager (golang)"
        )
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
