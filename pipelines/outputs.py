"""Where a run writes to, tried before anything is sent: what cannot be written afterwards is lost."""

from __future__ import annotations

import os
import tempfile

from apache_beam.io.filesystems import FileSystems

from transforms.letter_stores import check_location, is_topic


def prepare(dead_letters: str | None, report: str | None) -> None:
    """Makes the folders that are missing. OSError naming the path when one cannot be written to.

    dead_letters: a folder or topic, LetterError when it can be neither; report: a file. Topics and paths in cloud
    storage are not tried.
    """
    if dead_letters is not None:
        check_location(dead_letters)
        if not is_topic(dead_letters) and FileSystems.get_scheme(dead_letters) is None:
            _try_folder(dead_letters)
    if report is not None and FileSystems.get_scheme(report) is None:
        if os.path.isdir(report):
            raise IsADirectoryError(None, "is a folder; expected a file for the report", report)
        if os.path.exists(report):
            with open(report, "ab"):
                pass
        else:
            _try_folder(os.path.dirname(report) or ".")


def _try_folder(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, folder) from error
