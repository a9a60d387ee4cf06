"""Private copies of models: what was verified, and nothing else, lies in them, and workers load from there.

They lie in a folder of the run, those that hold decrypted files in memory where there is such a folder. A copy lives as
long as the version that was loaded from it; the gateway after one that crashed finds those that are served.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from penstock.errors import Unavailable

_DESCRIPTION: Final = "staged.json"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a version while it was copied."""

    model: str
    version: int
    key: bytes
    """What it was copied from, as `model_source.py` tells one from another."""
    signer: str = ""
    """Empty: nobody's signature was asked for."""
    serial: int = 0
    released: bool = False
    """It has a serial number."""
    digest: str = ""
    """Of its manifest."""
    shared: str = ""
    """Of what all versions share of it."""
    encrypted: bool = False
    files: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """One copy. `close` removes it."""

    root: Path
    verified: Verified

    @property
    def model_dir(self) -> Path:
        """It ends in the model's name, as all do that models are loaded from."""
        return self.root / "model" / self.verified.model

    def close(self) -> None:
        """Nobody loads from it any more. It blocks."""
        shutil.rmtree(self.root, ignore_errors=True)


class Draft:
    """A copy that is being made."""

    def __init__(self, root: Path, model: str, *, in_memory: bool) -> None:
        self.in_memory: Final = in_memory
        """It may hold what was decrypted."""
        self.root: Final = root
        self.model_dir: Final = root / "model" / model

    def create(self, path: str) -> BinaryIO:
        """A new file in it, to write and to read. Raises OSError."""
        target = self.model_dir / path
        self.make_folder(target.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(target, flags, 0o600), "w+b")

    def make_folder(self, folder: Path) -> None:
        """One in it, and those above it."""
        if not folder.is_dir():
            self.make_folder(folder.parent)
            folder.mkdir(mode=0o700)

    def finish(self, verified: Verified) -> Staged:
        """All is there. Raises OSError."""
        unfinished = self.root / f"{_DESCRIPTION}.new"
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(verified))
        unfinished.rename(self.root / _DESCRIPTION)
        return Staged(self.root, verified)

    def drop(self) -> None:
        """It is of no use."""
        shutil.rmtree(self.root, ignore_errors=True)


class Staging:
    """All copies of a run. Its methods block."""

    def __init__(self, folder: Path | None, memory: Path | None) -> None:
        """`folder` for what is in plain on disk too, `memory` for what is decrypted; None: there is none."""
        self._folders: Final = {False: folder, True: memory}
        self._numbers = itertools.count(1)
        self._inherited: list[Staged] = []

    def draft(self, model: str, *, in_memory: bool) -> Draft:
        """A new one. Raises Unavailable, OSError."""
        parent = self._folders[in_memory]
        if parent is None:
            raise Unavailable(
                "this server has no folder of its own for the models that it verifies"
            )
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o700)
        draft = Draft(parent / str(next(self._numbers)), model, in_memory=in_memory)
        draft.root.mkdir(mode=0o700)
        draft.make_folder(draft.model_dir)
        return draft

    def inherit(self) -> None:
        """Find what an earlier gateway of this run has left. What it was about to make is removed."""
        highest = 0
        for parent in filter(None, self._folders.values()):
            for root in _numbered(parent):
                highest = max(highest, int(root.name))
                staged = _read(root)
                if staged is None:
                    shutil.rmtree(root, ignore_errors=True)
                else:
                    self._inherited.append(staged)
        self._numbers = itertools.count(highest + 1)

    def inherited(self, model: str, version: int, key: bytes | None = None) -> Staged | None:
        """What the earlier gateway made of this version, of just these files; None: of any, and the oldest, for a newer
        one was about to take over."""
        for staged in self._inherited:
            found = staged.verified
            if (found.model, found.version) == (model, version) and key in (None, found.key):
                return staged
        return None

    def claim(self, staged: Staged) -> Staged:
        """It is served by this gateway too, and is its user's to close."""
        self._inherited.remove(staged)
        return staged

    def end_unclaimed(self) -> None:
        """All that is to be served is loaded: the rest is of no use."""
        for staged in self._inherited:
            staged.close()
        self._inherited.clear()


def _numbered(parent: Path) -> Iterable[Path]:
    try:
        names = [name for name in os.listdir(parent) if name.isascii() and name.isdigit()]
    except FileNotFoundError:
        return ()
    return [parent / name for name in sorted(names, key=int)]


def _read(root: Path) -> Staged | None:
    try:
        verified = msgspec.json.decode((root / _DESCRIPTION).read_bytes(), type=Verified)
    except (OSError, msgspec.DecodeError):
        return None
    return Staged(root, verified)
