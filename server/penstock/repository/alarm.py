"""One timer for many wishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings once, at the earliest time that was asked for; who still waits then asks anew."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at_us = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def at(self, when_us: float, now_us: float) -> None:
        """Ring then, or before."""
        if self._handle is not None:
            if self._at_us <= when_us:
                return
            self._handle.cancel()
        self._at_us = when_us
        self._handle = self._loop.call_later(max(0.0, when_us - now_us) / 1e6, self._rings)

    def cancel(self) -> None:
        """Don't."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rings(self) -> None:
        self._handle = None
        self._ring()
