"""Asks the application itself whether it lives: a blocked event loop looks healthy from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from penstock.supervisor.local_http import Endpoint, request

OPEN_POLL_S: Final = 0.02
_PROBE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """How often, how long, how many times."""

    interval_s: float = 5.0
    timeout_s: float = _PROBE_TIMEOUT_S
    misses: int = 3


async def wait_until_live(endpoint: Endpoint) -> None:
    """Returns when the application answers for the first time."""
    while True:
        if await is_live(endpoint, _PROBE_TIMEOUT_S):
            return
        await asyncio.sleep(OPEN_POLL_S)


async def wait_until_dead(endpoint: Endpoint, timing: ProbeTiming, started: asyncio.Event) -> str:
    """Returns, with a reason, when the application misses several probes in a row.

    Misses count from the first answer on, or since `started` is set: loading may take its time.
    """
    misses = 0
    while misses < timing.misses:
        await asyncio.sleep(timing.interval_s)
        if await is_live(endpoint, timing.timeout_s):
            started.set()
            misses = 0
        elif started.is_set():
            misses += 1
    return f"it did not answer {misses} health checks in a row"


async def is_live(endpoint: Endpoint, timeout_s: float) -> bool:
    """Whether the application answers now."""
    try:
        status, _ = await request(endpoint, "GET", "/v2/health/live", timeout_s)
    except OSError:
        return False
    return status == 200
