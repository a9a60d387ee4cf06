"""The private folder of one run: sockets, settings, Envoy's configuration. Never used twice."""

from __future__ import annotations

import logging
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from penstock.errors import Unavailable
from penstock.locked_folder import locked_folder, remove_abandoned

LONGEST_PATH_BYTES: Final = 107 - len("/admin.sock")
"""Linux allows a Unix socket's path 107 bytes."""


PREFIX: Final = "penstock-run-"

log = logging.getLogger(__name__)


@contextmanager
def run_dir(parent: Path | None) -> Iterator[Path]:
    """A new folder that only this user may enter, gone at the end. What runs have left that were killed is removed
    first: it may hold keys.

    Raises Unavailable when it can't be made.
    """
    folder = (parent or Path(tempfile.gettempdir())).absolute()
    for left in remove_abandoned(folder, PREFIX):
        log.warning("removed %s, which a server has left that was killed", left)
    path = folder / f"{PREFIX}{secrets.token_hex(4)}"
    if len(str(path).encode()) > LONGEST_PATH_BYTES:
        raise Unavailable(f"run_dir: {path} is too long for Unix sockets, choose a shorter one")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(path))
        except OSError as error:
            where = f"{parent}: " if parent else ""
            raise Unavailable(f"run_dir: {where}no folder can be made: {error.strerror}") from error
        yield path
