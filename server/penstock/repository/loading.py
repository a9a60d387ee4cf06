"""Loads all versions of a model that are to be served, and puts them in the place of those that are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.backends.registry import backend_for
from penstock.errors import PenstockError
from penstock.model_config import ConfigDict
from penstock.repository.config_ensemble import PLATFORM
from penstock.repository.dependencies import needs_of
from penstock.repository.entries import ModelEntry, VersionEntry
from penstock.repository.instance_starter import worker_prefix
from penstock.repository.model_source import ModelSource
from penstock.repository.sequence_handover import Handovers
from penstock.repository.served_model import ServedModel, Shared, load
from penstock.repository.trusted_source import trusted_source
from penstock.repository.version_digest import VersionDigest
from penstock.trust.trust import Trust
from penstock.wording import shortened
from penstock.workers.supervisor_messages import UNLOADED

LoadEnsemble = Callable[[Path, int, ConfigDict], ServedModel]
"""Loads a version of one, from its folder. Raises LoadFailed, ConfigError."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a load."""

    failed: Mapping[int, str]
    """Version → why it can't be loaded."""
    in_force: bool
    """What is served is from the source given."""
    replaced: tuple[ServedModel, ...] = ()
    """Others have taken their place."""
    gone: tuple[VersionEntry, ...] = ()
    """Versions that are not to be served any more."""
    unused: tuple[ServedModel, ...] = ()
    """They were loaded in vain."""

    @property
    def reasons(self) -> str:
        """`failed`, for a person; empty: all versions are loaded."""
        return "; ".join(f"version {number}: {why}" for number, why in sorted(self.failed.items()))


