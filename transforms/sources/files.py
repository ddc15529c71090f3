"""Files on disk and in cloud storage: finding them, opening them, decompressing them as a stream."""

from __future__ import annotations

import bz2
import codecs
import glob
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import zstandard
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.sources.cloud import check_reachable

RAW_READ: Final = 256 << 10
"""Bytes asked of a compressed file at a time."""
HEAD: Final = 1 << 10
"""First bytes of a file, which tell how it is compressed."""
PIECES: Final = {"gzip": 8 << 10, "bzip2": 8 << 10, "zstd": 1 << 10}
"""Compressed bytes given to a decompressor at a time. They bound what it can give back at once: a byte of gzip stands for
1,032 bytes at the most, four bytes of zstd for 128 KiB. Of bzip2, of which 40 bytes may stand for 45 MB, see MADE."""
MADE: Final = 1 << 20
"""Bytes that bzip2 is asked for at a time."""
MAX_ZSTD_WINDOW: Final = 1 << 27
"""Bytes that reading a zstd file may take: what the zstd command takes unasked, and enough for all of its levels and for
`--long`. The memory is taken only for files that ask for it."""

BZIP2_BLOCKS: Final = (b"1AY&SY", b"\x17rE8P\x90")
"""What stands at the fifth byte of a bzip2 file: a block, or the end of an empty one."""

SUFFIXES: Final = {".gz": "gzip", ".gzip": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".zstd": "zstd"}


class NoInput(Exception):
    """No file matches a glob. The message names the glob."""


class Corrupt(Exception):
    """A file's bytes cannot be read any further. The message says why."""


class File(NamedTuple):
    """A matched file and its size in bytes, as stored."""

    name: str
    size: int


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def is_local(name: str) -> bool:
    """Whether the name is a path of this machine's file system."""
    return "://" not in name


def match(globs: Sequence[str]) -> list[File]:
    """The files that the globs match, each once, sorted by name.

    Raises NoInput when a glob matches no file, naming it.
    """
    found: dict[str, int] = {}
    for pattern in globs:
        files = _match_local(pattern) if is_local(pattern) else _match_remote(pattern)
        if not files:
            raise NoInput(_no_input(pattern))
        for name in files:
            _check_name(name)
        found.update(files)
    return [File(name, found[name]) for name in sorted(found)]


def _match_remote(pattern: str) -> dict[str, int]:
    try:
        FileSystems.get_filesystem(pattern)
    except ValueError:  # what Beam raises for a scheme that it has no file system for
        raise NoInput(f"{pattern}: nothing can be read from there; name files on disk or gs://…") from None
    check_reachable(pattern)
    matched = FileSystems.match([pattern])[0].metadata_list
    return {file.path: file.size_in_bytes for file in matched if not file.path.endswith("/")}


def _match_local(pattern: str) -> dict[str, int]:
    # A file that exists by this very name is meant, even if the name has brackets in it.
    names = [pattern] if os.path.isfile(pattern) else glob.glob(os.path.expanduser(pattern), recursive=True)
    return {name: os.path.getsize(name) for name in names if os.path.isfile(name)}


def _check_name(name: str) -> None:
    # A name with bytes that are no UTF-8 can stand in no reference, report or dead letter.
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise NoInput(f"{shown}: the file's name is not UTF-8; rename the file") from None


def _no_input(pattern: str) -> str:
    if is_local(pattern) and os.path.isdir(pattern):
        return f"{pattern} is a folder; name the files in it, for example {os.path.join(pattern, '*')}"
    return f"no file matches {pattern}"


def compression_of(name: str, head: bytes) -> str:
    """`gzip`, `bzip2`, `zstd` or `` (none), from a file's first bytes.

    The bytes win over the name: cloud storage may hand out a `.gz` object already decompressed.
    Raises Corrupt when the name promises compressed data and the bytes are neither that nor text.
    """
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] in BZIP2_BLOCKS:
        return "bzip2"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (len(head) > 3 and head[0] >> 4 == 5 and head[1:4] == b"\x2a\x4d\x18"):
        return "zstd"
    promised = SUFFIXES.get(os.path.splitext(name)[1].lower(), "")
    if promised and head and not _is_content(head):
        raise Corrupt(f"not {promised} data, although the name says so")
    return ""


def _is_content(head: bytes) -> bool:
    """Whether bytes look like what may be inside a file: text, or an Avro container."""
    if head[:4] == b"Obj\x01":
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head[:512])  # does not mind a last character cut in two
    except UnicodeDecodeError:
        return False
    return b"\0" not in head[:512]


