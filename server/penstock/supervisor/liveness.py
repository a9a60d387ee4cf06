"""Asks the application itself whether it lives: a blocked event loop looks healthy from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.supervisor.local_http import Endpoint, request
from penstock.workers.supervisor_messages import Ping, Pong

OPEN_POLL_S: Final = 0.02
_PROBE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """How often, how long, how many times."""

    interval_s: float = 5.0
    timeout_s: float = _PROBE_TIMEOUT_S
    misses: int = 3


class Probe(Protocol):
    """One way to ask."""

    async def ask(self, timeout_s: float) -> None:
        """Returns when the application has answered. Raises OSError when it has not, in that time."""
        ...


class HttpProbe:
    """Asks as clients do, through the front."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def ask(self, timeout_s: float) -> None:
        status, _ = await request(self._endpoint, "GET", "/v2/health/live", timeout_s)
        if status != 200:
            raise OSError(f"answered {status}")


class PingProbe:
    """Asks the front and the application apart, where the front lets in only who has a certificate: whether the one
    listens, and says that it is ready where it can, and whether the other's event loop turns."""

    def __init__(
        self, send: Callable[[Ping], None], address: tuple[str, int] | None, admin: Path | None
    ) -> None:
        """`admin`: Envoy's admin socket."""
        self._send = send
        self._address = address
        self._admin = admin
        self._number = 0
        self._answers: dict[int, asyncio.Event] = {}

    def take(self, pong: Pong) -> None:
        """An answer of the application's."""
        if (answer := self._answers.get(pong.number)) is not None:
            answer.set()

    async def ask(self, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            if self._admin is not None:
                await self._ask_envoy(self._admin, timeout_s)
            elif self._address is not None:
                _, writer = await asyncio.open_connection(*self._address)
                writer.close()
            await self._ping()

    async def _ask_envoy(self, admin: Path, timeout_s: float) -> None:
        status, _ = await request(admin, "GET", "/ready", timeout_s)
        if status != 200:
            raise OSError(f"Envoy's /ready answered {status}")

    async def _ping(self) -> None:
        self._number += 1
        number, answer = self._number, asyncio.Event()
        self._answers[number] = answer
        try:
            self._send(Ping(number))
            await answer.wait()
        finally:
            del self._answers[number]


async def wait_until_live(probe: Probe) -> None:
    """Returns when the application answers for the first time."""
    while True:
        if await is_live(probe, _PROBE_TIMEOUT_S):
            return
        await asyncio.sleep(OPEN_POLL_S)


async def wait_until_dead(probe: Probe, timing: ProbeTiming, started: asyncio.Event) -> str:
    """Returns, with a reason, when the application misses several probes in a row.

    Misses count from the first answer on, or since `started` is set: loading may take its time.
    """
    misses = 0
    while misses < timing.misses:
        await asyncio.sleep(timing.interval_s)
        if await is_live(probe, timing.timeout_s):
            started.set()
            misses = 0
        elif started.is_set():
            misses += 1
    return f"it did not answer {misses} health checks in a row"


async def is_live(probe: Probe, timeout_s: float) -> bool:
    """Whether the application answers now."""
    try:
        await probe.ask(timeout_s)
    except OSError:
        return False
    return True
