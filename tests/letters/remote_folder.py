"""A cloud store for tests: Beam's own file system under a scheme of its own, `disk://` before an absolute path."""

from __future__ import annotations

from typing import Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

SCHEME = "disk"
PREFIX = f"{SCHEME}://"


def _local(path: str) -> str:
    return path.removeprefix(PREFIX)


class DiskFileSystem(LocalFileSystem):
    """Registered with Beam by being there."""

    @classmethod
    def scheme(cls) -> str:
        return SCHEME

    def split(self, path: str) -> Any:
        head, tail = super().split(_local(path))
        return PREFIX + head, tail

    def mkdirs(self, path: str) -> None:
        super().mkdirs(_local(path))

    def _list(self, dir_or_prefix: str) -> Any:
        for found in super()._list(_local(dir_or_prefix)):
            yield FileMetadata(PREFIX + found.path, found.size_in_bytes)

    def create(self, path: str, *more: Any, **named: Any) -> Any:
        return super().create(_local(path), *more, **named)

    def open(self, path: str, *more: Any, **named: Any) -> Any:
        return super().open(_local(path), *more, **named)

    def rename(self, sources: list[str], destinations: list[str]) -> None:
        super().rename(list(map(_local, sources)), list(map(_local, destinations)))

    def delete(self, paths: list[str]) -> None:
        super().delete(list(map(_local, paths)))

    def exists(self, path: str) -> bool:
        return bool(super().exists(_local(path)))
