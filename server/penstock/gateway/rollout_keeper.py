"""Keeps roll-outs and default versions in their folder, one after the other, beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from penstock.errors import PenstockError, Unavailable
from penstock.gateway.rollout_store import KeptRollout, RolloutStore

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class RolloutKeeper:
    """One a gateway."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")
        self.defaults: dict[str, int] = {}
        """Model → which version answers requests that name none."""
        self.problem = ""
        """Why nothing can be kept; empty: it can."""

    async def load(self) -> list[KeptRollout]:
        """All that an earlier server, or gateway, has left."""
        try:
            defaults, kept = await self._do(self._store.load)
        except Unavailable as error:
            self.problem = str(error)
            log.warning("%s", error)
            # what was decided for these models holds here too
            self.defaults |= await self._do(self._store.defaults)
            return []
        self.defaults |= defaults
        return kept

    async def save(self, kept: KeptRollout) -> None:
        """Returns when it is on the disk. Raises Unavailable."""
        await self._do(lambda: self._store.save(kept))

    def save_soon(self, kept: KeptRollout) -> None:
        """As `save`, for what holds already."""
        self._later(lambda: self._store.save(kept))

    async def set_default(self, model: str, version: int) -> None:
        """Returns when it is on the disk. Raises Unavailable."""
        versions = {**self.defaults, model: version}
        await self._do(lambda: self._store.save_defaults(versions))
        self.defaults[model] = version

    def set_default_soon(self, model: str, version: int) -> None:
        """As `set_default`, for what holds already."""
        self.defaults[model] = version
        versions = dict(self.defaults)
        self._later(lambda: self._store.save_defaults(versions))

    async def remove(self, model: str) -> None:
        """Forget the model's roll-out. Raises Unavailable."""
        await self._do(lambda: self._store.remove(model))

    def close(self) -> None:
        """Returns when all is on the disk."""
        self._thread.shutdown(wait=True)
        self._store.close()

    async def _do(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _later(self, work: Callable[[], None]) -> None:
        self._thread.submit(work).add_done_callback(_log_problem)


def _log_problem(done: Future[None]) -> None:
    error = done.exception()
    if isinstance(error, PenstockError):
        log.error("%s. What is decided holds all the same, until the server ends", error)
    elif error is not None:
        log.error("roll-outs can't be kept", exc_info=error)
