"""All of a server's quotas: limits that follow the store of tenants, and use that is kept there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from penstock.access.limits import Limits
from penstock.access.quotas import QuotaKeeper, TenantQuota
from penstock.access.redis_client import RedisClient
from penstock.access.redis_sharing import RedisSharing
from penstock.access.usage import UsageRow
from penstock.quota_config import QuotaSettings

log = logging.getLogger(__name__)


class TenantSource(Protocol):
    """What of the store of tenants quotas go by, and write to."""

    @property
    def generation(self) -> int:
        """Another one whenever there are other limits."""
        ...

    def refresh(self, now: float) -> object:
        """Look for changes, at most every 200 ms."""
        ...

    def limits(self) -> Mapping[tuple[str, str], Limits]:
        """All of them, as they were at the last look."""
        ...

    def weights(self) -> Mapping[str, float]:
        """Tenants' shares of a busy model, those that are set, likewise."""
        ...

    def add_usage(self, rows: Iterable[UsageRow]) -> None:
        """Keep them. It may wait for the disk. Raises PenstockError."""
        ...

    def usage_of(self, day: int) -> list[UsageRow]:
        """What is kept of that day. It may wait for the disk."""
        ...


class QuotaService:
    """One a gateway. Made, started and closed on the event loop."""

    def __init__(
        self,
        settings: QuotaSettings,
        source: TenantSource,
        password: Callable[[], str] | None = None,
        on_weights: Callable[[Mapping[str, float]], None] = lambda weights: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`password`: of Redis. `on_weights` hears of tenants' weights whenever they may be others.

        Raises ConfigError where Redis is to be used, and its package is not there.
        """
        self._settings = settings
        self._source = source
        self._on_weights = on_weights
        self._generation: int | None = None
        self.keeper: Final = QuotaKeeper(time.monotonic_ns(), wall, self._look)
        self.sharing: RedisSharing | None = None
        if settings.redis_url:
            client = RedisClient(settings, password)
            self.sharing = RedisSharing(settings, client, lambda: self.keeper.usage.day)
            self.keeper.share(self.sharing)
        else:
            # what servers share, Redis remembers
            self.keeper.restore(source.usage_of(self.keeper.usage.day))
        self._look(time.monotonic_ns())
        self._flushing: asyncio.Task[None] | None = None

    def of(self, tenant: str) -> TenantQuota:
        """The tenant's quota."""
        return self.keeper.of(tenant)

    def start(self) -> None:
        """Begin to write use to the store, and to share."""
        self._flushing = asyncio.get_running_loop().create_task(self._flush_for_ever())
        if self.sharing is not None:
            self.sharing.start()

    async def close(self) -> None:
        """Write what is not written yet, and give back what is shared."""
        if self._flushing is not None:
            self._flushing.cancel()
            # a write that is under way goes on in its thread: wait for that
            await asyncio.wait([self._flushing])
        await self.flush()
        if self.sharing is not None:
            await self.sharing.close()

    async def flush(self) -> None:
        """Write what was used since the last time. What can't be written stays, and is tried with the next."""
        rows = self.keeper.usage.take()
        if not rows:
            return
        writing = asyncio.ensure_future(asyncio.to_thread(self._source.add_usage, rows))
        try:
            await asyncio.wait([writing])
        finally:
            # cancelled: the thread goes on, and has to be waited for
            if not writing.done():
                await asyncio.wait([writing])
            self._written(writing, rows)

    def _written(self, writing: asyncio.Future[None], rows: list[UsageRow]) -> None:
        error = writing.exception()
        if error is not None:
            log.error("what tenants have used can't be written, and is kept in memory: %s", error)
            self.keeper.usage.put_back(rows)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.usage_flush_secs)
            await self.flush()

    def _look(self, now_ns: int) -> None:
        """Go by the limits that hold now."""
        self._source.refresh(now_ns / 1e9)
        generation = self._source.generation
        if generation != self._generation:
            self._generation = generation
            self.keeper.set_limits(self._source.limits(), now_ns)
            self._on_weights(self._source.weights())
