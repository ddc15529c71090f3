"""What goes to disk: that it is there, and errors told with the file that they are about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(path: str) -> Iterator[None]:
    """An OSError from writing, which knows no file, is raised as one of this path, with what to do."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.strerror is None:
            raise
        raise OSError(error.errno, f"{error.strerror}; make room there, and start again", path) from error


def sync_folder(folder: str) -> None:
    """Puts a folder's entries on disk, so that a file made or renamed in it is there after a power cut too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
