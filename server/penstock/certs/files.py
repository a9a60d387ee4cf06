"""Files and folders of which no reader ever sees half: private ones, and pairs that change in one moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from penstock.errors import AlreadyExists, Unavailable

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
CURRENT: Final = "..data"
"""The link that says which of a folder's generations holds, as in a volume of Kubernetes."""
_GENERATION: Final = "..gen-"
KEPT: Final = 2
"""Generations: whoever has just read a certificate still finds its key."""


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of the file system as Unavailable, with the path."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{error.filename or path}: {error.strerror}") from error


def make_private_folder(path: Path) -> None:
    """And those above it, which only this user may enter either. One that is there keeps its mode. Raises OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def write_file(path: Path, content: bytes, mode: int, *, replace: bool = False) -> None:
    """All of it or nothing. Raises AlreadyExists where there is such a file and it is not to be replaced."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(name, path)
        else:
            # unlike a rename, it fails where there is one
            os.link(name, path)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists, and is not overwritten") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    _sync_folder(path.parent)


def put_generation(
    folder: Path, files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]
) -> None:
    """All of a folder's files, from now on: name → content and mode, and names that lead elsewhere. Raises OSError."""
    make_private_folder(folder)
    new = Path(tempfile.mkdtemp(prefix=_GENERATION, dir=folder))
    try:
        for name, (content, mode) in files.items():
            write_file(new / name, content, mode)
        _put_link(folder / CURRENT, new.name)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for name in files:
        _ensure_link(folder / name, f"{CURRENT}/{name}")
    for name, target in links.items():
        _ensure_link(folder / name, target)
    _sync_folder(folder)
    _remove_old(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time writes there: a server that renews, and people. Raises OSError."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _ensure_link(path: Path, target: str) -> None:
    if not path.is_symlink() or os.readlink(path) != target:
        _put_link(path, target)


def _put_link(path: Path, target: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, path)


def _remove_old(folder: Path) -> None:
    current = os.readlink(folder / CURRENT)
    others = [path for path in folder.glob(f"{_GENERATION}*") if path.name != current]
    others.sort(key=lambda path: path.stat().st_mtime_ns)
    for path in others[: -(KEPT - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
