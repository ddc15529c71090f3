"""Where dead letters are kept: a folder on disk, a folder in cloud storage, or a Pub/Sub topic."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import gzip
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from apache_beam.io.filesystems import FileSystems

from transforms.disk import sync_folder
from transforms.sources.lines import BLOCK, count_newlines
from transforms.sources.messages import MAX_CONTENT

FILE_LETTERS: Final = 50_000
"""Dead letters a file at the most."""
FILE_BYTES: Final = 64 << 20
"""Bytes of a file on disk after which the next one is begun."""

MAX_MESSAGE: Final = 9_900_000
"""Bytes of a letter that Pub/Sub takes: 10 MB a request ("Quotas and limits", "Resource limits"), some of which its
attributes and the topic's name need."""
PUBLISH_SECONDS: Final = 60.0
"""How long one letter may take to be published, with all retries."""
ASK_SECONDS: Final = 10.0
"""How long Pub/Sub may take to say whether a topic is there."""
PUBLISHED_TOGETHER: Final = 8 << 20
"""Bytes of letters on their way at a time."""

ENCODING: Final = "encoding"
"""Attribute of a letter that is compressed: `gzip`."""

_TOPIC: Final = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")
_encode = msgspec.json.Encoder().encode


class LetterError(Exception):
    """Dead letters that cannot be written or read as asked. The message names the place and what to do."""


class Line(NamedTuple):
    """A dead letter on its way to a store."""

    id: str
    failures: int
    model: str
    text: bytes
    """The letter as JSON, with a line end."""


class Store(Protocol):
    """Keeps dead letters. What `add` was given is durable when it returns."""

    def add(self, destination: str, outcome: str, lines: Sequence[Line], key: str) -> None:
        """Keeps letters of one destination and outcome."""

    def close(self) -> None:
        """Lets go of connections."""


def is_topic(location: str) -> bool:
    """Whether a location is meant to be a Pub/Sub topic; `check_location` says whether it can be."""
    return location.startswith(("projects/", "//pubsub.googleapis.com/"))


def check_location(location: str) -> None:
    """LetterError that says what is wrong with a location for dead letters: projects/P/topics/T, or else a folder."""
    if is_topic(location):
        if not _TOPIC.fullmatch(location):
            what = "is a subscription; " if "/subscriptions/" in location else ""
            raise LetterError(
                f"{location} {what}expected projects/PROJECT/topics/TOPIC, or a folder (./{location.lstrip('/')})"
            )
    elif FileSystems.get_scheme(location) is not None:
        try:
            FileSystems.get_filesystem(location)
        except ValueError as error:
            raise LetterError(
                f"{location}: expected a folder on disk, gs://… or projects/…/topics/…; {error}"
            ) from error


def store_of(location: str) -> Store:
    """The store at a location. LetterError when it is none."""
    check_location(location)
    if is_topic(location):
        return Topic(location)
    return Folder(location) if FileSystems.get_scheme(location) is None else Objects(location)


class Folder:
    """Files on disk, `OUTCOME-DESTINATION-NUMBER.jsonl`; the last one grows until it is full.

    Any number of threads and processes of one machine may write: each waits for the file's lock, and what one adds
    stands together.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        """File -> (bytes, letters) when it was last looked at."""

    def add(self, destination: str, outcome: str, lines: Sequence[Line], key: str) -> None:
        """Appends letters and puts them on disk. OSError naming the file when that fails; nothing is added then."""
        try:
            os.makedirs(self.path, exist_ok=True)
            stem = f"{outcome}-{destination}-"
            for piece in _pieces([line.text for line in lines], FILE_BYTES):
                number = self._numbers.get(stem) or self._last(stem)
                while not self._append(os.path.join(self.path, f"{stem}{number:06}.jsonl"), piece):
                    number += 1
                self._numbers[stem] = number
        except OSError as error:
            what = f"{error.strerror}; dead letters are kept there: make room, or name another place for them"
            raise OSError(error.errno, what, error.filename or self.path) from error

    def close(self) -> None:
        """Nothing is held."""

    def _last(self, stem: str) -> int:
        name = re.compile(re.escape(stem) + r"(\d{6,})\.jsonl")
        found = [int(match[1]) for match in map(name.fullmatch, os.listdir(self.path)) if match]
        return max(found, default=1)

    def _append(self, path: str, lines: Sequence[bytes]) -> bool:
        """Adds the lines to a file; False when it has no room for them."""
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = os.fstat(file)
            if not state.st_nlink:  # taken away while the lock was waited for
                return self._append(path, lines)
            size = state.st_size
            data = b"".join(lines)
            if size and (size + len(data) > FILE_BYTES or self._letters(path, file, size) + len(lines) > FILE_LETTERS):
                return False
            if size and os.pread(file, 1, size - 1) != b"\n":
                data = b"\n" + data  # a process was killed inside a line
            self._write(path, file, data, size)
            if not size:
                sync_folder(self.path)
            self._letters(path, file, size + len(data))
            return True
        finally:
            os.close(file)

    def _letters(self, path: str, file: int, size: int) -> int:
        """How many letters a file of so many bytes has: what others added since is counted."""
        at, letters = self._seen.get(path, (0, 0))
        if at > size:
            at = letters = 0
        while at < size and (data := os.pread(file, min(BLOCK, size - at), at)):
            at, letters = at + len(data), letters + count_newlines(data)
        self._seen[path] = (at, letters)
        return letters

    def _write(self, path: str, file: int, data: bytes, size: int) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise OSError(error.errno, error.strerror, path) from error


class Objects:
    """Objects in cloud storage, `OUTCOME-DESTINATION-….jsonl`, one for what is added at a time: none can be appended to."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, destination: str, outcome: str, lines: Sequence[Line], key: str) -> None:
        """Writes objects, each of which appears as a whole or not at all."""
        if not FileSystems.exists(self.path):
            FileSystems.mkdirs(self.path)
        for at in range(0, len(lines), FILE_LETTERS):
            piece = lines[at : at + FILE_LETTERS]
            # The same letters have the same name, so that writing them again takes the place of the first time.
            same = hashlib.blake2b(repr([line[:2] for line in piece]).encode(), digest_size=16).hexdigest()
            name = "-".join(filter(None, (outcome, destination, key, f"{same}.jsonl")))
            path = FileSystems.join(self.path, name)
            if FileSystems.exists(path):
                continue
            partial = FileSystems.join(self.path, f".{name}.partial")
            with FileSystems.create(partial, mime_type="application/x-ndjson") as file:
                for line in piece:
                    file.write(line.text)
            FileSystems.rename([partial], [path])

    def close(self) -> None:
        """Nothing is held."""


