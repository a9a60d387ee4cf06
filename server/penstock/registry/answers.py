"""What the gateway asks of the registry itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.errors import NotFound
from penstock.registry.asking import Asking
from penstock.registry.cache import Cache
from penstock.registry.followed import Followed
from penstock.registry.messages import ResolvedVersion, VersionLineage
from penstock.registry_refs import parse_part


class Answers:
    """Models are named as they are served."""

    def __init__(
        self,
        served: Callable[[str], Followed],
        ask: Asking,
        cache: Cache,
        look: Callable[[], None],
    ) -> None:
        """`served`: a model that is; raises NotFound. `look`: has all be asked for again."""
        self._served: Final = served
        self._ask: Final = ask
        self._cache: Final = cache
        self._look: Final = look

    async def resolve(self, name: str, ref: str) -> ResolvedVersion:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed, InvalidRequest."""
        model, part = self._served(name), parse_part(ref)
        version = int(part) if part.isdigit() else None
        if version is None:
            facts = await self._ask(lambda r: r.model(model.registered, latest=not part))
            version = facts.aliases.get(part[1:]) if part else facts.latest
        if version is None:
            what = f"alias '{part[1:]}'" if part else "version that is ready"
            raise NotFound(f"registered model '{model.registered}' has no {what}")
        number = version
        found = await self._ask(lambda r: r.version(model.registered, number))
        manifest = await asyncio.to_thread(self._cache.manifest, model.registered, number)
        return ResolvedVersion(
            name=model.registered,
            version=number,
            run_id=found.run_id,
            tags=found.tags,
            aliases=found.aliases,
            digest=manifest.digest if manifest else "",
        )

    async def lineage(self, name: str, version: int) -> VersionLineage:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        model = self._served(name)
        found = await self._ask(lambda r: r.lineage(model.registered, version))
        manifest = await asyncio.to_thread(self._cache.manifest, model.registered, version)
        return msgspec.structs.replace(found, digest=manifest.digest if manifest else "")

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed, InvalidRequest."""
        model, part = self._served(name), parse_part(f"@{alias}")
        await self._ask(lambda r: r.set_alias(model.registered, part[1:], version))
        self._look()

    async def set_tag(self, registered: str, version: int, key: str, value: str) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        await self._ask(lambda r: r.set_tag(registered, version, key, value))
