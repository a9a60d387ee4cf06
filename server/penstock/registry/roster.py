"""Which models are followed: those that settings name, and those of entries of repositories, as they come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from penstock.errors import InvalidRequest, NotFound
from penstock.registry.bringing import Bringing
from penstock.registry.entries import RepositoryEntry
from penstock.registry.followed import Followed
from penstock.registry.manifest import Known
from penstock.registry.messages import RegistryModel
from penstock.registry_refs import RegistryRef, check_together, parse_refs

log = logging.getLogger(__name__)


class Roster:
    """For one event loop."""

    def __init__(
        self,
        refs: Iterable[RegistryRef],
        find_entries: Callable[[], list[RepositoryEntry]],
        bringing: Bringing,
    ) -> None:
        """`find_entries`: those of repositories, as they are now; it blocks."""
        self.models: Final[dict[str, Followed]] = {}
        self.entries: list[RepositoryEntry] = []
        self._refs: Final = tuple(refs)
        self._find_entries: Final = find_entries
        self._bringing: Final = bringing
        self._view: Final = bringing.view
        self._cache: Final = bringing.cache
        self._held: Mapping[str, tuple[int, ...]] = {}

    def served(self, name: str) -> Followed:
        """Raises NotFound."""
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"model '{name}' does not come from the registry")
        return model

    def asked_for(self) -> Iterator[Followed]:
        """Those that something names."""
        return (model for model in list(self.models.values()) if not model.gone)

    def hold(self, versions: Mapping[str, tuple[int, ...]]) -> None:
        """These stay, whatever references mean."""
        self._held = dict(versions)
        for model in self.models.values():
            model.hold(versions.get(model.name, ()))

    def states(self) -> tuple[RegistryModel, ...]:
        """For the gateway: also of entries that can't be read."""
        models = [model.state() for model in self.models.values()]
        broken = [
            RegistryModel(
                name=entry.name, registered="", refs=(), problem=entry.problem, settled=True
            )
            for entry in self.entries
            if entry.ref is None and entry.name not in self.models
        ]
        return tuple(sorted([*models, *broken], key=lambda model: model.name))

    async def adopt(self) -> None:
        """Go on where an agent before this one has ended."""
        before = await asyncio.to_thread(self._view.state)
        await self.find()
        for old in () if before is None else before.models:
            model = self.models.get(old.name)
            if model is None:
                await self._adopt_gone(old)
                continue
            if model.registered != old.registered:
                await self._replace(model, old)
                continue
            present = await asyncio.to_thread(self._bringing.present, old.name, old.registered)
            model.adopt(present, old)

    async def _adopt_gone(self, old: RegistryModel) -> None:
        """Its entry went while there was no agent: a gateway may serve it still, and is to give it back."""
        present = await asyncio.to_thread(self._bringing.present, old.name, old.registered)
        if not present or not old.refs:
            return
        self.models[old.name] = model = Followed(parse_refs(old.refs), Known())
        model.gone = True
        model.adopt(present, old)
        model.hold(self._held.get(old.name, ()))

    async def find(self) -> None:
        """Those of the settings, and those of repositories, as they are now."""
        self.entries = await asyncio.to_thread(self._find_entries)
        by_name: dict[str, list[RegistryRef]] = {}
        for ref in (*self._refs, *(e.ref for e in self.entries if e.ref is not None)):
            by_name.setdefault(ref.name, []).append(ref)
        for name, refs in by_name.items():
            await self._follow(name, refs)
        for model in list(self.models.values()):
            model.gone = model.name not in by_name
            await self.forget_if_over(model)
        for entry in self.entries:
            if entry.ref is not None:
                await self._put_beside(self.models[entry.ref.name], entry)

    async def forget_if_over(self, model: Followed) -> None:
        """It is in no state any more once there is nothing to be given back."""
        if not model.is_over or self.models.get(model.name) is not model:
            return
        try:
            hidden = self._view.hide(model.name)
        except OSError as error:
            log.warning("model '%s' can't be removed: %s. It is tried again.", model.name, error)
            return
        del self.models[model.name]
        await asyncio.to_thread(self._view.discard, hidden)

    async def _put_beside(self, model: Followed, entry: RepositoryEntry) -> None:
        """What lies beside the entry's file lies beside the versions."""
        try:
            put = self._view.put_beside
            if await asyncio.to_thread(put, model.name, entry.beside):
                model.beside_changed()
        except OSError as error:
            log.warning("model '%s': %s", model.name, error)

    async def _follow(self, name: str, refs: list[RegistryRef]) -> None:
        try:
            check_together(refs)
        except InvalidRequest as error:
            log.warning("model '%s': %s", name, error)
            refs = refs[:1]
        known = self.models.get(name)
        if known is not None and known.refs == tuple(map(str, refs)):
            return
        cached = await asyncio.to_thread(self._cache.known, refs[0].model)
        model = Followed(refs, cached)
        model.hold(self._held.get(name, ()))
        if known is None:
            self.models[name] = model
        elif known.registered == model.registered:
            model.adopt(known.present, known.state())
            self.models[name] = model
        else:
            await self._replace(model, known.state())

    async def _replace(self, model: Followed, before: RegistryModel) -> None:
        """Its references name another registered model now: nothing of the one before may be taken for a version of
        that. A gateway serves what it has loaded until there is something new."""
        try:
            versions = self._view.versions(model.name)
            hidden = [self._view.hide(model.name, version) for version in versions]
        except OSError as error:
            text = "model '%s' can't become '%s' of the registry: %s. It is tried again."
            log.warning(text, model.name, model.registered, error)
            return
        model.replace(before)
        self.models[model.name] = model
        for folder in hidden:
            await asyncio.to_thread(self._view.discard, folder)
