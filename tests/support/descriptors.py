"""Counts this process's descriptors, to see that none are left."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> set[int]:
    """Those that are open now."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.add(int(name))
    return found


@contextmanager
def none_left() -> Iterator[None]:
    """What is opened inside is closed at its end."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
