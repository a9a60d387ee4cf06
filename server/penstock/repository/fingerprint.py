"""What the files of a model version look like from outside, to notice that they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

FileStamp = tuple[bytes, int, int]
"""Path below the model's folder, size in bytes, time of the last change in ns."""


def fingerprint(model_dir: Path, version: int) -> list[FileStamp]:
    """All files that the version may have been loaded from, sorted: its own, and those that all versions share.

    What Python writes by itself is left out. A folder that is not there has no files.
    """
    own = _files(model_dir / str(version), lambda _: True)
    return sorted(_stamp(path, model_dir) for path in (*_shared(model_dir), *own))


def whole_fingerprint(model_dir: Path, versions: Iterable[int]) -> list[list[FileStamp]]:
    """All files that versions share, and then those of each."""
    folders = [model_dir / str(version) for version in versions]
    files = [_files(folder, lambda _: True) for folder in folders]
    return [
        sorted(_stamp(path, model_dir) for path in paths) for paths in (_shared(model_dir), *files)
    ]


def _shared(model_dir: Path) -> Iterator[str]:
    return _files(model_dir, lambda name: not (name.isascii() and name.isdigit()))


def _files(root: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Files below `root` but for its unwanted folders. Links to folders count as files: anything may be there."""
    for folder, folders, files in os.walk(root):
        if folder == str(root):
            folders[:] = filter(wanted, folders)
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in (*files, *folders):
            path = os.path.join(folder, name)
            if not os.path.isdir(path) or os.path.islink(path):
                yield path


def _stamp(path: str, model_dir: Path) -> FileStamp:
    name = os.fsencode(os.path.relpath(path, model_dir))
    try:
        status = os.stat(path)
    except OSError:
        # gone meanwhile, or a link to nothing
        return name, -1, -1
    return name, status.st_size, status.st_mtime_ns