class Topic:
    """Messages of a Pub/Sub topic, one a letter, with the attributes destination, model, outcome, id and, when it is
    compressed, encoding. PUBSUB_EMULATOR_HOST is heeded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._publisher: Any = None

    def add(self, destination: str, outcome: str, lines: Sequence[Line], key: str) -> None:
        """Publishes letters and waits until Pub/Sub has them. Raises LetterError."""
        with self._in_words():
            for together in _pieces([line.text for line in lines], PUBLISHED_TOGETHER):
                self._publish(destination, outcome, lines[: len(together)])
                lines = lines[len(together) :]

    def check(self) -> None:
        """Raises LetterError when the topic is not there, or Pub/Sub cannot be asked."""
        from google.api_core.exceptions import PermissionDenied
        from google.api_core.retry import Retry

        # Who may publish may not be allowed to look at the topic.
        with self._in_words(), contextlib.suppress(PermissionDenied):
            self._client().get_topic(topic=self.name, retry=Retry(timeout=ASK_SECONDS), timeout=ASK_SECONDS)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Makes a LetterError of what Google's client raises."""
        from google.api_core.exceptions import GoogleAPICallError, NotFound, PermissionDenied, RetryError
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except NotFound as error:
            raise self._cannot(f"there is no such topic; create it: gcloud pubsub topics create {self.name}") from error
        except PermissionDenied as error:
            raise self._cannot("the account that runs this needs the role roles/pubsub.publisher on it") from error
        except GoogleAuthError as error:
            raise self._cannot("no Google credentials here; run: gcloud auth application-default login") from error
        except (GoogleAPICallError, RetryError, concurrent.futures.TimeoutError) as error:
            raise self._cannot(" ".join(f"{type(error).__name__} {error}".split())[:300]) from error

    def close(self) -> None:
        """Ends the client's threads and its connection."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.stop()
            publisher.transport.close()

    def _publish(self, destination: str, outcome: str, lines: Sequence[Line]) -> None:
        from google.api_core.retry import Retry

        publisher = self._client()
        waiting = []
        for line in lines:
            data, more = fitted(line.text)
            attributes = {"destination": destination, "model": line.model, "outcome": outcome, "id": line.id, **more}
            waiting.append(
                publisher.publish(
                    self.name, data, retry=Retry(deadline=PUBLISH_SECONDS), timeout=PUBLISH_SECONDS, **attributes
                )
            )
        for published in waiting:
            published.result(2 * PUBLISH_SECONDS)

    def _client(self) -> Any:
        if self._publisher is None:
            self._publisher = _publisher()
        return self._publisher

    def _cannot(self, why: str) -> LetterError:
        return LetterError(f"dead letters cannot be published to {self.name}: {why}")


def _publisher() -> Any:
    from google.cloud import pubsub_v1
    from google.cloud.pubsub_v1.types import BatchSettings

    return pubsub_v1.PublisherClient(BatchSettings(max_bytes=3 << 20, max_latency=0.01, max_messages=1000))


def fitted(text: bytes) -> tuple[bytes, dict[str, str]]:
    """A letter as Pub/Sub takes it, and the attributes that say how it was made to fit.

    One above MAX_MESSAGE is compressed. Where that is not enough, or it could not be read as it is too large when it is
    decompressed, the payload and then the original are left out; the letter's `cut` says of each how many bytes of JSON it
    had.
    """
    text = text.rstrip(b"\n")
    if len(text) <= MAX_MESSAGE:
        return text, {}
    data = gzip.compress(text, 6, mtime=0)
    cut: dict[str, int] = {}
    letter = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    for field in ("payload", "original", "source", "user"):
        if len(data) <= MAX_MESSAGE and len(text) <= MAX_CONTENT:
            break
        if bytes(letter.get(field, b"null")) == b"null":
            continue
        cut[field] = len(letter[field])
        letter[field] = msgspec.Raw(b"null" if field != "source" else _short_source(letter[field]))
        letter["cut"] = msgspec.Raw(_encode(cut))
        text = _encode(letter)
        data = gzip.compress(text, 6, mtime=0)
    return data, {ENCODING: "gzip"}


def _short_source(source: msgspec.Raw) -> bytes:
    """A record's source without what is needed to decode it, which only makes sense with the record."""
    told = msgspec.json.decode(source, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in told.items() if len(value) <= 10_000}
    return _encode(kept)


def _pieces(lines: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Lines in groups of at most `size` bytes and FILE_LETTERS; a longer line is a group of its own."""
    begin = held = 0
    for at, line in enumerate(lines):
        if at > begin and (held + len(line) > size or at - begin == FILE_LETTERS):
            yield lines[begin:at]
            begin, held = at, 0
        held += len(line)
    if begin < len(lines):
        yield lines[begin:]
