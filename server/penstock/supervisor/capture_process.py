"""The process that writes captured requests: started again when it ends, and ended last, with all that it has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from penstock.capture.check import check_capture
from penstock.config import Settings
from penstock.secrets.source import SecretSource
from penstock.supervisor.child import Child, describe_exit
from penstock.workers.gateway_environment import SETTINGS_FILE

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
QUICK_S: Final = 30.0
"""One that ends earlier has crashed quickly: the next one is started later."""
STOP_S: Final = 15.0
"""To write what is left."""
SETTINGS_NAME: Final = "capture.json"


@contextlib.asynccontextmanager
async def capturing(settings: Settings) -> AsyncIterator[None]:
    """Around what is served. The writer ends after the gateway. Raises ConfigError where nothing could be kept."""
    if settings.capture.folder is None or settings.run_dir is None:
        yield
        return
    with contextlib.closing(SecretSource(settings.secrets)) as secrets:
        await asyncio.to_thread(
            check_capture, settings.capture, lambda reference: secrets.get(reference).reveal()
        )
    file = settings.run_dir / SETTINGS_NAME
    settings.write(file)
    process = CaptureProcess(file)
    process.start()
    try:
        yield
    finally:
        await process.stop()


class CaptureProcess:
    """Of one server."""

    def __init__(self, settings_file: Path) -> None:
        self._settings_file = settings_file
        self._child: Child | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to keep one running."""
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End it, once it has written what it has."""
        self._stopping = True
        if self._child is not None:
            self._child.terminate()
            if not await self._child.wait(STOP_S):
                log.error("the writer of captured requests did not end within %g s", STOP_S)
                self._child.kill()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._child is not None:
            await self._child.exited

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while not self._stopping:
            began_s = loop.time()
            why = await self._run()
            if self._stopping:
                return
            quick = loop.time() - began_s < QUICK_S
            delay_s = min(max(2 * delay_s, FIRST_DELAY_S), LONGEST_DELAY_S) if quick else 0.0
            log.error("the writer of captured requests ended: %s. It is started again.", why)
            await asyncio.sleep(delay_s)

    async def _run(self) -> str:
        """Until it has ended: how."""
        try:
            self._child = Child.start(
                [sys.executable, "-P", "-m", "penstock.capture.main"],
                {**os.environ, SETTINGS_FILE: str(self._settings_file)},
            )
        except OSError as error:
            return f"could not be started: {error.strerror}"
        return describe_exit(await asyncio.shield(self._child.exited))
