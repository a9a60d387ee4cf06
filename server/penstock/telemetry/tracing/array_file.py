"""A file that is a JSON array at every moment, and grows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_OPEN: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


def check_writable(path: str) -> None:
    """Raises OSError when no file can be written there. Leaves things as they are."""
    there = os.path.lexists(path)
    os.close(os.open(path, _OPEN, 0o644))
    if not there:
        os.unlink(path)


class ArrayFile:
    """Made empty by the constructor. Raises OSError from it and from `append`; the array stays whole all the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, _OPEN | os.O_TRUNC, 0o644)
        self._end = 0

    def append(self, elements: bytes) -> None:
        """Add elements, which are joined by commas already."""
        data = (b"," if self._end else b"[") + elements + b"]"
        start = max(self._end - 1, 0)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], start + written)
        except OSError:
            self._undo(start)
            raise
        self._end = start + len(data)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _undo(self, start: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._end)
            if self._end:
                os.pwrite(self._descriptor, b"]", start)
