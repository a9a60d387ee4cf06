"""The thread that writes traces: nothing of it may hold the event loop up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol

from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.trace import Trace

log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Traces that wait to be written; those that come beyond are dropped."""
CLOSE_S: Final = 5.0


class Destination(Protocol):
    """Where traces go. Made, and called, by the thread alone."""

    problem: str
    """Why the last trace could not be written; empty: it could. Read by the event loop."""

    def write(self, trace: Trace) -> None:
        """Write an ended trace."""

    def retire(self, sampler: Sampler) -> None:
        """No trace of it comes any more."""

    def close(self) -> None:
        """Complete what was begun."""


class TraceWriter:
    """Takes traces from the event loop. The thread starts with the first of them."""

    def __init__(self, make: Callable[[], Destination]) -> None:
        self._make = make
        self._queue: SimpleQueue[Trace | Sampler | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._destination: Destination | None = None
        self._dropping = False

    @property
    def problem(self) -> str:
        """Why traces are not written; empty: they are."""
        if self._dropping:
            return "traces come faster than they can be written"
        return "" if self._destination is None else self._destination.problem

    def put(self, trace: Trace) -> None:
        """Have an ended trace written."""
        if self._queue.qsize() >= MAX_WAITING:
            if not self._dropping:
                log.warning("traces come faster than they can be written: some are dropped")
            self._dropping = True
            return
        self._dropping = False
        self._queue.put(trace)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread.start()

    def retire(self, sampler: Sampler) -> None:
        """No trace of it comes any more."""
        if self._thread is not None:
            self._queue.put(sampler)

    def close(self) -> None:
        """Write what is left, for a few seconds at most."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        destination = self._destination = self._make()
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, Trace):
                    destination.write(item)
                else:
                    destination.retire(item)
            except Exception:
                log.exception("a trace could not be written")
        destination.close()
