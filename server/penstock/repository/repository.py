"""All models of a server: found in folders, loaded, listed, looked up, unloaded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from penstock.backends.registry import backend_for
from penstock.config import Settings
from penstock.errors import (
    InvalidRequest,
    LoadFailed,
    PenstockError,
    Unavailable,
)
from penstock.logs import LogSettings
from penstock.model_config import ConfigDict
from penstock.repository.config_file import read_config
from penstock.repository.entries import UNLOADED, ModelEntry, VersionEntry, idle_line
from penstock.repository.folders import find_models, no_folder, only_folder, versions_in
from penstock.repository.index import ModelIndex
from penstock.repository.instance_starter import worker_prefix
from penstock.repository.linked_models import LinkedModels
from penstock.repository.model_calls import ModelCalls
from penstock.repository.nested import NestedCalls
from penstock.repository.sequence_handover import Handovers
from penstock.repository.served_model import load
from penstock.repository.version_policy import version_policy
from penstock.workers.control import ControlLink
from penstock.workers.messages import ModelReport

log = logging.getLogger(__name__)


class ModelRepository(ModelIndex):
    """The index of all models, and their life."""

    def __init__(
        self, settings: Settings, link: ControlLink, linked: LinkedModels | None = None
    ) -> None:
        """`linked`: models that are added while the server runs."""
        super().__init__()
        self._settings = settings
        self._link = link
        self._linked = linked
        link.logging = settings.log_settings
        self._loads = asyncio.Semaphore(settings.model_load_thread_count)
        self.handovers = Handovers()
        self._calls = ModelCalls(NestedCalls(self), self)

    def check_control_allowed(self) -> None:
        """Raises Unavailable unless models may be loaded and unloaded by request."""
        if self._settings.model_control_mode != "explicit":
            raise Unavailable(
                "explicit model load / unload is not allowed if polling is enabled or the server was not started "
                "with --model-control-mode=explicit"
            )

    def set_logging(self, settings: LogSettings) -> None:
        """What all workers log from now on, those that run and those to come."""
        self._link.logging = settings
        for model in self.served():
            model.pool.tell_logging()

    async def listing(self) -> list[ModelReport]:
        """The index, and what the folders hold beside it: models that nobody has asked to load yet."""
        try:
            found = await asyncio.to_thread(self._find)
        except OSError as error:
            log.warning("the model repository can't be read: %s", error)
            found = {}
        idle = [idle_line(name) for name in found if name not in self._entries]
        return sorted([*self.index(), *idle], key=lambda line: line.name)

    async def start(self) -> None:
        """Find all models and load those the control mode says, or those that the gateway before this one, which
        crashed, was to serve. Failures are lines of the index."""
        found = self._find()
        inherited = await self._link.inherited()
        wanted: Iterable[str] = found
        if self._settings.model_control_mode == "explicit":
            if inherited is not None:
                wanted = inherited
            elif "*" not in self._settings.load_model:
                wanted = self._settings.load_model
        await asyncio.gather(*(self._load_all_versions(name, found.get(name)) for name in wanted))
        self._link.end_unclaimed()
        self._starting = False

    async def load(self, name: str) -> None:
        """Load a model, or load it anew: its new versions take over when they are ready, and the old ones drain.

        Raises LoadFailed, naming each version's reason; what was served before goes on being served.
        """
        folders = self._find().get(name)
        if folders is None and name not in self._entries:
            # no line of the index for a name that somebody made up
            reason = no_folder(name, self._settings.model_repository)
            raise LoadFailed(f"failed to load '{name}', {reason}")
        await self._load_all_versions(name, folders)
        entry = self._entries[name]
        reasons = [
            f"version {number}: {version.reason}"
            for number, version in entry.versions.items()
            if version.reason
        ]
        if reasons or not entry.versions:
            raise LoadFailed(f"failed to load '{name}', {'; '.join(reasons) or entry.reason}")

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that are here are answered. Raises InvalidRequest when it is not known."""
        entry = self._entries.get(name)
        if entry is None and name in await asyncio.to_thread(self._find):
            return
        if entry is None:
            raise InvalidRequest(f"failed to unload '{name}', model is not loaded")
        async with entry.lock:
            entry.wanted = False
            self._changed()
            await asyncio.gather(*(self._unload_version(e) for e in entry.versions.values()))

    def forget(self, name: str) -> None:
        """Leave a model that was unloaded out of the index, for its folder is gone."""
        entry = self._entries.get(name)
        if entry is not None and not any(version.model for version in entry.versions.values()):
            del self._entries[name]
            self._changed()

    async def close(self) -> None:
        """End all models at once: the front has answered all requests by now."""
        await asyncio.gather(*(model.close(0) for model in self.served()))

    def _find(self) -> dict[str, list[Path]]:
        folders = self._settings.model_repository
        if self._linked is not None and self._linked.folder.is_dir():
            folders = (*folders, self._linked.folder)
        return find_models(folders)

    async def _load_all_versions(self, name: str, folders: list[Path] | None) -> None:
        entry = self._entries.setdefault(name, ModelEntry(name))
        async with entry.lock:
            entry.wanted = True
            try:
                folder = only_folder(name, folders, self._settings.model_repository)
                config = await asyncio.to_thread(read_config, folder)
                versions = version_policy(config, versions_in(folder))
                if not versions:
                    raise LoadFailed(f"no version folder (a number, such as 1/) in {folder}")
            except (PenstockError, OSError) as error:
                self._unavailable(entry, str(error))
                return
            await asyncio.gather(*(self._load_version(entry, folder, v, config) for v in versions))
            if any(entry.versions[number].reason for number in versions):
                return
            # only now that their successors serve
            for number in entry.versions.keys() - set(versions):
                await self._unload_version(entry.versions.pop(number), replaced=True)

    def _unavailable(self, entry: ModelEntry, reason: str) -> None:
        entry.reason = reason
        for version in entry.versions.values():
            version.reason = reason
        log.error("model '%s' can't be loaded: %s", entry.name, reason)
        self._changed()

    async def _load_version(
        self, entry: ModelEntry, folder: Path, number: int, config: ConfigDict | None
    ) -> None:
        version = entry.versions.setdefault(number, VersionEntry("LOADING"))
        async with self._turn(entry.name, number):
            for attempt in range(self._settings.model_load_retry_count + 1):
                try:
                    complete = dict(config or {"name": entry.name})
                    version.backend = backend_for(complete, folder / str(number))
                    complete["backend"] = version.backend
                    model = await load(
                        self._link,
                        self._settings,
                        folder,
                        number,
                        complete,
                        self._changed,
                        self._calls,
                    )
                    break
                except PenstockError as error:
                    version.reason = str(error)
                    log.error(  # noqa: TRY400 - the reason says it all
                        "model '%s' version %d can't be loaded (attempt %d): %s",
                        entry.name,
                        number,
                        attempt + 1,
                        error,
                    )
            else:
                if version.model is None:
                    version.state = "UNAVAILABLE"
                self._changed()
                return
        old, version.model = version.model, model
        version.state, version.reason = "READY", ""
        self._changed()
        if old is not None:
            await self.handovers.retire(old, self._settings.exit_timeout_secs, self.served)

    def _turn(self, name: str, number: int) -> AbstractAsyncContextManager[None]:
        """To load a version, which waits for others. What need only be taken over does not."""
        kept = self._link.has_unclaimed(worker_prefix(name, number))
        return contextlib.nullcontext() if kept else self._loads

    async def _unload_version(self, version: VersionEntry, *, replaced: bool = False) -> None:
        model, version.model = version.model, None
        if model is None:
            return
        version.state, version.reason = "UNLOADING", ""
        self._changed()
        if replaced:
            await self.handovers.retire(model, self._settings.exit_timeout_secs, self.served)
        else:
            await model.close(self._settings.exit_timeout_secs)
        version.state, version.reason = "UNAVAILABLE", UNLOADED
        self._changed()
