"""Errors of the disk, told with the file that they are about."""

from __future__ import annotations

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
