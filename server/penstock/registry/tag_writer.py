"""Writes tags of versions, however long that takes: of several values of one tag the last holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.errors import PenstockError, Unavailable

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
CALM_S: Final = 5.0
"""From one write of a deployment's tag to the next."""

Key = tuple[str, int, str]
"""Registered model, version, tag."""
Write = Callable[[str, int, str, str], Awaitable[None]]


@dataclass(slots=True)
class _Pending:
    value: str
    due_at: float
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class TagWriter:
    """What is to be written, and one task that does it."""

    def __init__(self, write: Write) -> None:
        """`write` raises Unavailable where trying again may work, and other PenstockErrors where it won't."""
        self._write: Final = write
        self._pending: Final[dict[Key, _Pending]] = {}
        self._written: Final[dict[Key, tuple[str, float]]] = {}
        """Tags of deployments → what was written last, and when."""
        self._news = asyncio.Event()
        self._misses = 0
        self.count = 0
        """Of tags written."""

    def put(self, model: str, version: int, tags: Mapping[str, str]) -> list[asyncio.Future[None]]:
        """Have them written. Each future is done when its tag is, or holds why it never will be."""
        return [self._put((model, version, name), value, 0.0) for name, value in tags.items()]

    def put_calmly(self, model: str, version: int, name: str, value: str) -> None:
        """Have it written if it is another value, and not more often than every few seconds."""
        key = model, version, name
        last, at = self._written.get(key, ("", float("-inf")))
        pending = self._pending.get(key)
        if value != (pending.value if pending else last):
            # nobody waits for it; what fails was logged
            self._put(key, value, at + CALM_S).add_done_callback(_look_at)
            self._written.setdefault(key, (last, at))

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._wait()
            for key in self._due():
                if not await self._write_one(key):
                    break

    async def flush(self, timeout_s: float) -> None:
        """Write what is pending, as far as that can be done in this time."""
        try:
            async with asyncio.timeout(timeout_s):
                for key in list(self._pending):
                    if not await self._write_one(key):
                        return
        except TimeoutError:
            return

    def _put(self, key: Key, value: str, due_at: float) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self._pending.get(key)
        waiting = before.waiting if before is not None else []
        self._pending[key] = _Pending(value, due_at, [*waiting, done])
        self._news.set()
        return done

    async def _wait(self) -> None:
        """Until something is due."""
        loop = asyncio.get_running_loop()
        if self._misses:
            delay_s: float = min(FIRST_RETRY_S * 2.0 ** (self._misses - 1), LONGEST_RETRY_S)
            await asyncio.sleep(delay_s)
        while not self._due():
            self._news.clear()
            next_at = min((p.due_at for p in self._pending.values()), default=None)
            timeout_s = None if next_at is None else max(next_at - loop.time(), 0)
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except TimeoutError:
                continue

    def _due(self) -> list[Key]:
        now = asyncio.get_running_loop().time()
        return [key for key, pending in self._pending.items() if pending.due_at <= now]

    async def _write_one(self, key: Key) -> bool:
        """Whether to go on with others."""
        pending = self._pending.get(key)
        if pending is None:
            return True
        model, version, name = key
        problem: PenstockError | None = None
        try:
            await self._write(model, version, name, pending.value)
        except Unavailable as error:
            if not self._misses:
                log.warning("tag '%s' of '%s' version %d waits: %s", name, model, version, error)
            self._misses += 1
            return False
        except PenstockError as error:
            log.warning(
                "tag '%s' of '%s' version %d can't be written: %s", name, model, version, error
            )
            problem = error
        self._misses = 0
        self._done(key, pending, problem)
        return True

    def _done(self, key: Key, pending: _Pending, problem: PenstockError | None) -> None:
        if problem is None:
            self.count += 1
        if key in self._written:
            self._written[key] = pending.value, asyncio.get_running_loop().time()
        if (now := self._pending.get(key)) is pending:
            del self._pending[key]
        elif now is not None:
            # a newer value has come meanwhile: it alone is waited for
            now.waiting = [each for each in now.waiting if each not in pending.waiting]
        for waiting in pending.waiting:
            if waiting.done():
                continue
            if problem is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(problem)


def _look_at(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
