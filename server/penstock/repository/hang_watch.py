"""Workers that are busy with one batch for too long are ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from penstock.repository.alarm import Alarm
from penstock.workers.instance import Instance


class HangWatch:
    """Watches the instances of a pool."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_us: float,
        instances: Callable[[], Iterable[Instance]],
        busy_since_us: Callable[[Instance], float | None],
        on_hung: Callable[[Instance, str], None],
    ) -> None:
        """`busy_since_us`: since when an instance runs its present batch; None: it has none. `on_hung` ends an
        instance, for the reason that it gets."""
        self._timeout_us = timeout_us
        self._instances = instances
        self._busy_since_us = busy_since_us
        self._on_hung = on_hung
        self._alarm = Alarm(loop, self._look)

    def began(self, now_us: float) -> None:
        """A batch was sent."""
        self._alarm.at(now_us + self._timeout_us, now_us)

    def cancel(self) -> None:
        """Watch no more."""
        self._alarm.cancel()

    def _look(self) -> None:
        now_us = time.monotonic_ns() / 1000
        for instance in list(self._instances()):
            since_us = self._busy_since_us(instance)
            if since_us is None:
                continue
            if now_us < since_us + self._timeout_us:
                self._alarm.at(since_us + self._timeout_us, now_us)
                continue
            seconds = f"{self._timeout_us / 1e6:g} s"
            self._on_hung(
                instance, f"killed, for it was busy with one batch for longer than {seconds}"
            )
