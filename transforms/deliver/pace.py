"""A pace that all processes of one user on one machine keep together, whatever runs they belong to.

What they share is a file of 24 bytes in the temporary folder, `playrelay-UID/NAME`: when the next request may leave, until
when the vendor asked for a pause, and when this was last written. It is read and written under a lock that is held for
microseconds and that the system takes back from a process that dies. Processes share when vendor, URL and credentials are
the same (another game has another pace) and when they have the same temporary folder (TMPDIR). NAME is an HMAC of those three
under a random key that stands beside the file, so it tells nothing of them; folder and files are the user's alone.

Times are of CLOCK_MONOTONIC, which is one clock for all processes of a machine on Linux and macOS (and one for each Linux
time namespace, which containers have only where somebody asked for it). It starts again when the machine does: a file
from before is known by a last writing that is still to come, and starts afresh; where the machine has been up for longer
than then, its times are over. Machines do not share: see "Rate" in docs/design.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Mapping

LOCKED_S = 0.0005
"""Seconds until a process asks again when another one has the lock: nobody waits in the kernel, where a stopped process
that holds it would stop all."""

UNUSED_S = 86_400.0
"""Files without a request for so long are removed by whoever comes next; who still has one open makes it anew."""

_KEY = "key"
_KEY_BYTES = 32
_NAME = re.compile(r"[0-9a-f]{32}")
_STATE = struct.Struct("<ddd")

_log = logging.getLogger(__name__)


class SharedPace:
    """The pace of one vendor, URL and set of credentials, over all processes. Not for several threads at once.

    Where the folder cannot be used, it says so in the log, once, and lets everything pass: each process then keeps the
    pace for itself alone.
    """

    def __init__(
        self,
        vendor: str,
        url: str,
        credentials: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vendor = vendor
        self._identity = json.dumps([vendor, url, sorted(credentials.items())]).encode()
        self._clock = clock
        self._path = "the temporary folder"
        self._file = self._folder = -1
        # As last read: until then nobody may send, so the file need not be asked.
        self._until = 0.0
        self._guarded(self._open)

    def claim(self, interval: float, late: float) -> float:
        """0 when a request may leave now (and it is counted), else the seconds to wait before asking again.

        interval: seconds between requests; late: seconds that may be caught up when nobody could send for a while.
        """
        if self._file < 0:
            return 0.0
        now = self._clock()
        if now < self._until:
            return self._until - now
        return self._guarded(lambda: self._claim(interval, late))

    def pause(self, until: float) -> None:
        """The vendor asked for a pause: no process sends before then (time.monotonic(), seconds)."""
        if self._file >= 0:
            self._guarded(lambda: self._pause(until))

    def close(self) -> None:
        """Closes the file; everything may pass afterwards."""
        for number in (self._file, self._folder):
            if number >= 0:
                os.close(number)
        self._file = self._folder = -1

    # The file -----------------------------------------------------------------------------------

    def _claim(self, interval: float, late: float) -> float:
        if not self._lock():
            return LOCKED_S
        try:
            now = self._clock()
            free, paused, _ = self._read(now)
            self._until = max(free, paused)
            if now < self._until:
                return self._until - now
            self._until = max(free, now - late) + interval
            self._write(self._until, paused, now)
            return 0.0
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _pause(self, until: float) -> float:
        for _ in range(200):
            if self._lock():
                break
            time.sleep(LOCKED_S)
        else:
            return 0.0  # somebody was stopped with the lock; this process keeps the pause all the same
        try:
            now = self._clock()
            free, paused, _ = self._read(now)
            if until > paused:
                self._write(free, until, now)
            return 0.0
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        if os.fstat(self._file).st_nlink == 0:  # removed, by a cleaner of temporary files say: others make a new one
            self.close()
            self._open()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self, now: float) -> tuple[float, float, float]:
        data = os.pread(self._file, _STATE.size, 0)
        if len(data) != _STATE.size:
            return 0.0, 0.0, 0.0
        free, paused, written = _STATE.unpack(data)
        return (free, paused, written) if written <= now else (0.0, 0.0, 0.0)

    def _write(self, free: float, paused: float, now: float) -> None:
        os.pwrite(self._file, _STATE.pack(free, paused, now), 0)

    def _open(self) -> float:
        self._path = os.path.join(tempfile.gettempdir(), f"playrelay-{os.geteuid()}")
        self._folder = folder = _open_folder(self._path)
        _remove_unused(folder)
        name = hmac.new(_key(folder), self._identity, hashlib.sha256).hexdigest()[:32]
        self._file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        return 0.0

    def _guarded(self, work: Callable[[], float]) -> float:
        try:
            return work()
        except OSError as error:
            self.close()
            _log.warning(
                "%s: the rate is kept within this process only, as %s cannot be used: %s. Other processes that send to"
                " the same account may exceed it together with this one; to share the rate, set TMPDIR to a folder that"
                " can be written",
                self._vendor,
                self._path,
                error.strerror or error,
            )
            return 0.0


def _open_folder(path: str) -> int:
    """The folder, made when it is not there; OSError when it is not this user's alone, as anybody could have made it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    status = os.fstat(number)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(number)
        raise PermissionError(None, "it is not this user's alone; remove it")
    # systemd-tmpfiles leaves a folder alone that somebody holds a lock on.
    fcntl.flock(number, fcntl.LOCK_SH)
    return number


def _key(folder: int) -> bytes:
    """The random key of the folder: made by whoever comes first, whole or not at all."""
    for _ in range(2):
        try:
            number = os.open(_KEY, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            _make_key(folder)
            continue
        try:
            return os.read(number, _KEY_BYTES)
        finally:
            os.close(number)
    raise FileNotFoundError(None, "its key is removed again and again")


def _make_key(folder: int) -> None:
    draft = f"{_KEY}.{secrets.token_hex(8)}"
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        os.write(number, secrets.token_bytes(_KEY_BYTES))
        os.link(draft, _KEY, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        pass
    finally:
        os.close(number)
        os.unlink(draft, dir_fd=folder)


def _remove_unused(folder: int) -> None:
    before = time.time() - UNUSED_S
    for name in os.listdir(folder):
        if _NAME.fullmatch(name):
            try:
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < before:
                    os.unlink(name, dir_fd=folder)
            except FileNotFoundError:  # another process was faster
                continue
