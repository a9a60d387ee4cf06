"""Where decrypted files lie: in memory, in a folder of this run, which is gone with it; or with the next start, where
the run was killed."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.artifacts_config import ArtifactsSettings
from penstock.errors import Unavailable
from penstock.locked_folder import locked_folder, remove_abandoned

SHARED_MEMORY: Final = Path("/dev/shm")

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
    for left in remove_abandoned(_parent(settings), _prefix()):
        log.warning("removed %s: decrypted models of a server that was killed", left)
    folder = memory_path(settings, run_dir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder))
        except OSError as error:
            raise Unavailable(f"artifacts.memory_folder: {error.strerror}: {folder}") from error
        yield


def _parent(settings: ArtifactsSettings) -> Path:
    if settings.memory_folder is not None:
        return settings.memory_folder
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"penstock-models-{os.getuid()}-"
