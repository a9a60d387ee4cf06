"""Questions to the registry, each in a thread, and what came of them in numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from penstock.errors import PenstockError, Unavailable
from penstock.registry.messages import RegistryCounts
from penstock.registry.source import Registry

THREADS: Final = 2

T = TypeVar("T")


class Asking:
    """For one event loop."""

    def __init__(self, connect: Callable[[], Registry]) -> None:
        """`connect` blocks: MLflow takes seconds to import. It is called for the first question."""
        self._connect: Final = connect
        self._connecting: Final = asyncio.Lock()
        self._threads: Final = ThreadPoolExecutor(THREADS, "registry")
        self.registry: Registry | None = None
        """Once it can be asked."""
        self.counts = RegistryCounts()

    async def __call__(self, question: Callable[[Registry], T]) -> T:
        """Its answer. Raises what the registry does."""
        try:
            registry = await self._connected()
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, question, registry)
        except Unavailable:
            self._done(reachable=False)
            raise
        except OSError as error:
            self._done(reachable=False)
            raise Unavailable(f"the registry can't be asked: {error}") from error
        except PenstockError:
            self._done(reachable=True)
            raise
        self._done(reachable=True)
        return answer

    def count(self, **more: int) -> None:
        """So many more of each."""
        now = self.counts
        added = {name: getattr(now, name) + number for name, number in more.items()}
        self.counts = msgspec.structs.replace(now, **added)

    def close(self) -> None:
        """Its threads end with what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, *, reachable: bool) -> None:
        self.count(requests=1, failures=0 if reachable else 1)
        last = time.time() if reachable else self.counts.last_contact_s
        self.counts = msgspec.structs.replace(self.counts, reachable=reachable, last_contact_s=last)

    async def _connected(self) -> Registry:
        """Raises Unavailable."""
        async with self._connecting:
            if self.registry is not None:
                return self.registry
            loop = asyncio.get_running_loop()
            try:
                registry = await loop.run_in_executor(self._threads, self._connect)
            except PenstockError as error:
                raise Unavailable(str(error)) from error
            self.registry = registry
            return registry
