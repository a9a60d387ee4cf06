"""Where files lie: a local path, or any URL that fsspec has a filesystem for (`s3://`, `gs://`, `memory://` …).

Credentials are the filesystem's affair: its own environment variables, or fsspec's configuration (`FSSPEC_S3_…`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, cast

import fsspec
import pyarrow.fs as arrow_fs
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from penstock_training.data.errors import TableMissing

CONTENT_MARKS: Final = ("ETag", "etag", "md5Hash", "content_md5", "md5")
"""What filesystems call the mark that they give to a file's contents."""
CHANGE_MARKS: Final = (
    *CONTENT_MARKS,
    "mtime",
    "LastModified",
    "last_modified",
    "modified",
    "created",
    "CRC",
)
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """A file in a storage."""

    path: str
    """From the storage's root, with slashes."""
    size_bytes: int
    stamp: str
    """Another one tells that the file may have changed. Empty where the filesystem has none."""
    content_mark: str
    """Stands for its contents. Empty where the filesystem has none."""


class Storage:
    """The folder or file at a URL. Survives pickling: what it holds open is opened again."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.uri,)

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            filesystem, root = url_to_fs(self.uri)
        except (ValueError, ImportError, OSError) as error:
            raise TableMissing(f"table {self.uri}: {error}") from error
        return filesystem, root.rstrip("/") or root

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """fsspec's."""
        return self._opened[0]

    @property
    def root(self) -> str:
        """The path in the filesystem."""
        return self._opened[1]

    @cached_property
    def arrow(self) -> arrow_fs.FileSystem:
        """The same filesystem, as Arrow reads it."""
        if self.is_local:
            return arrow_fs.LocalFileSystem()
        return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(self.filesystem))

    @property
    def is_local(self) -> bool:
        """Whether other programs find it under its path."""
        return isinstance(self.filesystem, LocalFileSystem)

    def absolute(self, path: str) -> str:
        """A file's path in the filesystem. The root may be a file itself."""
        return f"{self.root}/{path}" if path else self.root

    def is_file(self) -> bool:
        """Whether the root is a file."""
        return bool(self.filesystem.isfile(self.root))

    def is_folder(self, path: str = "") -> bool:
        """Whether there is a folder."""
        return bool(self.filesystem.isdir(self.absolute(path)))

    def files(self, path: str = "") -> Iterator[StoredFile]:
        """All files below, in the order of their paths; the root itself if it is one."""
        found: Any = self.filesystem.find(self.absolute(path), detail=True)
        for name in sorted(found):
            yield self._stored(name, found[name])

    def file(self, path: str) -> StoredFile | None:
        """One file, as it is now."""
        name = self.absolute(path)
        self.filesystem.invalidate_cache(name)
        try:
            return self._stored(name, self.filesystem.info(name))
        except FileNotFoundError:
            return None

    def open(self, path: str) -> IO[bytes]:
        """To read it."""
        opened: Any = self.filesystem.open(self.absolute(path), "rb")
        return cast(IO[bytes], opened)

    def sha256(self, path: str) -> str:
        """Of a file's contents."""
        digest = hashlib.sha256()
        with self.open(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _stored(self, name: str, info: Mapping[str, Any]) -> StoredFile:
        def mark(keys: tuple[str, ...]) -> str:
            return next((f"{key}={info[key]}" for key in keys if info.get(key)), "")

        path = name.removeprefix(self.root).lstrip("/")
        return StoredFile(path, int(info["size"] or 0), mark(CHANGE_MARKS), mark(CONTENT_MARKS))


def normal_uri(uri: str) -> str:
    """Local paths become whole ones, without links: a table's address must not depend on where one stands, nor on where
    a link leads later."""
    if "://" in uri or "::" in uri:
        return uri.rstrip("/") if not uri.endswith("://") else uri
    return str(Path(uri).expanduser().resolve())
