"""The registry agent's process: started where there is a registry, and again with back-off when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from penstock.config import Settings
from penstock.errors import ConfigError, Unavailable
from penstock.locked_folder import locked_folder, remove_abandoned
from penstock.registry.agent import QUIET
from penstock.registry.entries import has_entries
from penstock.secrets_config import variables_of
from penstock.supervisor.child import Child, describe_exit
from penstock.supervisor.run_dir import PREFIX
from penstock.workers.gateway_environment import SETTINGS_FILE

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 30.0
"""Before the next start; doubles with each agent that has ended soon."""
SOON_S: Final = 60.0
GRACE_S: Final = 4.0
"""Of the agent at the end: it says that nothing is served any more."""

log = logging.getLogger(__name__)


def has_registry(settings: Settings) -> bool:
    """Whether anything is to be taken from a registry. Raises ConfigError where that can't be."""
    if not settings.registry.given and not has_entries(settings.model_repository):
        return False
    if find_spec("mlflow") is None:
        raise ConfigError(
            "models of a registry need packages that are not installed: pip install 'penstock[mlflow]'"
        )
    return True


@contextlib.contextmanager
def registry_view(settings: Settings, run_dir: Path) -> Iterator[None]:
    """The folder in which the agent puts what is served, gone at the end. What servers have left that were killed is
    removed first. Raises Unavailable when it can't be made."""
    view = settings.registry.view_of(run_dir)
    with contextlib.ExitStack() as stack:
        try:
            view.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in remove_abandoned(view.parent, PREFIX):
                log.info("removed %s, which a server has left that was killed", left)
            stack.enter_context(locked_folder(view))
        except OSError as error:
            raise Unavailable(
                f"registry.cache_folder: {view.parent}: no folder can be made: {error.strerror}"
            ) from error
        yield


class RegistryAgent:
    """Runs one agent after the other. Create it on the main thread: the kernel ends a child with its thread."""

    def __init__(self, settings: Settings, settings_file: Path) -> None:
        registry = variables_of(settings.registry) | variables_of(settings.secrets)
        hidden = variables_of(settings) - registry
        self._environment: Final = {
            **{name: value for name, value in os.environ.items() if name not in hidden},
            **QUIET,
            SETTINGS_FILE: str(settings_file),
        }
        self._child: Child | None = None
        self._running: Final = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """End it."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self._child is not None:
            await self._child.stop(GRACE_S)

    def kill(self) -> None:
        """End it at once; `close` waits for it."""
        if self._child is not None:
            self._child.kill()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = FIRST_DELAY_S
        while True:
            started = loop.time()
            reason = await self._run_one()
            delay_s = FIRST_DELAY_S if loop.time() - started > SOON_S else delay_s
            log.warning(
                "the registry agent ended: %s. It is started again in %g s.", reason, delay_s
            )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def _run_one(self) -> str:
        """Returns how it ended."""
        # -P: an mlflow.py in the current folder must not be taken for MLflow
        argv = [sys.executable, "-P", "-m", "penstock.registry.agent"]
        try:
            self._child = child = Child.start(argv, self._environment)
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        status = await asyncio.shield(child.exited)
        self._child = None
        return describe_exit(status)
