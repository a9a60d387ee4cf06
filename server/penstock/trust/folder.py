"""A model's folder, read so that nobody can put something else in a file's place meanwhile: each file is opened once,
by its name in a folder that is open already, and no symbolic link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from penstock.errors import FileAdded, FileMissing, LinkOutside
from penstock.trust.manifest import belongs

MAX_DEPTH: Final = 64
MAX_FILES: Final = 1_000_000

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# a FIFO without a writer would be waited for
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Skip = Callable[[str], bool]


@contextmanager
def opened(folder: Path) -> Iterator[OpenFolder]:
    """A model's folder. It may be a link itself, but not to outside its repository. Raises LinkOutside, OSError."""
    real, repository = folder.resolve(strict=True), folder.parent.resolve(strict=True)
    if not real.is_relative_to(repository):
        raise LinkOutside("the model's folder is a symbolic link that leads out of the repository")
    descriptor = os.open(real, _FOLDER)
    try:
        yield OpenFolder(descriptor)
    finally:
        os.close(descriptor)


class OpenFolder:
    """A folder that is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: Final = descriptor

    def versions(self) -> list[int]:
        """The numbers of its version folders: a file of such a name is none that could be loaded."""
        names = [n for n in os.listdir(self._descriptor) if _is_number(n) and n == str(int(n))]
        return [int(name) for name in names if self._is_folder(name)]

    def _is_folder(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=self._descriptor).st_mode)
        except OSError:
            # gone meanwhile, or a link to nothing
            return False

    def files(self, version: int, skip: Skip) -> Iterator[tuple[str, BinaryIO]]:
        """All files that a version is loaded from: path, and the file, open until the next one is asked for.

        Leaves out what Python writes by itself, and what is to be skipped. Raises LinkOutside, FileAdded, OSError.
        """
        left = MAX_FILES
        for each in _walk(self._descriptor, "", version, skip, MAX_DEPTH):
            left -= 1
            if left < 0:
                raise FileAdded(f"over {MAX_FILES} files")
            yield each

    def read(self, path: str, limit: int) -> bytes | None:
        """A small file's content; None: there is none. Raises LinkOutside, FileAdded, OSError."""
        parents, _, name = path.rpartition("/")
        folder = self._descriptor
        try:
            if parents:
                folder = _open(self._descriptor, parents, parents, _FOLDER)
            with _opened_file(folder, name, path) as file:
                content = file.read(limit + 1)
        except FileMissing:
            return None
        finally:
            if folder != self._descriptor:
                os.close(folder)
        if len(content) > limit:
            raise FileAdded(f"{path!a} is over {limit} bytes long")
        return content


def _walk(
    folder: int, prefix: str, version: int, skip: Skip, depth: int
) -> Iterator[tuple[str, BinaryIO]]:
    for name in sorted(os.listdir(folder)):
        path = f"{prefix}{name}"
        _check_name(path)
        if name == "__pycache__" or not belongs(f"{path}/", version):
            continue
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            if skip(path):
                continue
            if depth == 0:
                raise FileAdded(f"{path[:200]!a} is over {MAX_DEPTH} folders deep")
            inner = _open(folder, name, path, _FOLDER)
            try:
                yield from _walk(inner, f"{path}/", version, skip, depth - 1)
            finally:
                os.close(inner)
        elif not skip(path):
            with _opened_file(folder, name, path) as file:
                yield path, file


@contextmanager
def _opened_file(folder: int, name: str, path: str) -> Iterator[BinaryIO]:
    descriptor = _open(folder, name, path, _FILE)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LinkOutside(f"{path!a} is neither a file nor a folder")
        yield file


def _open(folder: int, name: str, path: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileMissing(f"{path!a} is not there") from error
        # a link, where a file or a folder was looked for; or a socket, which can't be opened
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise LinkOutside(
                f"{path!a} is a symbolic link, or no file; expected the file itself, for a link may lead anywhere"
            ) from error
        raise


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FileAdded(f"{path[:200]!a}: its name is not UTF-8") from None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
