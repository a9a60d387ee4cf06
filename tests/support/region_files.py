"""Shared memory as a client makes it, whose size and content a test plays with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from served import region_key

_numbers = count(1)


@contextmanager
def region_file(content: bytes) -> Iterator[tuple[str, Path]]:
    """A new region of that content: its key, and its file, which may be gone before the end."""
    key = region_key(f"file-{next(_numbers)}")
    path = Path("/dev/shm") / key.lstrip("/")
    path.write_bytes(content)
    try:
        yield key, path
    finally:
        path.unlink(missing_ok=True)