class Loader:
    """Changes the versions of one entry at a time; the caller holds the entry's lock."""

    def __init__(
        self,
        shared: Shared,
        served: Callable[[], Iterable[ServedModel]],
        load_ensemble: LoadEnsemble,
        trust: Trust,
    ) -> None:
        self._shared = shared
        self._settings = settings = shared.settings
        self._link = shared.link
        self._changed = shared.on_change
        self._served = served
        self._load_ensemble = load_ensemble
        self._trust = trust
        self._turns = asyncio.Semaphore(settings.model_load_thread_count)
        self.handovers = Handovers()

    async def load(self, entry: ModelEntry, source: ModelSource, *, anew: bool) -> Outcome:
        """Load the versions of `source`; those whose files and configuration are what they were only if `anew`.

        A model that is served goes on unchanged where a version can't be loaded: its versions are replaced together.
        Of one that is not, and of one from a registry, those that can be are served, each as soon as it is loaded.
        `end` comes next.
        """
        due = [n for n, key in source.keys.items() if anew or not _is_loaded(entry, n, key)]
        together = entry.serves and not source.from_registry
        for number in source.keys:
            version = entry.versions.setdefault(number, VersionEntry("LOADING"))
            if version.model is None:
                version.state, version.reason = "LOADING", ""
        results = await asyncio.gather(
            # what takes another's place does so at the end, where that is told to end
            *(
                self._load_version(
                    entry, source, n, at_once=not together and entry.versions[n].model is None
                )
                for n in due
            )
        )
        loaded = {n: r for n, r in zip(due, results, strict=True) if isinstance(r, ServedModel)}
        failed = {n: r for n, r in zip(due, results, strict=True) if isinstance(r, str)}
        if together and failed:
            return self._give_up(entry, loaded, failed)
        return self._put_in_place(entry, source, loaded, failed)

    async def end(self, outcome: Outcome) -> None:
        """Have what was replaced answer what it has, and end."""
        await asyncio.gather(
            *(self._retire(model) for model in outcome.replaced),
            *(self.unload(version, replaced=True) for version in outcome.gone),
            *(model.close(0) for model in outcome.unused),
        )

    async def unload(self, version: VersionEntry, *, replaced: bool = False) -> None:
        """Answer what is there, and end the version's workers."""
        model, version.model = version.model, None
        if model is None:
            return
        version.state, version.reason = "UNLOADING", ""
        self._changed()
        if replaced:
            await self._retire(model)
        else:
            await model.close(self._settings.exit_timeout_secs)
        version.state, version.reason = "UNAVAILABLE", UNLOADED
        self._changed()

    def _put_in_place(
        self,
        entry: ModelEntry,
        source: ModelSource,
        loaded: dict[int, ServedModel],
        failed: dict[int, str],
    ) -> Outcome:
        replaced = [self._place(entry, source, number, model) for number, model in loaded.items()]
        for number in source.keys.keys() - failed.keys():
            entry.versions[number].reason = ""
        entry.reason, entry.folder = "", source.folder
        gone = [entry.versions.pop(n) for n in entry.versions.keys() - source.keys.keys()]
        self._changed()
        return Outcome(failed, entry.serves, tuple(filter(None, replaced)), tuple(gone))

    def _place(
        self, entry: ModelEntry, source: ModelSource, number: int, model: ServedModel
    ) -> ServedModel | None:
        """Have the version served from now on. Returns what it was before."""
        version = entry.versions[number]
        old, version.model = version.model, model
        version.key, version.state, version.reason = source.keys[number], "READY", ""
        return old if old is not model else None

    def _give_up(
        self, entry: ModelEntry, loaded: dict[int, ServedModel], failed: dict[int, str]
    ) -> Outcome:
        for number in loaded:
            version = entry.versions[number]
            if version.model is None:
                version.state = "UNAVAILABLE"
                version.reason = f"not served: version {min(failed)} can't be loaded"
        self._changed()
        return Outcome(failed, in_force=False, unused=tuple(loaded.values()))

    async def _load_version(
        self, entry: ModelEntry, source: ModelSource, number: int, *, at_once: bool
    ) -> ServedModel | str:
        """The model, or why there is none. `at_once`: it is served without waiting for the other versions."""
        version = entry.versions[number]
        async with self._turn(entry.name, number):
            for attempt in range(self._settings.model_load_retry_count + 1):
                try:
                    model = await self._load_trusted(entry, source, number)
                except (PenstockError, OSError) as error:
                    version.reason = shortened(str(error))
                    log.error(  # noqa: TRY400 - the reason says it all
                        "model '%s' version %d can't be loaded (attempt %d): %s",
                        entry.name,
                        number,
                        attempt + 1,
                        error,
                    )
                    continue
                if at_once:
                    self._place(entry, source, number, model)
                    self._changed()
                return model
        if version.model is None:
            version.state = "UNAVAILABLE"
        self._changed()
        return version.reason

    async def _load_trusted(
        self, entry: ModelEntry, source: ModelSource, number: int
    ) -> ServedModel:
        """Load it from what was verified, where anything is asked of it; else from where it lies."""
        found = await asyncio.to_thread(trusted_source, self._trust, entry.name, source, number)
        config = dict(found.config or {"name": entry.name})
        version = entry.versions[number]
        digest = VersionDigest(found.folder / str(number))
        digest.start()
        if found.staged is None:
            model = await self._load_model(version, found.folder, number, config)
            return replace(model, digest=digest)
        try:
            model = await self._load_model(version, found.folder, number, config)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(found.staged.close))
            raise
        model = replace(model, staged=found.staged, digest=digest)
        try:
            await asyncio.to_thread(self._trust.loaded, found.staged)
        except BaseException:
            await model.close(0)
            raise
        return model

    async def _load_model(
        self, version: VersionEntry, folder: Path, number: int, config: ConfigDict
    ) -> ServedModel:
        if needs_of(config):
            version.backend = PLATFORM
            return self._load_ensemble(folder, number, config)
        version.backend = config["backend"] = backend_for(config, folder / str(number))
        return await load(self._shared, folder, number, config)

    def _turn(self, name: str, number: int) -> AbstractAsyncContextManager[None]:
        """To load a version, which waits for others. What need only be taken over does not."""
        kept = self._link.has_unclaimed(worker_prefix(name, number))
        return contextlib.nullcontext() if kept else self._turns

    async def _retire(self, model: ServedModel) -> None:
        await self.handovers.retire(model, self._settings.exit_timeout_secs, self._served)


def _is_loaded(entry: ModelEntry, number: int, key: bytes) -> bool:
    version = entry.versions.get(number)
    return version is not None and version.model is not None and version.key == key
