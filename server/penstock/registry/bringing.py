"""Brings one version to where it is served from: from the cache if its files are sound, else from the registry."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from penstock.errors import LoadFailed, NotFound, Unavailable
from penstock.registry.cache import Cache
from penstock.registry.eviction import evict
from penstock.registry.fetch import fetch
from penstock.registry.manifest import Manifest
from penstock.registry.source import READY, Registry, VersionFacts
from penstock.registry.view import View

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Brought:
    """A version that is in the view."""

    manifest: Manifest
    fetched: bool
    """Some of it came from the registry."""
    bytes: int
    """So many."""


class Bringing:
    """Cache and view together. Its methods block; several threads may call them."""

    def __init__(self, cache: Cache, view: View, limit: int) -> None:
        """`limit`: of the cache, in bytes; 0: none."""
        self.cache: Final = cache
        self.view: Final = view
        self._limit: Final = limit
        self._evicting: Final = threading.Lock()
        self.damaged = 0
        """Files of the cache that were not what they should be."""
        self.cache_bytes = 0
        self.evicted_bytes = 0

    def start(self) -> None:
        """Remove what others have left that were killed."""
        self.view.remove_leftovers()
        self.cache.remove_abandoned(time.time())
        self._evict()

    def present(self, name: str, registered: str) -> dict[int, Manifest | None]:
        """Versions in the view, and what they consist of as far as that is known."""
        return {v: self.cache.manifest(registered, v) for v in self.view.versions(name)}

    def bring(self, registry: Registry | None, name: str, registered: str, version: int) -> Brought:
        """Have the version in the view. `registry`: None: it can't be asked yet.

        Raises NotFound, Unavailable, Forbidden, LoadFailed (LinkOutside among them), OSError.
        """
        manifest = self.cache.manifest(registered, version)
        facts = self._facts(registry, registered, version, cached=manifest)
        if manifest is not None and facts is not None and facts.source != manifest.source:
            # a number may be given again once its version was deleted
            log.warning("model '%s' version %d is another one now", registered, version)
            manifest = None
        damaged = [] if manifest is None else self.cache.damaged(manifest)
        if damaged:
            self.damaged += len(damaged)
            text = "model '%s' version %d: %d files of the cache are missing or damaged, as %a"
            log.warning(text, registered, version, len(damaged), damaged[0])
        if manifest is not None and not damaged:
            self._show(name, manifest)
            return Brought(manifest, fetched=False, bytes=0)
        if facts is None or registry is None:
            raise Unavailable(
                f"{damaged[0]!a} in the cache is missing or damaged, and the registry can't be asked"
                if damaged
                else "the registry can't be asked, and the cache does not have it"
            )
        return self._fetch(registry, facts, name, registered)

    def _facts(
        self, registry: Registry | None, registered: str, version: int, cached: Manifest | None
    ) -> VersionFacts | None:
        """None: the cache has to do. Raises where it can't."""
        if registry is None:
            return None
        try:
            return registry.version(registered, version)
        except (NotFound, Unavailable) as error:
            if cached is None:
                raise
            log.warning(
                "model '%s' version %d comes from the cache: %s", registered, version, error
            )
            return None

    def _fetch(
        self, registry: Registry, facts: VersionFacts, name: str, registered: str
    ) -> Brought:
        if facts.status != READY:
            raise LoadFailed(f"the registry has it as {facts.status}, expected {READY}")
        came: list[int] = []
        manifest = fetch(
            self.cache,
            registry.artifacts(facts),
            model=registered,
            version=facts.version,
            source=facts.source,
            run_id=facts.run_id,
            on_bytes=came.append,
        )
        self._show(name, manifest)
        self._evict()
        # none: another server, or another name, has brought it meanwhile
        return Brought(manifest, fetched=bool(came), bytes=sum(came))

    def _show(self, name: str, manifest: Manifest) -> None:
        if manifest.version not in self.view.versions(name):
            self.view.add(name, manifest, self.cache)
        self.cache.used(manifest)

    def _evict(self) -> None:
        with self._evicting:
            self.cache_bytes, removed = evict(self.cache, self._limit, time.time())
            self.evicted_bytes += removed
