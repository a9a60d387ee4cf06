"""Models that lie outside of the repositories, and are added while the server runs: links in a folder of its own.

So they have names that their folders need not have, and a gateway that takes over from one that crashed finds them.
"""

from __future__ import annotations

import os
from pathlib import Path

from penstock.errors import AlreadyExists


class LinkedModels:
    """The links. The folder is made by the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def folders(self) -> dict[str, Path]:
        """Name → where the model really lies."""
        if not self.folder.is_dir():
            return {}
        return {link.name: link.readlink() for link in sorted(self.folder.iterdir())}

    def add(self, name: str, model_dir: Path) -> None:
        """Make the model known. Raises AlreadyExists where the name is taken."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            os.symlink(model_dir, self.folder / name)
        except FileExistsError:
            raise AlreadyExists(f"model '{name}' is there already") from None

    def remove(self, name: str) -> None:
        """Forget it."""
        (self.folder / name).unlink(missing_ok=True)
