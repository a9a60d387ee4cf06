"""How long versions that are rolled out have been missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.gateway.rollout_run import RolloutRun


class Absence:
    """Of all roll-outs. Looks again when one has been missing for too long."""

    def __init__(self, longest_s: float, look: Callable[[RolloutRun], None]) -> None:
        self._longest_s = longest_s
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._since: dict[RolloutRun, float] = {}
        self._timers: dict[RolloutRun, asyncio.TimerHandle] = {}

    def is_long(self, run: RolloutRun) -> bool:
        """A version is missing now. Whether it has been for too long; it is looked at again when it will have been."""
        now = self._loop.time()
        since = self._since.setdefault(run, now)
        if now >= since + self._longest_s:
            return True
        if run not in self._timers:
            self._timers[run] = self._loop.call_at(since + self._longest_s, self._ring, run)
        return False

    def over(self, run: RolloutRun) -> None:
        """All is there, or it does not matter any more."""
        self._since.pop(run, None)
        timer = self._timers.pop(run, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Look no more."""
        for run in list(self._timers):
            self.over(run)

    def _ring(self, run: RolloutRun) -> None:
        del self._timers[run]
        self._look(run)
