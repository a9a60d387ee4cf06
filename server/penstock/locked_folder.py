"""Folders that are gone with the process that made them; or with the next one, where it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make it, for this user alone, and remove it at the end. Raises OSError."""
    unfinished = Path(tempfile.mkdtemp(prefix=".penstock-", dir=folder.parent))
    try:
        # the lock comes with the folder, or others would take it for abandoned
        lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path, prefix: str) -> list[Path]:
    """Remove this user's folders of that prefix whose makers are gone. Returns them."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(prefix)]
    except OSError:
        return []
    return [parent / name for name in names if _remove_if_abandoned(parent / name)]


def _remove_if_abandoned(folder: Path) -> bool:
    try:
        if folder.lstat().st_uid != os.getuid() or folder.is_symlink() or not folder.is_dir():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # whoever made it runs
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(lock)
