"""What a server serves of the registry, as a repository in Triton's layout: links to files of the cache.

VIEW/digits/3/…            version 3 of what is served as `digits`, exactly the artifacts that the registry has
VIEW/digits/config.pbtxt   what lies beside the registry.toml of a repository's entry
VIEW/.state                what the agent said last: a gateway that starts meanwhile goes by it
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from penstock.registry.cache import Cache, write_atomically
from penstock.registry.manifest import Manifest
from penstock.registry.messages import RegistryState

STATE: Final = ".state"
_NEW: Final = ".new-"
_OLD: Final = ".old-"
_NO_LINKS: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


class View:
    """The folder, which others make and remove. Its methods block; one thread at a time calls them for a model."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder

    def versions(self, name: str) -> list[int]:
        """Which versions of a model are there."""
        try:
            found = os.listdir(self.folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(entry) for entry in found if entry.isascii() and entry.isdigit())

    def add(self, name: str, manifest: Manifest, cache: Cache) -> None:
        """Have the version there, all at once. Raises OSError, FileNotFoundError where the cache lacks a file of it."""
        staged = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.folder))
        try:
            for path, file in manifest.files.items():
                target = staged / path
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(cache.blob(file.sha256), target)
            model = self.folder / name
            model.mkdir(mode=0o755, exist_ok=True)
            os.rename(staged, model / str(manifest.version))
        except BaseException:
            _remove(staged)
            raise

    def hide(self, name: str, version: int | None = None) -> Path:
        """Take a version, or the whole model, out of sight, which is quick. Returns what `discard` is to remove. Files
        that somebody has open stay readable to them. Raises OSError."""
        path = self.folder / name if version is None else self.folder / name / str(version)
        aside = Path(tempfile.mkdtemp(prefix=_OLD, dir=self.folder))
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside / "it")
        return aside

    def discard(self, hidden: Path) -> None:
        """Remove what was hidden."""
        _remove(hidden)

    def put_beside(self, name: str, files: Mapping[str, Path]) -> bool:
        """Have exactly these files beside the versions. Returns whether anything has changed. Raises OSError."""
        model = self.folder / name
        model.mkdir(mode=0o755, exist_ok=True)
        changed = False
        for path in _beside(model):
            if path not in files:
                (model / path).unlink(missing_ok=True)
                changed = True
        for path, source in files.items():
            content = source.read_bytes()
            target = model / path
            if not target.is_file() or target.read_bytes() != content:
                write_atomically(target, content)
                changed = True
        return changed

    def state(self) -> RegistryState | None:
        """What was said last; None: nothing yet."""
        return read_state(self.folder)

    def keep_state(self, state: RegistryState) -> None:
        """Raises OSError."""
        write_atomically(self.folder / STATE, msgspec.json.encode(state))

    def remove_leftovers(self) -> None:
        """What an agent has left that was killed."""
        for path in self.folder.iterdir():
            if path.name.startswith((_NEW, _OLD)):
                _remove(path)


def read_state(folder: Path) -> RegistryState | None:
    """What an agent kept in that view; None: nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=RegistryState)
    except (OSError, msgspec.MsgspecError):
        return None


def _beside(model: Path) -> list[str]:
    """Files beside the versions, as paths in the model's folder."""
    found = []
    for folder, folders, files in os.walk(model):
        if Path(folder) == model:
            folders[:] = [name for name in folders if not (name.isascii() and name.isdigit())]
        found += [os.path.relpath(os.path.join(folder, name), model) for name in files]
    return found


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(blob, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
