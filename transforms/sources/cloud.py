"""Whether cloud storage can be reached at all: without a network Beam's client asks for minutes before it says so."""

from __future__ import annotations

import functools
import os
import socket
import urllib.request
from typing import Final

from apache_beam.io.filesystem import BeamIOError

HOST: Final = "storage.googleapis.com"
CONNECT_S: Final = 10.0
"""Seconds that one address of the host has to answer."""

ELSEWHERE: Final = ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_UNIVERSE_DOMAIN")
"""Variables of the environment with which the client asks another host."""


def check_reachable(place: str) -> None:
    """BeamIOError naming a gs:// place when its host takes no connection from here. Asked once in a process, and not
    where a proxy stands between or another host is asked."""
    if not place.startswith("gs://") or urllib.request.getproxies() or any(map(os.environ.get, ELSEWHERE)):
        return
    try:
        _connect()
    except OSError as error:
        said = f"{HOST} cannot be reached ({error.strerror or error}): check the network, or set https_proxy"
        raise BeamIOError("cloud storage cannot be reached", {place: OSError(said)}) from error


@functools.cache
def _connect() -> None:
    socket.create_connection((HOST, 443), CONNECT_S).close()
