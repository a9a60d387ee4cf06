"""Keeps what roll-outs have seen, from time to time: a crash costs no more of it."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.gateway.rollout_index import RolloutIndex
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_run import RolloutRun

SAVE_S: Final = 5.0
"""From one time to the next."""


class RolloutSaving:
    """Of all roll-outs, as long as one splits requests."""

    def __init__(self, index: RolloutIndex, keeper: RolloutKeeper) -> None:
        self._index = index
        self._keeper = keeper
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """One splits requests from now on."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_S, self._ring)

    def close(self) -> None:
        """For the last time."""
        if self._timer is not None:
            self._timer.cancel()
        self._save(self._index.under_way())

    def _ring(self) -> None:
        self._timer = None
        going = [run for run in self._index.under_way() if run.begun]
        self._save(going)
        if going:
            self.begin()

    def _save(self, runs: list[RolloutRun]) -> None:
        for run in runs:
            if run.changed:
                self._keeper.save_soon(run.kept())
