"""Configurations and files that load requests gave in place of those on disk.

They lie in the run's private folder, one folder for each load, for as long as what was loaded from them is served. The
next gateway finds them there, and the supervisor removes the run's folder however a gateway ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.errors import InvalidRequest, Unavailable
from penstock.repository.folders import HIDDEN, MAX_NAME_BYTES

PREFIX: Final = "file:"
MAX_FILES: Final = 10_000
MAX_DEPTH: Final = 16
"""Folders and the file's own name."""

_DESCRIPTION: Final = "override.json"
_KEPT: Final = "kept"
_SERVED: Final = "served"
"""A file that is called so says that the override is in force. It is there from the start under the other name, for a
full disk may have no room for another one, and that is no time to find out."""


@dataclass(frozen=True, slots=True)
class Override:
    """What one load request gives."""

    config: str
    """ModelConfig as JSON."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Path in the model's folder → content. Where there are any they are the whole folder."""
    tenant: str = ""
    """Whose request it is."""


@dataclass(frozen=True, slots=True)
class KeptOverride:
    """An override in its folder."""

    model: str
    config: str
    root: Path
    model_dir: Path | None
    """The folder of the files given; None: only the configuration was given."""
    tenant: str = ""
    """Whose request gave it."""


def check_given(model: str, config: object, files: Iterable[str]) -> None:
    """Raises InvalidRequest on what can't be an override of the model. `config` is None where none is given."""
    names = list(files)
    for name in names:
        if not name.startswith(PREFIX):
            raise InvalidRequest(f"unrecognized load parameter {name[:200]!a}.")
    if names and config is None:
        raise InvalidRequest("Load parameter 'config' must be specified for model file override")
    if config is not None:
        check_model_name(model)
    check_files(names)


def check_files(names: Iterable[str]) -> None:
    """Raises InvalidRequest on a name that is no path of a file inside the model's folder, and on two that collide."""
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    for name in names:
        parts = _parts(name)
        files.add(parts)
        folders.update(parts[:depth] for depth in range(1, len(parts)))
        if len(files) > MAX_FILES:
            raise InvalidRequest(f"over {MAX_FILES} files are given; expected a model's folder")
    for parts in files & folders:
        shown = f"{PREFIX}{'/'.join(parts)}"
        raise InvalidRequest(
            f"Invalid file parameter '{shown}', directory has been created as a file"
        )


def check_model_name(name: str) -> None:
    """Raises InvalidRequest on a name that no folder of a model can have."""
    problem = _part_problem(name)
    if not problem and name.startswith(HIDDEN):
        problem = "it begins with '.' or '__'"
    if problem:
        raise InvalidRequest(f"{name[:80]!a} can't be a model's name: {problem}")


class Overrides:
    """All that are kept. Its methods block: call them in a thread, all but `current`."""

    def __init__(self, run_dir: Path | None) -> None:
        self._folder = run_dir and run_dir / "overrides"
        self._numbers = itertools.count(1)

    def keep(self, model: str, override: Override) -> KeptOverride:
        """Write it down, to be put in force or removed. Raises InvalidRequest, or Unavailable where it can't be."""
        check_model_name(model)
        check_files(override.files)
        if self._folder is None:
            raise Unavailable("this server has no folder of its own for what load requests give")
        root = self._folder / str(next(self._numbers))
        model_dir = root / "model" / model if override.files else None
        try:
            _make_private(root.parent)
            root.mkdir(mode=0o700)
            if model_dir is not None:
                _write_all(model_dir, override.files)
            described = {
                "model": model,
                "config": override.config,
                "files": bool(override.files),
                "tenant": override.tenant,
            }
            _write(root / _DESCRIPTION, json.dumps(described).encode())
            _write(root / _KEPT, b"")
        except OSError as error:
            shutil.rmtree(root, ignore_errors=True)
            raise Unavailable(
                f"what was given of '{model}' can't be kept: {error.strerror}"
            ) from error
        return KeptOverride(model, override.config, root, model_dir, override.tenant)

    def put_in_force(self, kept: KeptOverride) -> None:
        """From now on the next gateway loads the model from it."""
        with contextlib.suppress(FileNotFoundError):
            # it is already
            (kept.root / _KEPT).rename(kept.root / _SERVED)

    def withdraw(self, kept: KeptOverride) -> None:
        """It is not in force any more; its files stay for those who still use them."""
        with contextlib.suppress(FileNotFoundError):
            (kept.root / _SERVED).rename(kept.root / _KEPT)

    def remove(self, kept: KeptOverride) -> None:
        """Nobody uses it any more."""
        shutil.rmtree(kept.root, ignore_errors=True)

    def inherit(self) -> dict[str, KeptOverride]:
        """Those that an earlier gateway left in force, by model. What it was about to load or to remove is removed."""
        found: dict[str, KeptOverride] = {}
        numbers = sorted(int(name) for name in self._names() if name.isdecimal())
        self._numbers = itertools.count(max(numbers, default=0) + 1)
        for number in numbers:
            assert self._folder is not None
            root = self._folder / str(number)
            kept = _read(root)
            if kept is None:
                shutil.rmtree(root, ignore_errors=True)
                continue
            if older := found.get(kept.model):
                self.remove(older)
            found[kept.model] = kept
        return found

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder) if self._folder is not None else []
        except FileNotFoundError:
            return []


def _read(root: Path) -> KeptOverride | None:
    """None where it was not in force."""
    if not (root / _SERVED).exists():
        return None
    described = json.loads((root / _DESCRIPTION).read_bytes())
    model = described["model"]
    model_dir = root / "model" / model if described["files"] else None
    return KeptOverride(model, described["config"], root, model_dir, described["tenant"])


def _parts(name: str) -> tuple[str, ...]:
    path = name.removeprefix(PREFIX)
    parts = tuple(path.split("/"))
    problem = "it is empty" if not path else next(filter(None, map(_part_problem, parts)), "")
    if path.startswith("/"):
        problem = "it is an absolute path"
    elif len(parts) > MAX_DEPTH:
        problem = f"it is deeper than {MAX_DEPTH} levels"
    if problem:
        raise InvalidRequest(
            f"Invalid file parameter {name[:200]!a}: {problem}; expected a path that stays within "
            f"the model's directory, such as '{PREFIX}1/model.onnx'"
        )
    return parts


def _part_problem(part: str) -> str:
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if part in ("", ".", ".."):
        return f"it has a part '{part}'"
    if "\0" in part:
        return "it has a NUL character"
    if "/" in part:
        return "it has a '/'"
    return f"a part is over {MAX_NAME_BYTES} bytes long" if size > MAX_NAME_BYTES else ""


def _write_all(model_dir: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = model_dir.joinpath(*_parts(name))
        _make_private(path.parent)
        _write(path, content)


def _make_private(folder: Path) -> None:
    """The folder, and those above it that are missing: `parents=True` would let all others in there."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
