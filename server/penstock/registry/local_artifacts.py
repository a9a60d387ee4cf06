"""A version's files in a folder of this machine: each opened by its name in an open folder, and no link is followed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.errors import LinkOutside, NotFound
from penstock.registry.artifact_paths import MAX_DEPTH, is_pythons_own

CHUNK_BYTES: Final = 1 << 20

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# a FIFO without a writer would be waited for
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LocalArtifacts:
    """Those below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def files(self) -> dict[str, int | None]:
        """Path → size. Raises NotFound, LinkOutside, OSError."""
        try:
            root = os.open(self._folder.resolve(strict=True), _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"its files are not there: no folder {self._folder}") from None
        try:
            return dict(_walk(root, "", MAX_DEPTH))
        finally:
            os.close(root)

    def copy(self, path: str, target: Path) -> str:
        """Write the file's content to `target`, which is made. Returns its SHA-256. Raises LinkOutside, OSError."""
        descriptor = self._open(path)
        content = hashlib.sha256()
        with open(descriptor, "rb", buffering=0) as source, target.open("xb") as copy:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LinkOutside(f"{path!a} is neither a file nor a folder")
            while chunk := source.read(CHUNK_BYTES):
                content.update(chunk)
                copy.write(chunk)
        return content.hexdigest()

    def _open(self, path: str) -> int:
        *folders, name = path.split("/")
        where = os.open(self._folder.resolve(strict=True), _FOLDER)
        try:
            for folder in folders:
                inner = _open_at(where, folder, path, _FOLDER)
                os.close(where)
                where = inner
            return _open_at(where, name, path, _FILE)
        finally:
            os.close(where)


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int | None]]:
    for name in sorted(os.listdir(folder)):
        path = f"{prefix}{name}"
        if is_pythons_own(path):
            continue
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if depth == 0:
                raise LinkOutside(f"{path[:200]!a} is over {MAX_DEPTH} folders deep")
            inner = _open_at(folder, name, path, _FOLDER)
            try:
                yield from _walk(inner, f"{path}/", depth - 1)
            finally:
                os.close(inner)
        elif stat.S_ISREG(status.st_mode):
            yield path, status.st_size
        else:
            raise _link(path)


def _open_at(folder: int, name: str, path: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise _link(path) from None
        raise


def _link(path: str) -> LinkOutside:
    return LinkOutside(
        f"{path[:200]!a} is a symbolic link, or no file; expected the file itself, for a link may lead anywhere"
    )
