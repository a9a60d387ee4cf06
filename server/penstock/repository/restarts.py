"""Workers that crashed are started anew, later and later while they go on crashing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.errors import PenstockError
from penstock.telemetry.statistics import ModelStatistics
from penstock.workers.instance import Instance

log = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.1
LAST_BACKOFF_S: Final = 30.0
STABLE_S: Final = 10.0
"""A worker that lived this long starts the back-off anew."""

PATIENCE: Final = 5
"""Crashes in a row, without one instance left, that new requests wait out; after more they are refused at once."""

UNKNOWN_RESTART_S: Final = 1.0
"""Taken for a restart's time before there was one."""

StartInstance = Callable[[int], Awaitable[Instance]]
"""Starts and loads the instance of that index."""


class Restarts:
    """Knows each instance by its index. `on_started` gets a new one, `on_refused` why there was none."""

    def __init__(
        self,
        start: StartInstance,
        statistics: ModelStatistics,
        on_started: Callable[[Instance, int], None],
        on_refused: Callable[[Exception], None],
    ) -> None:
        self._start = start
        self._statistics = statistics
        self._on_started = on_started
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._started_at: dict[int, float] = {}
        self._crashes: dict[int, int] = {}
        self._failed: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_s = UNKNOWN_RESTART_S
        """How long the last restart took, without its back-off."""

    @property
    def soon(self) -> bool:
        """Some instance should soon be back."""
        return any(
            crashes <= PATIENCE and index not in self._failed
            for index, crashes in self._crashes.items()
        )

    def started(self, index: int) -> None:
        """The instance of that index is there."""
        self._started_at[index] = self._loop.time()

    def crashed(self, index: int) -> None:
        """It is gone: start another in its place."""
        if self._loop.time() - self._started_at.pop(index) > STABLE_S:
            self._crashes[index] = 0
        self._crashes.setdefault(index, 0)
        task = self._loop.create_task(self._until_loaded(index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forgive(self) -> None:
        """It is known what the workers died of, and that won't happen again: this is no loop."""
        for index in self._crashes:
            self._crashes[index] = 0

    def close(self) -> None:
        """Start no more."""
        for task in self._tasks:
            task.cancel()

    async def _until_loaded(self, index: int) -> None:
        while True:
            crashes = self._crashes[index] = self._crashes[index] + 1
            if crashes > 1:
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2.0 ** (crashes - 2), LAST_BACKOFF_S))
            self._statistics.worker_restarts += 1
            began = self._loop.time()
            try:
                instance = await self._start(index)
            except (PenstockError, OSError) as error:
                log.error("model %s can't be started anew: %s", self._statistics.model, error)  # noqa: TRY400
                self._failed.add(index)
                self._on_refused(error)
                continue
            self.last_s = self._loop.time() - began
            self._failed.discard(index)
            self._on_started(instance, index)
            return
