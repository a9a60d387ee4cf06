"""What several processes of a machine need, and one of them makes: the others wait for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def file_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """A file's contents; it appears whole or not at all."""
    if not path.exists():
        with _locked(path):
            if not path.exists():
                _write(path, make())
    return path.read_bytes()


def folder_once(path: Path, fill: Callable[[Path], None]) -> Path:
    """A folder; it appears filled or not at all."""
    if not path.exists():
        with _locked(path):
            if not path.exists():
                partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
                try:
                    fill(partial)
                    partial.rename(path)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return path


def _write(path: Path, contents: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(contents)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The kernel gives the lock back when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
