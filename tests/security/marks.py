"""Marked secrets, and the search for them in everything that was written."""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from sandbox.credentials import Credentials, SwrveApp
from transforms import vendors

PUBLIC = {"app_id": "1000", "game_id": "the-chess-game"}
"""Values of the credentials that are no secret."""

SECRETS = [(slug, key.name) for slug in vendors.slugs() for key in vendors.get(slug).credentials if key.secret]


def core(slug: str, key: str) -> str:
    """The mark within a secret: letters and digits only, so that it is the same in a URL, in JSON and in repr."""
    return f"Zq9{slug}{key.replace('_', '')}Xw7Vb5Kd3"


def secret(slug: str, key: str) -> str:
    """A secret with a mark in it, and around it what has to be escaped in URLs, JSON and Python."""
    start = "pk_" if slug == "parcelvoy" else ""  # what a sandbox goes by
    return f"{start}a+b/{core(slug, key)}\\\"&=% 'z"


CORES = [core(*one) for one in SECRETS]

ACCEPTED = Credentials(
    twelve_traits=frozenset({secret("12traits", "api_key")}),
    traitly=frozenset({secret("traitly", "token")}),
    parcelvoy=frozenset({secret("parcelvoy", "api_key")}),
    swrve=(SwrveApp(PUBLIC["app_id"], secret("swrve", "api_key"), secret("swrve", "identity_secret_key")),),
    teak={PUBLIC["game_id"]: secret("teak", "secret_key")},
)
"""What a sandbox accepts."""


def forms(mark: str) -> Iterator[bytes]:
    """How a mark stands in data: as it is, in hexadecimal, and in base64 at each of the three places it may begin."""
    plain = mark.encode()
    yield plain
    yield binascii.hexlify(plain)
    for before in range(3):
        # The first and last four characters may hold bits of what stands around it.
        text = base64.b64encode(b"\0" * before + plain)[4:-4]
        yield text
        yield base64.urlsafe_b64encode(b"\0" * before + plain)[4:-4]


_ANY = re.compile(b"|".join(re.escape(form) for mark in CORES for form in forms(mark)), re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


_TOKEN = re.compile(rb"(u[0-9])(?:=|%3D|\\+u003d)+([0-9]{10})(?:=|%3D|\\+u003d)+([0-9a-f]{32})", re.IGNORECASE)


def found_in(data: bytes) -> set[bytes]:
    """The marks in data, also in what it holds compressed or as base64 of something compressed, and Swrve's session
    tokens, which open as much as the key that they are made of."""
    found = set()
    for layer in _layers(data):
        found.update(_ANY.findall(layer))
        for user, seconds, digest in _TOKEN.findall(layer):
            made_of = user + seconds + secret("swrve", "api_key").encode()
            if hashlib.md5(made_of).hexdigest() == digest.decode().lower():
                found.add(digest)
    return found


def _layers(data: bytes, depth: int = 3) -> Iterator[bytes]:
    yield data
    if not depth:
        return
    packed = [data, *(_decoded(match) for match in _BASE64.findall(data))]
    for one in packed:
        for inner in _unpacked(one):
            yield from _layers(inner, depth - 1)


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text[: len(text) // 4 * 4])


def _unpacked(data: bytes) -> Iterable[bytes]:
    try:
        if data[:2] == b"\x1f\x8b":
            return [gzip.decompress(data)]
        if data[:3] == b"BZh":
            return [bz2.decompress(data)]
        if data[:4] == b"\x28\xb5\x2f\xfd":
            return [zstandard.ZstdDecompressor().decompressobj().decompress(data)]
        if data[:1] == b"\x78":
            return [zlib.decompress(data)]
    except (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError):
        pass  # it only looked compressed, or is still being written
    return []


def search(folder: Path, seen: dict[str, tuple[float, int]] | None = None) -> dict[str, set[bytes]]:
    """Path -> marks, for each file under a folder whose name or content has one. Files that `seen` knows as they are,
    by time and size, are not read again."""
    found = {}
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    for path in paths:
        try:
            if not path.is_file():
                continue
            status = path.stat()
            now = (status.st_mtime, status.st_size)
            if seen is not None and seen.get(str(path)) == now:
                continue
            marks = found_in(path.read_bytes() + str(path).encode())
            if seen is not None:
                seen[str(path)] = now
        except FileNotFoundError:  # a running process removed it
            continue
        if marks:
            found[str(path)] = marks
    return found


def in_processes() -> dict[str, set[bytes]]:
    """Command line -> marks, of all processes of the machine: what `ps` shows anybody."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if marks := found_in(line):
            found[line.decode("utf-8", "replace")] = marks
    return found
