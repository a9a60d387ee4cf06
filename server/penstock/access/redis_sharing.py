"""Servers that share their limits through Redis. One task talks to it; no request ever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from penstock.access.quota_scope import QuotaScope
from penstock.access.redis_script import arguments, parse
from penstock.access.shared_scope import SharedScope, SharedTokens
from penstock.errors import Unavailable
from penstock.quota_config import QuotaSettings

log = logging.getLogger(__name__)

GROUP_S: Final = 0.005
"""From one message to the next: what happens meanwhile goes together."""
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 1.0
"""From one try to find Redis again to the next."""
LOUD_S: Final = 10.0
"""From one line in the log about a reason why Redis is away to the next about the same one."""
MAX_SCOPES: Final = 200
"""Of one message, for Redis does nothing else while it answers."""


class Redis(Protocol):
    """A connection to Redis. Errors of its own are OSError or RedisAway."""

    async def ask(self, words: Sequence[str]) -> Sequence[Any]:
        """The script's answer to these arguments."""
        ...

    async def close(self) -> None:
        """End it; what comes next connects anew."""
        ...


class RedisAway(Exception):
    """It doesn't answer, or not as it should."""


class RedisSharing:
    """As `Sharing` says. Made and closed on the event loop."""

    def __init__(
        self,
        settings: QuotaSettings,
        redis: Redis,
        day: Callable[[], int],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`day`: which day (UTC) is counted now."""
        self._settings = settings
        self._redis = redis
        self._day = day
        self._now_ns = now_ns
        self.server: Final = uuid.uuid4().hex[:16]
        """Another one for each start: what a server before this one has used today stays used."""
        self.away = True
        """Nothing was heard of Redis yet, or no more."""
        self.servers = 1
        """That share, as far as is known."""
        self._scopes: dict[QuotaScope, SharedScope] = {}
        self._dirty: dict[SharedScope, None] = {}
        self._wake: Final = asyncio.Event()
        self._closing = False
        self._complaint: str | None = None
        """What the log was told last of why Redis is away; None: nothing since it was there."""
        self._told_at: dict[str, float] = {}
        """Each such reason, and when the log was told of it."""
        self._task: asyncio.Task[None] | None = None

    # ── what `Sharing` says ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """As `Sharing` says."""
        return self.away and self._settings.when_redis_is_away == "allow"

    @property
    def problem(self) -> Unavailable | None:
        """As `Sharing` says."""
        if not self.away or self._settings.when_redis_is_away != "refuse":
            return None
        return Unavailable("the quotas can't be looked up now", LONGEST_RETRY_S)

    def shares(self, scope: QuotaScope) -> tuple[SharedTokens, ...]:
        """As `Sharing` says."""
        shared = self._scopes.get(scope)
        if shared is None:
            # nothing of it is limited
            return ()
        return tuple(shared.tokens(bucket) for bucket in scope.limiting())

    def used(self, scope: QuotaScope) -> None:
        """As `Sharing` says."""
        shared = self._scopes.get(scope)
        if shared is not None:
            shared.touched = True
            self._dirty[shared] = None
            self._wake.set()

    def configured(self, scopes: Mapping[tuple[str, str], QuotaScope]) -> None:
        """As `Sharing` says."""
        wanted = set(scopes.values())
        for scope in wanted - self._scopes.keys():
            self._scopes[scope] = SharedScope(scope, self._settings.redis_chunk_percent / 100)
            self.used(scope)
        for scope, shared in list(self._scopes.items()):
            if scope not in wanted:
                del self._scopes[scope]
                self._dirty.pop(shared, None)
            elif shared.limits != scope.limits:
                shared.limits = scope.limits
                self.used(scope)

    # ── its life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to talk to Redis."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake.set()

    async def close(self) -> None:
        """Give back what this server holds, if Redis is there."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if not self.away:
            with contextlib.suppress(RedisAway, OSError, ValueError):
                await self._exchange(self._scopes.values(), idle=True, ends=True)
        await self._redis.close()

    async def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._closing:
            try:
                if self.away:
                    await self._come_back()
                await self._talk()
            except (RedisAway, OSError, ValueError) as error:
                self._lost(error)
                await self._redis.close()
                await self._pause(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
            except Exception:
                log.exception("quotas can't be shared")
                self._lost(None)
                await self._pause(LONGEST_RETRY_S)
            else:
                retry_s = FIRST_RETRY_S

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for the end."""
        until = asyncio.get_running_loop().time() + seconds
        while not self._closing and (left := until - asyncio.get_running_loop().time()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _talk(self) -> None:
        """One message, when there is something to say. An idle server that holds nothing says nothing."""
        lease_s = self._settings.redis_lease_secs
        waits = lease_s / 3 if any(shared.keeps for shared in self._scopes.values()) else None
        try:
            # not `wait_for`, which before Python 3.12 drops a cancellation that comes together with what it waits for
            async with asyncio.timeout(waits):
                await self._wake.wait()
        except TimeoutError:
            await self._renew()
            return
        self._wake.clear()
        if self._closing:
            return
        dirty = list(self._dirty)
        self._dirty.clear()
        try:
            await self._exchange(dirty)
        except BaseException:
            self._dirty.update(dict.fromkeys(dirty))
            raise
        if not any(shared.hungry for shared in dirty):
            await asyncio.sleep(GROUP_S)

    async def _renew(self) -> None:
        """Say that this server lives, and give back what nobody has used since the last time."""
        keeping = [shared for shared in self._scopes.values() if shared.keeps]
        resting = [s for s in keeping if not s.touched and not s.scope.in_flight]
        await self._exchange([s for s in keeping if s not in resting])
        await self._exchange(resting, idle=True)
        for shared in keeping:
            shared.touched = False
        for shared in resting:
            shared.rest(self.servers)

    async def _exchange(
        self, scopes: Iterable[SharedScope], *, idle: bool = False, ends: bool = False
    ) -> None:
        lease_us = 0 if ends else int(self._settings.redis_lease_secs * 1e6)
        waiting = iter(scopes)
        while group := list(islice(waiting, MAX_SCOPES)):
            asks = [shared.ask(idle=idle) for shared in group]
            day = self._day()
            words = arguments(self.server, lease_us, day, asks)
            reply = await self._answer(self._redis.ask(words))
            self.servers, answers = parse(reply, len(asks))
            for shared, ask, answer in zip(group, asks, answers, strict=True):
                # at midnight: what was said is of yesterday
                known = ask if day == self._day() else ask._replace(day=None)
                shared.hear(known, answer, self.servers, self._now_ns())

    async def _answer(self, asking: Awaitable[Sequence[Any]]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(self._settings.redis_timeout_secs):
                return await asking
        except TimeoutError:
            raise RedisAway(f"no answer within {self._settings.redis_timeout_secs:g} s") from None

    # ── Redis comes and goes ────────────────────────────────────────────────────────────────────────────────────────

    async def _come_back(self) -> None:
        await self._exchange(list(self._scopes.values()))
        if not self._scopes:
            await self._answer(self._redis.ask(arguments(self.server, 1_000_000, self._day(), ())))
        self.away = False
        self._complaint = None
        self._told_at.clear()
        log.info("quotas are shared through Redis")

    def _lost(self, error: Exception | None) -> None:
        if error is not None:
            self._complain(str(error))
        self.away = True
        for shared in self._scopes.values():
            shared.alone()

    def _complain(self, reason: str) -> None:
        """At once when it is away, from the start on, and when that has another reason; not with each try."""
        now = asyncio.get_running_loop().time()
        if reason == self._complaint or now - self._told_at.get(reason, -LOUD_S) < LOUD_S:
            return
        self._complaint = reason
        self._told_at[reason] = now
        what = {
            "local": "each server goes by the limits alone",
            "refuse": "requests that have a limit are refused",
            "allow": "all limits are off",
        }[self._settings.when_redis_is_away]
        log.error("Redis, which quotas are shared through, is away (%s): %s", reason, what)
