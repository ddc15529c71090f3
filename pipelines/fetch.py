"""Relay files that lie in cloud storage, as the launcher of a job finds them."""

from __future__ import annotations

import os
import tempfile

from apache_beam.io.filesystems import FileSystems

from pipelines.plan import load
from pipelines.relay_file import Relay

MAX_FILE = 10 << 20
"""Bytes of a file beside the relay file that is fetched along: schemas are smaller."""


def load_from(location: str) -> Relay:
    """The relay file at a path, or in cloud storage with the schemas that lie in its folder.

    Raises Problems with everything that is wrong in it, OSError when it cannot be read.
    """
    if FileSystems.get_scheme(location) is None:
        return load(location)
    # Kept as long as the launcher: paths in the relay file lead into it.
    folder = tempfile.mkdtemp(prefix="playrelay-relay-")
    source, name = FileSystems.split(location)
    for matched in FileSystems.match([location, FileSystems.join(source, "*.avsc")]):
        for found in matched.metadata_list:
            if found.size_in_bytes <= MAX_FILE:
                with FileSystems.open(found.path) as stream:
                    data = stream.read()
                with open(os.path.join(folder, os.path.basename(found.path)), "wb") as copy:
                    copy.write(data)
    return load(os.path.join(folder, name))