class Stream:
    """The content of one file, decompressed, read forward in memory of a few MiB.

    `position` is the offset in the content of the next byte that `read` returns.
    Opening and reading raise Corrupt for what reading again would not cure (damaged data, a local
    file that is gone or may not be read); errors of a cloud store are passed on, so that a runner retries.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.position = 0
        self._held: list[bytes | memoryview] = []
        """What comes next, before what the file gives. The rest of a large piece is a view of it, so that reading it bit
        by bit does not copy it over and over."""
        self._problem: Corrupt | None = None
        self._file = _open(name)
        head = _read(self._file, name, HEAD)
        self._file.seek(0)
        try:
            self.compression = compression_of(name, head)
        except Corrupt:
            self._file.close()
            raise
        self._content = _decompressed(name, self._file, self.compression) if self.compression else None

    def read(self, size: int) -> bytes:
        """Up to size bytes; fewer only where the content ends or is damaged, none at its end.

        Raises Corrupt when the next byte cannot be had.
        """
        data = self._read(size)
        self.position += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """What `read` would return, leaving it to be read."""
        data = self._read(size)
        self._push(data)
        return data

    def unread(self, data: bytes) -> None:
        """Gives back the last bytes that `read` returned."""
        self._push(data)
        self.position -= len(data)

    def seek(self, position: int) -> None:
        """Goes to an offset of the content; in a compressed file by reading up to it, from the start if need be."""
        if self._content is None:
            self._held.clear()
            self._file.seek(position)
            self.position = position
            return
        if position < self.position:
            self._content.close()
            self._file = _open(self.name)
            self._content = _decompressed(self.name, self._file, self.compression)
            self._held.clear()
            self._problem = None
            self.position = 0
        while self.position < position and self.read(min(RAW_READ, position - self.position)):
            pass

    def close(self) -> None:
        """Closes the file."""
        if self._content is not None:
            self._content.close()
        self._file.close()

    def _push(self, data: bytes) -> None:
        if data:
            self._held.insert(0, data)

    def _read(self, size: int) -> bytes:
        if self._content is None and not self._held:
            return _read(self._file, self.name, size)
        parts: list[bytes | memoryview] = []
        missing = size
        while missing > 0:
            part = self._held.pop(0) if self._held else self._more(missing, bool(parts))
            if not part:
                break
            if len(part) > missing:
                part = memoryview(part)
                self._held.insert(0, part[missing:])
                part = part[:missing]
            parts.append(part)
            missing -= len(part)
        only = parts[0] if len(parts) == 1 else None
        return only if isinstance(only, bytes) else b"".join(parts)

    def _more(self, size: int, some: bool) -> bytes:
        """The next bytes; when they cannot be had and `some` were got already, the problem waits for the next call."""
        try:
            if self._problem:
                raise self._problem
            if self._content is None:
                return _read(self._file, self.name, size)
            return next(self._content, b"")
        except Corrupt as problem:
            self._problem = problem
            if some:
                return b""
            raise


def _open(name: str) -> Any:
    if not is_local(name):
        return FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        return open(name, "rb")
    except OSError as error:
        raise Corrupt(f"cannot be opened: {error.strerror}") from error


def _read(file: Any, name: str, size: int) -> bytes:
    try:
        data: bytes = file.read(size)
    except OSError as error:
        if not is_local(name):
            raise
        raise Corrupt(f"cannot be read: {error.strerror}") from error
    return data


def _decompressor(compression: str) -> _Decompressor:
    if compression == "gzip":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    return zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()


def _decompressed(name: str, file: Any, compression: str) -> Generator[bytes, None, None]:
    """The content in pieces. Raises Corrupt behind the last byte that can be had."""
    given = 0
    progress = [0]
    try:
        for data in _inflate(_pieces(name, file, compression, progress), compression):
            given += len(data)
            yield data
        return
    except Corrupt as problem:
        damage = problem
    finally:
        file.close()
    # A decompressor that fails keeps back what it had made of its last piece. Reading again with that piece
    # given byte by byte brings out all that lies before the damage.
    skip = given
    again = _open(name)
    try:
        for data in _inflate(_pieces(name, again, compression, [0], byte_by_byte_from=progress[0]), compression):
            if len(data) > skip:
                yield data[skip:]
            skip = max(0, skip - len(data))
    finally:
        again.close()
    raise damage


def _pieces(
    name: str, file: Any, compression: str, progress: list[int], byte_by_byte_from: int = -1
) -> Iterator[bytes]:
    """The file as stored, in pieces; progress[0] is the offset of the last one given."""
    at, size = 0, PIECES[compression]
    while block := _read(file, name, RAW_READ):
        for start in range(0, len(block), size):
            progress[0] = at + start
            piece = block[start : start + size]
            if at + start == byte_by_byte_from:
                for i in range(len(piece)):
                    yield piece[i : i + 1]
            else:
                yield piece
        at += len(block)


def _inflate(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """Decompresses a file of one or several members (gzip) or frames (zstd) one behind the other."""
    decompressor = _decompressor(compression)
    inside = False
    first = True
    rest = b""
    while piece := rest or next(pieces, b""):
        rest = b""
        if not inside and not first and compression == "gzip" and not (piece := piece.lstrip(b"\0")):
            continue  # tapes and some tools pad a gzip file with zeros
        try:
            yield from _made_of(piece, decompressor)
        except (zlib.error, OSError, zstandard.ZstdError, EOFError) as error:
            if "too much memory" in str(error):  # zstd's words for a window that is larger than what is allowed
                remedy = "compress it again with --long=27 or less"
                raise Corrupt(f"the zstd data takes over {MAX_ZSTD_WINDOW:,} bytes of memory; {remedy}") from error
            what = "is damaged" if inside or first else "is followed by bytes that are not"
            raise Corrupt(f"the {compression} data {what} ({error})") from error
        inside, first = True, False
        if decompressor.eof:
            rest = decompressor.unused_data
            decompressor = _decompressor(compression)
            inside = False
    if inside:
        raise Corrupt(f"the {compression} data ends too early: the file is cut off")


def _made_of(piece: bytes, decompressor: _Decompressor) -> Iterator[bytes]:
    """What a decompressor makes of a piece, at most 32 MiB at a time."""
    if not isinstance(decompressor, bz2.BZ2Decompressor):
        if data := decompressor.decompress(piece):
            yield data
        return
    while data := decompressor.decompress(piece, MADE):
        yield data
        if decompressor.eof:
            return
        piece = b""
