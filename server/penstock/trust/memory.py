"""Where decrypted files lie: in memory, in a folder of this run, which is gone with it; or with the next start, where
the run was killed."""

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

from penstock.artifacts_config import ArtifactsSettings
from penstock.errors import Unavailable

SHARED_MEMORY: Final = Path("/dev/shm")
_LOCK: Final = "lock"

log = logging.getLogger(__name__)


def memory_path(settings: ArtifactsSettings, run_dir: Path) -> Path:
    """The folder of the run."""
    return _parent(settings) / f"{_prefix()}{run_dir.name}"


@contextlib.contextmanager
def memory_folder(settings: ArtifactsSettings, run_dir: Path) -> Iterator[None]:
    """Make it, where anything may have to be decrypted, and remove it at the end. First remove what runs have left
    that were killed. Raises Unavailable."""
    if settings.key_encryption_key is None:
        yield
        return
    remove_abandoned(_parent(settings))
    folder = memory_path(settings, run_dir)
    try:
        # the lock comes with the folder, or others would take it for abandoned
        lock = _make(folder)
    except OSError as error:
        raise Unavailable(f"artifacts.memory_folder: {error.strerror}: {folder}") from error
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """The folders of runs that are over."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(_prefix())]
    except OSError:
        return
    for name in names:
        folder = parent / name
        try:
            status = folder.lstat()
            if status.st_uid != os.getuid() or not folder.is_dir() or folder.is_symlink():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # its server runs
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
            log.warning("removed %s: decrypted models of a server that was killed", folder)
        finally:
            os.close(lock)


def _make(folder: Path) -> int:
    """Returns the descriptor that holds the lock."""
    unfinished = Path(tempfile.mkdtemp(prefix=".penstock-", dir=folder.parent))
    try:
        lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return lock


def _parent(settings: ArtifactsSettings) -> Path:
    if settings.memory_folder is not None:
        return settings.memory_folder
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"penstock-models-{os.getuid()}-"
