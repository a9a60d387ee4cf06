"""The private folder of one run: sockets, settings, Envoy's configuration. Never used twice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.errors import Unavailable

LONGEST_PATH_BYTES: Final = 107 - len("/admin.sock")
"""Linux allows a Unix socket's path 107 bytes."""


@contextmanager
def run_dir(parent: Path | None) -> Iterator[Path]:
    """A new folder that only this user may enter, gone at the end.

    Raises Unavailable when it can't be made.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="penstock-", dir=parent)).absolute()
    except OSError as error:
        where = f"{parent}: " if parent else ""
        raise Unavailable(f"run_dir: {where}no folder can be made: {error.strerror}") from error
    try:
        if len(str(path).encode()) > LONGEST_PATH_BYTES:
            raise Unavailable(f"run_dir: {path} is too long for Unix sockets, choose a shorter one")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
