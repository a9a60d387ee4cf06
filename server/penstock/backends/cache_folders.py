"""Entries of the disk cache that are folders: for libraries that write files of their own, whenever they like.

Each is private and bounded as the cache's other entries (`disk_cache.py`). What is in use, by any process, is not
removed. Nobody but the library looks whether its files are whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.backends import disk_cache

_LOCK: Final = ".lock"
"""In each folder: whose time says when it was used last, and who holds it uses it."""
_GOING: Final = ".gone-"

log = logging.getLogger(__name__)


class CacheFolder:
    """An entry in use, until it is closed."""

    def __init__(self, path: Path, lock: int, limit_bytes: int) -> None:
        """`lock`: the descriptor that holds it."""
        self.path: Final = path
        self._lock: int | None = lock
        self._limit_bytes: Final = limit_bytes

    def make_room(self) -> None:
        """Remove others of its kind, those first that were used longest ago, until the rest fits. To be called when the
        library has written."""
        # what is there stays, whatever others do there meanwhile
        with contextlib.suppress(OSError):
            total = _size(self.path)
            for path in _by_use(self.path):
                total += _size(path)
                if total > self._limit_bytes:
                    _remove(path)

    def close(self) -> None:
        """Let go of it, as a process does that ends."""
        if self._lock is not None:
            self.make_room()
            os.close(self._lock)
            self._lock = None


def folder_of(kind: str, key: str) -> Path:
    """Where an entry lies, or is to lie. One that holds something is used also where there is no room for more. Raises
    OSError where no folder can be written."""
    for place in disk_cache.places(kind):
        with contextlib.suppress(OSError):
            if any(path.name != _LOCK for path in (place / key).iterdir()):
                return place / key
    return disk_cache.folder(kind) / key


def open_folder(path: Path, limit_bytes: int = disk_cache.LIMIT_BYTES) -> CacheFolder:
    """The folder of an entry, as `folder_of` names it, made where there is none. Raises OSError where it can't
    be written."""
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = _held(path)
        except FileNotFoundError:
            # it was removed since
            continue
        if lock is not None:
            break
    entry = CacheFolder(path, lock, limit_bytes)
    entry.make_room()
    return entry


def _held(path: Path) -> int | None:
    """The descriptor of a lock that others may hold too; None: the folder is another one by now."""
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        there = os.stat(path / _LOCK, follow_symlinks=False)
        if there.st_ino != os.fstat(lock).st_ino:
            os.close(lock)
            return None
        os.utime(lock)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _by_use(own: Path) -> Iterator[Path]:
    """All others of its kind, the newest first."""
    used: list[tuple[float, Path]] = []
    for path in own.parent.iterdir():
        if path == own:
            continue
        if path.name.startswith(_GOING):
            # of a process that was killed while it removed it
            shutil.rmtree(path, ignore_errors=True)
            continue
        with contextlib.suppress(OSError):
            lock = path / _LOCK
            used.append(((lock if lock.exists() else path).lstat().st_mtime, path))
    return iter([path for _, path in sorted(used, reverse=True)])


def _remove(path: Path) -> None:
    """Unless somebody uses it."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        log.warning("%s can't be removed from the cache: %s", path, error)
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # under another name first: who comes meanwhile makes a new one
            going = Path(tempfile.mkdtemp(prefix=_GOING, dir=path.parent))
            path.rename(going / path.name)
            shutil.rmtree(going, ignore_errors=True)
    finally:
        os.close(lock)


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
