"""Loads and unloads whole models: each after those that it needs, from its files or from what a request gave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.errors import LoadFailed, PenstockError
from penstock.repository.dependencies import Dependencies
from penstock.repository.entries import Entries, ModelEntry
from penstock.repository.loading import LoadEnsemble, Loader
from penstock.repository.model_source import ModelSource, read_configuration, read_source
from penstock.repository.overrides import KeptOverride, Overrides
from penstock.repository.served_model import ServedModel, Shared
from penstock.repository.trusted_source import tampering_first
from penstock.trust.trust import Trust
from penstock.wording import shortened

log = logging.getLogger(__name__)

AS_IT_IS: Final[Mapping[str, KeptOverride | None]] = {}


class ModelLoads:
    """Changes entries, each under its lock."""

    def __init__(
        self,
        shared: Shared,
        repositories: Callable[[], Sequence[Path]],
        entries: Entries,
        overrides: Overrides,
        served: Callable[[], Iterable[ServedModel]],
        load_ensemble: LoadEnsemble,
        trust: Trust,
        registry_view: Path | None = None,
    ) -> None:
        """`registry_view`: the one of the repositories that has models of a registry."""
        self._registry_view = registry_view
        self._settings = shared.settings
        self._repositories = repositories
        self._entries = entries
        self._overrides = overrides
        self._changed = shared.on_change
        self._trust = trust
        self._loader = Loader(shared, served, load_ensemble, trust)
        self.handovers = self._loader.handovers
        self.dependencies = Dependencies()

    async def load(
        self,
        wanted: Mapping[str, bool],
        overrides: Mapping[str, KeptOverride | None] = AS_IT_IS,
        *,
        anew: bool,
    ) -> dict[str, str]:
        """Load models (name → whether it was asked for by this name), and first what they need.

        `overrides`: what they are loaded from, None: their files on disk; those that are left out stay with what they
        have. `anew`: `wanted` even if nothing has changed. Returns name → why the model, or a version of it, can't be
        loaded.
        """
        every = await self._with_needs(wanted, overrides)
        tasks: dict[str, asyncio.Task[str]] = {}

        def begin(name: str) -> asyncio.Task[str]:
            if name not in tasks:
                first = [begin(need) for need in self._order(name) if need in every]
                load = self._load_one(name, every[name], overrides, anew=anew and name in wanted)
                tasks[name] = asyncio.create_task(_after(first, load))
            return tasks[name]

        failures = await asyncio.gather(*map(begin, every))
        return {name: why for name, why in zip(every, failures, strict=True) if why}

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that are here are answered. What a request gave of it is removed."""
        async with self._entries.locked(name) as entry:
            entry.wanted = entry.explicit = False
            kept, entry.override = entry.override, None
            if kept is not None:
                self._overrides.withdraw(kept)
            self._changed()
            await asyncio.gather(*(self._loader.unload(e) for e in entry.versions.values()))
            self.dependencies.learn(name, None)
            if kept is not None:
                await asyncio.to_thread(self._overrides.remove, kept)

    def is_needed(self, name: str) -> bool:
        """By another model that is to be served."""
        dependents = map(self._entries.get, self.dependencies.dependents_of(name))
        return any(entry is not None and entry.wanted for entry in dependents)

    async def _with_needs(
        self, wanted: Mapping[str, bool], overrides: Mapping[str, KeptOverride | None]
    ) -> dict[str, bool]:
        """All that are to be loaded: `wanted`, what they need, and those that could not be loaded without them."""
        every = dict(wanted)
        fresh = list(wanted)
        while fresh:
            await asyncio.gather(*(self._learn(n, self._override(n, overrides)) for n in fresh))
            needs = {need for name in fresh for need in self.dependencies.needs(name)}
            # in other modes all models come by themselves, when their files are all there
            explicit = self._settings.model_control_mode == "explicit"
            fresh = sorted(needs - every.keys()) if explicit else []
            every |= dict.fromkeys(fresh, False)
        for name in list(every):
            for dependent in self.dependencies.dependents_of(name):
                entry = self._entries.get(dependent)
                if entry is not None and entry.wanted and not entry.serves:
                    every.setdefault(dependent, entry.explicit)
        return every

    async def _learn(self, name: str, kept: KeptOverride | None) -> None:
        """What the model needs, as far as its configuration can be read; its load says what is wrong with that."""
        with contextlib.suppress(PenstockError, OSError):
            config = await asyncio.to_thread(read_configuration, name, self._repositories(), kept)
            self.dependencies.learn(name, config)

    def _order(self, name: str) -> tuple[str, ...]:
        """What is to be loaded before the model."""
        return () if self.dependencies.circle(name) else self.dependencies.needs(name)

    def _override(
        self, name: str, overrides: Mapping[str, KeptOverride | None]
    ) -> KeptOverride | None:
        entry = self._entries.get(name)
        return overrides.get(name, entry.override if entry is not None else None)

    async def _load_one(
        self,
        name: str,
        explicit: bool,
        overrides: Mapping[str, KeptOverride | None],
        *,
        anew: bool,
    ) -> str:
        """Returns why the model, or a version of it, can't be loaded; empty: all are."""
        async with self._entries.locked(name) as entry:
            kept = self._override(name, overrides)
            if kept is None or kept is entry.override:
                # what a request gives has first to prove itself
                _want(entry, explicit=explicit)
            try:
                source = await self._source(name, kept)
            except (PenstockError, OSError) as error:
                self._unavailable(entry, str(error))
                await self._drop(entry, kept)
                return entry.reason
            outcome = await self._loader.load(entry, source, anew=anew)
            if not outcome.in_force:
                await self._loader.end(outcome)
                await self._drop(entry, kept)
                return outcome.reasons
            _want(entry, explicit=explicit)
            old = self._put_in_force(entry, kept)
            await self._loader.end(outcome)
            if old is not None:
                await asyncio.to_thread(self._overrides.remove, old)
            return outcome.reasons

    async def _source(self, name: str, kept: KeptOverride | None) -> ModelSource:
        """Raises LoadFailed, ConfigError, OSError."""
        source = await asyncio.to_thread(self._read_source, name, kept)
        self.dependencies.learn(name, source.config)
        if way := self.dependencies.circle(name):
            raise LoadFailed(f"the models {' → '.join(way)} need each other, in a circle")
        for need in self.dependencies.needs(name):
            entry = self._entries.get(need)
            if entry is None or not entry.serves:
                why = (
                    next((v.reason for v in entry.versions.values()), entry.reason) if entry else ""
                )
                raise LoadFailed(
                    f"ensemble '{name}' depends on '{need}' which has no loaded version"
                    + (f". Model '{need}' loading failed with error: {why}" if why else "")
                )
        return source

    def _read_source(self, name: str, kept: KeptOverride | None) -> ModelSource:
        """It blocks."""
        repositories = self._repositories()
        if kept is not None:
            return read_source(name, repositories, kept, self._registry_view)
        with tampering_first(self._trust, name, repositories):
            return read_source(name, repositories, None, self._registry_view)

    def _put_in_force(self, entry: ModelEntry, kept: KeptOverride | None) -> KeptOverride | None:
        """The entry serves from that now, and so shall the next gateway. Returns what is of no use any more."""
        old, entry.override = entry.override, kept
        if kept is not None:
            self._overrides.put_in_force(kept)
        if old is kept or old is None:
            return None
        self._overrides.withdraw(old)
        return old

    async def _drop(self, entry: ModelEntry, kept: KeptOverride | None) -> None:
        """What was given is of no use; what the entry had goes on."""
        if kept is not None and kept is not entry.override:
            await asyncio.to_thread(self._overrides.remove, kept)

    def _unavailable(self, entry: ModelEntry, reason: str) -> None:
        entry.reason = shortened(reason)
        for version in entry.versions.values():
            version.reason = entry.reason
        log.error("model '%s' can't be loaded: %s", entry.name, reason)
        self._changed()


def _want(entry: ModelEntry, *, explicit: bool) -> None:
    entry.wanted = True
    entry.explicit = entry.explicit or explicit


async def _after(first: Sequence[asyncio.Task[str]], then: Coroutine[Any, Any, str]) -> str:
    # each load tells itself what went wrong
    if first:
        await asyncio.wait(first)
    return await then
