"""What a test can make go wrong around a command: its disk, and the way to a server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

from commands import ROOT


class Mounted:
    """A small file system of its own at a folder, which only commands begun with `before` see, until it is left.

    It outlives those commands, as a disk does.
    """

    def __init__(self, folder: Path, size: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # It lasts as long as this process, which ends with us however we end.
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && echo mounted && read -r _', str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        said = self._keeper.stdout.readline()
        assert said == "mounted\n", (
            "these tests need to mount a tmpfs: run them as root, or in a container with CAP_SYS_ADMIN"
        )
        self.before = ["nsenter", "--mount", f"--target={self._keeper.pid}", f"--wd={ROOT}"]

    def remount(self, options: str) -> None:
        """Changes it: `size=…` or `ro`."""
        subprocess.run([*self.before, "mount", "-o", f"remount,{options}", str(self._folder)], check=True)

    def __enter__(self) -> Mounted:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.communicate()


class Pipe:
    """A way to a server of this machine that can be cut off, or lets no answer through. `port` is where it begins."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.answers = True
        """Whether answers come through; what is asked does."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends all connections; new ones may be made."""
        with self._lock:
            ended, self._open = self._open, []
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open += [ours, theirs]
                threading.Thread(target=self._move, args=(ours, theirs, False), daemon=True).start()
                threading.Thread(target=self._move, args=(theirs, ours, True), daemon=True).start()

    def _move(self, from_: socket.socket, to: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):  # it was cut
            while data := from_.recv(1 << 16):
                if self.answers or not answers:
                    to.sendall(data)
            to.shutdown(socket.SHUT_WR)
