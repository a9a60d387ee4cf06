"""Runs a twin on one thread, or on several above a size that is worth it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

BYTES_PER_THREAD: Final = 256 * 1024
"""With less to touch, a second thread costs more than it brings: waking it takes about 20 µs."""


class Cpu:
    """This process's CPU. Its threads are started when they are first needed. To be used by one thread at a time."""

    def __init__(self, threads: int = 1) -> None:
        """Raises ValueError for less than one thread."""
        if threads < 1:
            raise ValueError(f"threads is {threads}; expected 1 or more")
        self.threads: Final = threads
        self._pool: ThreadPoolExecutor | None = None

    def split(self, count: int, touched_bytes: int, task: Callable[[int, int], None]) -> None:
        """Have `task(begin, end)` done for all of `count` rows, in as many parts as are worth it. A part that raises is
        raised here when all have ended."""
        parts = min(self.threads, count, max(1, touched_bytes // BYTES_PER_THREAD))
        if parts <= 1:
            if count:
                task(0, count)
            return
        borders = [count * part // parts for part in range(parts + 1)]
        pool = self._pool or self._start()
        others = [pool.submit(task, *span) for span in pairwise(borders[1:])]
        try:
            task(borders[0], borders[1])
        finally:
            problems = [other.exception() for other in others]
        for problem in problems:
            if problem is not None:
                raise problem

    def close(self) -> None:
        """End its threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _start(self) -> ThreadPoolExecutor:
        self._pool = ThreadPoolExecutor(self.threads - 1, "kernels")
        return self._pool
