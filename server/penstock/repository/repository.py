"""All models of a server: found in folders, loaded, listed, looked up, unloaded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from penstock.backends.registry import backend_for
from penstock.config import Settings
from penstock.errors import (
    InvalidRequest,
    LoadFailed,
    NotFound,
    PenstockError,
    Unavailable,
)
from penstock.logs import LogSettings
from penstock.model_config import ConfigDict
from penstock.repository.config_file import read_config
from penstock.repository.folders import find_models, no_folder, only_folder, versions_in
from penstock.repository.instance_starter import worker_prefix
from penstock.repository.linked_models import LinkedModels
from penstock.repository.model_calls import ModelCalls
from penstock.repository.nested import NestedCalls
from penstock.repository.response_cache import ResponseCache
from penstock.repository.sequence_handover import Handovers
from penstock.repository.served_model import ServedModel, load
from penstock.repository.version_policy import version_policy
from penstock.scheduling.rate_limiter import RateLimiter
from penstock.workers.control import ControlLink
from penstock.workers.messages import ModelReport

log = logging.getLogger(__name__)

MAX_VERSION = 2**63 - 1

UNLOADED = "unloaded"
"""The reason of what is unavailable because nobody wants it."""


@dataclass(slots=True)
class VersionEntry:
    """One version in the index."""

    state: str
    """READY, LOADING, UNLOADING or UNAVAILABLE."""
    reason: str = ""
    model: ServedModel | None = None
    backend: str = ""


@dataclass(slots=True)
class ModelEntry:
    """One model in the index."""

    name: str
    versions: dict[int, VersionEntry] = field(default_factory=dict)
    reason: str = ""
    """Why there is no version at all."""
    wanted: bool = False
    """It was asked for, at start or by request, and not unloaded since."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Loads and unloads of one model come one after the other."""


class ModelRepository:
    """The index of all models, and their life. `on_change` is called whenever a line of the index changes."""

    def __init__(
        self,
        settings: Settings,
        link: ControlLink,
        linked: LinkedModels | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        """`linked`: models that are added while the server runs."""
        self._settings = settings
        self._cache = cache
        self._link = link
        self._linked = linked
        link.logging = settings.log_settings
        self._entries: dict[str, ModelEntry] = {}
        self._loads = asyncio.Semaphore(settings.model_load_thread_count)
        self.handovers = Handovers()
        self._limiter = None
        if settings.rate_limit == "execution_count":
            self._limiter = RateLimiter(settings.rate_limits)
        self.on_change: Callable[[], None] = lambda: None
        self.generation = 0
        """Counts changes: what was looked up before is to be looked up again."""
        self._starting = True
        """Models may still come that nobody knows yet."""
        self._calls = ModelCalls(NestedCalls(self), self)

    # ── looking up ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model's version, or its highest that is ready; while none is, one whose crashed worker is about to be
        back. Raises NotFound, Unavailable, InvalidRequest."""
        entry = self._entries.get(name)
        if self._starting and not (entry and entry.versions):
            raise Unavailable(f"model '{name}' can't be served yet: the server is starting")
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if version:
            return self._get_version(entry, _version_number(version))
        models = [v.model for v in entry.versions.values() if v.model is not None]
        usable = [m for m in models if m.ready] or [m for m in models if m.accepts]
        if not usable:
            soon = bool(models) or any(v.state == "LOADING" for v in entry.versions.values())
            error = Unavailable if soon else NotFound
            why = "".join(f": {model.pool.last_crash}" for model in models[:1])
            raise error(f"Request for unknown model: '{name}' has no available versions{why}")
        return max(usable, key=lambda model: model.version)

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether what `get` gives can take work now. Raises InvalidRequest on a version that is no number."""
        try:
            return self.get(name, version).ready
        except (NotFound, Unavailable):
            return False

    def versions(self, name: str) -> list[int]:
        """The loaded versions of a model, lowest first."""
        entry = self._entries.get(name)
        return sorted(v for v, e in entry.versions.items() if e.model) if entry else []

    def knows(self, name: str) -> bool:
        """Whether the index has the model, served or not."""
        return name in self._entries

    def matching(self, name: str = "", version: str = "") -> list[ServedModel]:
        """The served models of that name and version; empty means all. Raises as `get`, where it names one."""
        if name and version:
            return [self.get(name, version)]
        if name:
            self.get(name)
        return [model for model in self.served() if name in ("", model.name)]

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

    def served(self) -> Iterator[ServedModel]:
        """All loaded versions of all models."""
        for entry in self._entries.values():
            for version in entry.versions.values():
                if version.model is not None:
                    yield version.model

    def index(self) -> list[ModelReport]:
        """A line for each version of each model, also those that can't be served."""
        reports = []
        for entry in sorted(self._entries.values(), key=lambda entry: entry.name):
            if not entry.versions:
                reports.append(ModelReport(entry.name, "", "UNAVAILABLE", entry.reason, "", 0))
            reports += [_report(entry.name, v, e) for v, e in sorted(entry.versions.items())]
        return reports

    async def listing(self) -> list[ModelReport]:
        """The index, and what the folders hold beside it: models that nobody has asked to load yet."""
        try:
            found = await asyncio.to_thread(self._find)
        except OSError as error:
            log.warning("the model repository can't be read: %s", error)
            found = {}
        idle = [
            ModelReport(name, "", "UNAVAILABLE", UNLOADED, "", 0)
            for name in found
            if name not in self._entries
        ]
        return sorted([*self.index(), *idle], key=lambda line: line.name)

    def wanted(self) -> tuple[str, ...]:
        """Models that should be served, whether they can be or not."""
        return tuple(entry.name for entry in self._entries.values() if entry.wanted)

    @property
    def all_ready(self) -> bool:
        """No model is unavailable, but for those that were unloaded on request."""
        return all(report.state == "READY" or report.reason == UNLOADED for report in self.index())

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
                        calls=self._calls,
                        limiter=self._limiter,
                        response_cache=self._cache,
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

    def _changed(self) -> None:
        self.generation += 1
        self.on_change()

    def _get_version(self, entry: ModelEntry, number: int) -> ServedModel:
        version = entry.versions.get(number)
        if version is None:
            raise NotFound(
                f"Request for unknown model: '{entry.name}' version {number} is not found"
            )
        if version.model is None or not version.model.accepts:
            raise Unavailable(
                f"Request for unknown model: '{entry.name}' version {number} is not at ready state"
            )
        return version.model


def _report(name: str, number: int, entry: VersionEntry) -> ModelReport:
    model = entry.model
    state, reason = entry.state, entry.reason
    if model is not None and not model.ready:
        state, reason = "UNAVAILABLE", model.pool.last_crash
    instances = len(model.pool.instances) if model is not None else 0
    return ModelReport(name, str(number), state, reason, entry.backend, instances)


def _version_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > MAX_VERSION:
        raise InvalidRequest(
            f"failed to get model version from specified version string '{text[:80]}', expected a number"
        )
    return int(text)
