"""Where a run writes to, tried before anything is sent: what cannot be written afterwards is lost."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid

from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from transforms.letter_stores import Topic, check_location, is_topic
from transforms.sources.cloud import check_reachable


def prepare(dead_letters: str | None, report: str | None) -> None:
    """Makes the folders that are missing, and tries to write. OSError naming the path that cannot be written to.

    dead_letters: a folder or topic, LetterError when it can be neither, or there is no such topic; report: a file.
    """
    if dead_letters is not None:
        check_location(dead_letters)
        if FileSystems.get_scheme(dead_letters) is not None:
            _try_store(dead_letters, f"{dead_letters.rstrip('/')}/")
        elif is_topic(dead_letters):
            with contextlib.closing(Topic(dead_letters)) as topic:
                topic.check()
        else:
            _try_folder(dead_letters)
    if report is not None:
        if FileSystems.get_scheme(report) is not None:
            _try_store(report, report)
        elif os.path.isdir(report):
            raise IsADirectoryError(None, "is a folder; expected a file for the report", report)
        elif os.path.exists(report):
            with open(report, "ab"):
                pass
        else:
            _try_folder(os.path.dirname(report) or ".")


def _try_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = "is a file" if os.path.isfile(folder) else error.strerror
        raise OSError(error.errno, f"{what}; expected a folder that can be written to", folder) from error


def _try_store(path: str, start: str) -> None:
    """Writes a small file to cloud storage, whose name begins with `start`, and takes it away again."""
    check_reachable(path)
    probe = f"{start}.playrelay-{uuid.uuid4().hex}"
    try:
        with FileSystems.create(probe) as file:
            file.write(b"is it allowed to write here?\n")
        FileSystems.delete([probe])
    except ValueError as error:  # Beam has no file system for the scheme, or one that is not set up
        raise OSError(None, "nothing can be written there; name a place on disk or gs://…", path) from error
    except (OSError, GoogleAPIError, GoogleAuthError) as error:
        raise OSError(None, f"cannot be written to: {error}", path) from error
