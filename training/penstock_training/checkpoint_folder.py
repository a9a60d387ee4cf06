"""Where checkpoints lie: `step-00000120/` holds one that is complete, `step-00000120.part/` one that is being written.

A folder gets its name by a rename, when all its files are on the disk and `checkpoint.json` says how long each is:
whatever is killed at whatever time, a folder with that name is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_training.errors import CheckpointError
from penstock_training.state import State

MARK: Final = "checkpoint.json"
_FORMAT: Final = 1
_NAME: Final = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Mark:
    """A complete checkpoint, and what it says of itself."""

    folder: Path
    state: State
    config: Mapping[str, Any]
    """What of the configuration it depends on, by names such as `optimizer.learning_rate`."""
    world_size: int

    @property
    def step(self) -> int:
        return self.state.step


class CheckpointFolder:
    """All checkpoints of a run. Only rank 0 changes what lies there; all may look."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def part(self, step: int) -> Path:
        """Where that checkpoint is written."""
        return self.path / f"step-{step:08}.part"

    def complete(self) -> list[Mark]:
        """Those that are whole, by step."""
        return sorted(self._marks(), key=lambda mark: mark.step)

    def newest(self) -> Mark | None:
        """What a run goes on from."""
        return next(reversed(self.complete()), None)

    def at(self, step: int) -> Mark:
        """The one of that step. Raises CheckpointError."""
        found = next((mark for mark in self.complete() if mark.step == step), None)
        if found is None:
            raise CheckpointError(f"{self.path}: there is no complete checkpoint of step {step}")
        return found

    def seal(self, state: State, config: Mapping[str, Any], world_size: int) -> Path:
        """All its files are written: give it its name."""
        part = self.part(state.step)
        mark = {
            "format": _FORMAT,
            "state": state.to_json(),
            "config": dict(config),
            "world_size": world_size,
            "files": {path.name: path.stat().st_size for path in sorted(part.iterdir())},
        }
        write_synced(part / MARK, json.dumps(mark, indent=1))
        sync_folder(part)
        final = part.with_suffix("")
        if final.exists():
            # of a run that got so far before, and went on from an older one
            self._delete(final)
        part.rename(final)
        sync_folder(self.path)
        return final

    def prune(self, keep: int, best_step: int | None) -> None:
        """Deletes all but the newest `keep` and the best."""
        for mark in self.complete()[:-keep]:
            if mark.step != best_step:
                self._delete(mark.folder)

    def sweep(self) -> None:
        """Deletes what was never completed, and what lost its mark when it was deleted."""
        if not self.path.is_dir():
            return
        whole = {mark.folder for mark in self._marks()}
        for path in self.path.iterdir():
            if path.name.startswith("step-") and path not in whole:
                shutil.rmtree(path, ignore_errors=True)

    def _marks(self) -> Iterator[Mark]:
        if not self.path.is_dir():
            return
        for folder in self.path.iterdir():
            if _NAME.fullmatch(folder.name) and (mark := _read(folder)) is not None:
                yield mark

    def _delete(self, folder: Path) -> None:
        # without its mark it is none, however much of it is left
        (folder / MARK).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Mark | None:
    """None: it is not whole."""
    try:
        values = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        return None
    if values.get("format") != _FORMAT:
        raise CheckpointError(
            f"{folder / MARK}: format {values.get('format')!r} is not known; expected {_FORMAT}"
        )
    for name, size in values["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return Mark(folder, State.from_json(values["state"]), values["config"], values["world_size"])


def write_synced(path: Path, text: str) -> None:
    """Is on the disk when this returns; readers see the old text or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Names in it are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
