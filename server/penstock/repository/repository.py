"""The life of all models of a server: found in folders, loaded, listed, unloaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, Devices
from penstock.errors import InvalidRequest, LoadFailed, Unavailable
from penstock.logs import LogSettings
from penstock.repository.ensembles import Ensembles
from penstock.repository.entries import ModelEntry, idle_line
from penstock.repository.folders import find_models, folders_of, no_folder, repository_named
from penstock.repository.index import ModelIndex
from penstock.repository.jobs import Jobs
from penstock.repository.linked_models import LinkedModels
from penstock.repository.model_calls import ModelCalls
from penstock.repository.model_loads import ModelLoads
from penstock.repository.nested import NestedCalls
from penstock.repository.overrides import Override, Overrides
from penstock.repository.polling import FolderWatch, Looks, look, poll
from penstock.repository.response_cache import ResponseCache
from penstock.repository.served_model import Shared
from penstock.scheduling.rate_limiter import RateLimiter
from penstock.scheduling.weights import TenantWeights
from penstock.trust.trust import ReadSecret, no_secrets, trust_of
from penstock.workers.control import ControlLink
from penstock.workers.supervisor_messages import ModelReport

log = logging.getLogger(__name__)


class ModelRepository(ModelIndex):
    """The index of all models, and their life."""

    def __init__(
        self,
        settings: Settings,
        link: ControlLink,
        linked: LinkedModels | None = None,
        cache: ResponseCache | None = None,
        weights: TenantWeights | None = None,
        read_secret: ReadSecret = no_secrets,
        devices: Callable[[], Devices] = lambda: NO_DEVICES,
    ) -> None:
        """`linked`: models that are added while the server runs. `weights`: of tenants; None: those of the settings.
        `read_secret`: where keys of encrypted models are. `devices`: GPUs for models."""
        super().__init__()
        self._settings = settings
        self._link = link
        self._linked = linked
        link.logging = settings.log_settings
        self._overrides = Overrides(settings.run_dir)
        self.registry_view = _registry_view(settings)
        """The repository of models that come from a registry, in which the registry agent puts them; None: there is no
        agent."""
        self.trust = trust_of(settings, read_secret, None if linked is None else linked.folder)
        self.nested = NestedCalls(
            self, lambda *request: self.handovers.keeper(*request), self.rollouts
        )
        self._ensembles = Ensembles(self, self.nested, settings)
        limited = settings.rate_limit == "execution_count"
        shared = Shared(
            link,
            settings,
            self._changed,
            ModelCalls(self.nested, self),
            RateLimiter(settings.rate_limits) if limited else None,
            cache,
            weights,
            devices,
        )
        self._loads = ModelLoads(
            shared,
            self._repositories,
            self._entries,
            self._overrides,
            self.served,
            self._ensembles.load,
            self.trust,
            self.registry_view,
        )
        self._jobs = Jobs()
        self._draining = False
        self.handovers = self._loads.handovers

    def check_control_allowed(self) -> None:
        """Raises Unavailable unless models may be loaded and unloaded by request."""
        if self._settings.model_control_mode != "explicit":
            raise Unavailable(
                "explicit model load / unload is not allowed if polling is enabled or the server was not started "
                "with --model-control-mode=explicit"
            )
        if self._draining:
            raise Unavailable(
                "the server is shutting down: no model is loaded or unloaded any more"
            )

    def drain(self) -> None:
        """From now on nothing is loaded or unloaded but what is under way."""
        self._draining = True

    def set_logging(self, settings: LogSettings) -> None:
        """What all workers log from now on, those that run and those to come."""
        self._link.logging = settings
        for model in self.served():
            model.pool.tell_logging()

    async def listing(self, repository: str = "") -> list[ModelReport]:
        """The index, and what the folders hold beside it: models that nobody has asked to load yet. Of one repository,
        if it is named: raises NotFound, InvalidRequest."""
        folders = self._repositories(repository)
        try:
            found = await asyncio.to_thread(find_models, folders)
        except OSError as error:
            log.warning("the model repository can't be read: %s", error)
            found = {}
        lines = [line for line in self.index() if not repository or line.name in found]
        idle = [idle_line(name) for name in found if name not in self._entries]
        return sorted([*lines, *idle], key=lambda line: line.name)

    # ── start and end ───────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Find all models and load those the control mode says, or those that the gateway before this one, which
        crashed, was to serve. Failures are lines of the index. In mode poll, changes are looked for from then on."""
        repositories = self._repositories()
        inherited = await self._link.inherited()
        await asyncio.to_thread(self.trust.staging.inherit)
        if self._settings.model_control_mode == "poll":
            await self._start_polling(self._settings.model_repository)
        elif self._settings.model_control_mode == "explicit" and inherited is not None:
            await self._start_again(inherited)
        else:
            found = await asyncio.to_thread(find_models, repositories)
            await self._loads.load(dict.fromkeys(self._first(found), True), anew=True)
        self._link.end_unclaimed()
        await asyncio.to_thread(self.trust.staging.end_unclaimed)
        self._starting = False

    async def close(self) -> None:
        """End all models at once: the front has answered all requests by now."""
        self._draining = True
        await self._jobs.close()
        await asyncio.gather(*(model.close(0) for model in self.served()))

    def _changed(self) -> None:
        self._ensembles.recheck()
        super()._changed()

    def _first(self, found: Mapping[str, Sequence[Path]]) -> list[str]:
        """Models to load at the start, of all that were found; those of a registry are loaded when that says so."""
        explicit = self._settings.model_control_mode == "explicit"
        names = self._settings.load_model if explicit else ("*",)
        return [
            name
            for name in (found if "*" in names else names)
            # what a gateway before this one has served it had been told of
            if self.is_wanted(name) or not self._comes_later(name, found.get(name, ()))
        ]

    def _comes_later(self, name: str, folders: Iterable[Path]) -> bool:
        in_view = any(folder.parent == self.registry_view for folder in folders)
        return in_view or self.is_from_registry(name)

    async def _start_again(self, wanted: Mapping[str, bool]) -> None:
        for name, kept in (await asyncio.to_thread(self._overrides.inherit)).items():
            if name in wanted:
                self._entries.setdefault(name, ModelEntry(name)).override = kept
            else:
                await asyncio.to_thread(self._overrides.remove, kept)
        await self._loads.load(wanted, anew=True)

    async def _start_polling(self, repositories: Sequence[Path]) -> None:
        watch = FolderWatch()
        # before the load: what changes meanwhile is another change
        looks = await asyncio.to_thread(look, repositories)
        watch.start(looks)
        registry = [e.name for e in self._entries.values() if e.only_default and e.wanted]
        await self._loads.load(dict.fromkeys([*looks, *registry], True), anew=True)
        period_s = self._settings.repository_poll_secs
        self._jobs.start(poll(repositories, period_s, watch, self._follow))

    def _follow(self, changed: Iterable[str], looks: Looks) -> None:
        """Do as the folders say. Loads take their time: the next look does not wait for them."""
        if self._draining:
            return
        there = [name for name in changed if name in looks]
        self._jobs.start(self._loads.load(dict.fromkeys(there, True), anew=False))
        for name in changed:
            if name not in looks and name in self._entries:
                self._jobs.start(self._remove(name))

    # ── from a registry ─────────────────────────────────────────────────────────────────────────────────────────────

    def is_from_registry(self, name: str) -> bool:
        """Whether `expect` was told of it."""
        entry = self._entries.get(name)
        return entry is not None and entry.only_default

    def is_wanted(self, name: str) -> bool:
        """Whether it is to be served, as far as anybody has asked for it."""
        entry = self._entries.get(name)
        return entry is not None and entry.wanted

    def expect(self, name: str, reason: str, default: int | None, *, wanted: bool) -> None:
        """A registry has such a model, of which only the default version answers requests that name none. `reason`:
        why it is not served, unless it is. `default`: from which version on, where none is loaded yet. `wanted`: a
        gateway before this one served it."""
        entry = self._entries.setdefault(name, ModelEntry(name))
        new = not entry.only_default
        entry.only_default = True
        if wanted:
            entry.wanted = entry.explicit = True
        if not entry.serves:
            self.expect_default(name, default)
        if not entry.versions and entry.reason != reason:
            new, entry.reason = True, reason
        if new:
            self._changed()

    async def follow(self, name: str) -> str:
        """Load what is new or another one of a registry's model, and unload what is not there any more; each version by
        itself. Returns why a version can't be loaded; empty: all are. Goes on when its caller is cancelled."""
        if self._draining:
            return "the server is shutting down"
        failures = await self._jobs.run(self._loads.load({name: True}, anew=False))
        return failures.get(name, "")

    async def withdraw(self, name: str) -> None:
        """The registry's model is not to be served any more."""
        await self._jobs.run(self._remove(name))

    # ── by request ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def load(self, name: str, override: Override | None = None, repository: str = "") -> None:
        """Load a model, or load it anew: its new versions take over when they are ready, and the old ones drain. With
        `override`, from what that gives; else from the files on disk. What it needs is loaded first.

        Goes on when its caller is cancelled. Raises LoadFailed, naming each version's reason; what was served before
        goes on being served. Raises InvalidRequest on what can't be loaded at all.
        """
        await self._jobs.run(self._load(name, override, repository))

    async def unload(self, name: str, *, dependents: bool = False, repository: str = "") -> None:
        """Stop serving a model; requests that are here are answered. With `dependents`, also the models that it needs,
        where nobody asked for them and no other needs them.

        Goes on when its caller is cancelled. Raises InvalidRequest when it is not known.
        """
        await self._jobs.run(self._unload(name, dependents=dependents, repository=repository))

    async def _load(self, name: str, override: Override | None, repository: str) -> None:
        found = await self._folders(name, repository)
        given = override is not None and bool(override.files)
        if not found and not given and (repository or name not in self._entries):
            # no line of the index for a name that somebody made up
            reason = no_folder(name, self._repositories(repository))
            raise LoadFailed(f"failed to load '{name}', {reason}")
        kept = None
        if override is not None:
            kept = await asyncio.to_thread(self._overrides.keep, name, override)
        failures = await self._loads.load({name: True}, {name: kept}, anew=True)
        if failure := failures.get(name):
            if not found:
                self.forget(name)
            raise LoadFailed(f"failed to load '{name}', {failure}")

    async def _unload(self, name: str, *, dependents: bool, repository: str) -> None:
        found = await self._folders(name, repository)
        entry = self._entries.get(name)
        if entry is None and found:
            return
        if entry is None or (repository and not found):
            raise InvalidRequest(f"failed to unload '{name}', model is not loaded")
        needs = self._loads.dependencies.needs(name)
        await self._remove(name)
        for need in needs if dependents else ():
            other = self._entries.get(need)
            if other is not None and not other.explicit and not self._loads.is_needed(need):
                await self._unload(need, dependents=True, repository="")

    async def _remove(self, name: str) -> None:
        """Unload it, and drop its line where there is no folder of it."""
        await self._loads.unload(name)
        if not await self._folders(name):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Leave a model that is not served out of the index, for there is no folder of it."""
        self._entries.forget(name)
        self._changed()

    async def _folders(self, name: str, repository: str = "") -> list[Path]:
        return await asyncio.to_thread(folders_of, name, self._repositories(repository))

    def _repositories(self, name: str = "") -> Sequence[Path]:
        """All, or the one of that name."""
        every = self._settings.model_repository
        if name:
            return (repository_named(name, every),)
        if self.registry_view is not None:
            every = (*every, self.registry_view)
        if self._linked is not None and self._linked.folder.is_dir():
            return (*every, self._linked.folder)
        return every


def _registry_view(settings: Settings) -> Path | None:
    """Made by the supervisor where it starts an agent."""
    if settings.run_dir is None:
        return None
    view = settings.registry.view_of(settings.run_dir)
    return view if view.is_dir() else None
