"""A registry in memory, which can be away, and whose files lie in a folder; and a desk over it with a real cache."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.errors import NotFound, PenstockError, Unavailable
from penstock.registry.bringing import Bringing
from penstock.registry.cache import Cache
from penstock.registry.desk import Desk
from penstock.registry.entries import RepositoryEntry
from penstock.registry.fetch import Artifacts
from penstock.registry.local_artifacts import LocalArtifacts
from penstock.registry.messages import FetchNote, RegistryModel, RegistryState, VersionLineage
from penstock.registry.source import READY, ModelFacts, VersionFacts
from penstock.registry.view import View
from penstock.registry_refs import parse_refs

URI = "fake:"


@dataclass
class FakeRegistry:
    """As `penstock.registry.source.Registry` says."""

    folder: Path
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    versions: dict[tuple[str, int], VersionFacts] = field(default_factory=dict)
    tags: dict[tuple[str, int, str], list[str]] = field(default_factory=dict)
    away: bool = False
    refuse: PenstockError | None = None
    """Of tags and aliases."""
    gate: threading.Event | None = None
    """What all files wait for."""
    copied: list[str] = field(default_factory=list)
    questions: int = 0

    def add(self, name: str, version: int, files: Mapping[str, str] | None = None) -> Path:
        """A version whose files hold these texts."""
        self.aliases.setdefault(name, {})
        source = self.folder / f"{name}-{version}"
        for path, text in (files or {"weights": f"{name} {version}"}).items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        self.versions[name, version] = VersionFacts(version, READY, str(source), f"run{version}")
        return source

    def set_status(self, name: str, version: int, status: str) -> None:
        """Such as PENDING_REGISTRATION."""
        self.versions[name, version] = replace(self.versions[name, version], status=status)

    def model(self, name: str, *, latest: bool) -> ModelFacts:
        self._ask()
        if name not in self.aliases:
            raise NotFound(f"no registered model '{name}'")
        ready = [
            v for (n, v), facts in self.versions.items() if n == name and facts.status == READY
        ]
        return ModelFacts(dict(self.aliases[name]), max(ready, default=None) if latest else None)

    def version(self, name: str, version: int) -> VersionFacts:
        self._ask()
        facts = self.versions.get((name, version))
        if facts is None:
            raise NotFound(f"registered model '{name}' has no version {version}")
        named = tuple(alias for alias, v in self.aliases[name].items() if v == version)
        return replace(facts, aliases=named)

    def artifacts(self, facts: VersionFacts) -> Artifacts:
        return _Watched(self, LocalArtifacts(Path(facts.source)))

    def lineage(self, name: str, version: int) -> VersionLineage:
        facts = self.version(name, version)
        return VersionLineage(name=name, version=version, source=facts.source)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self.version(name, version)
        if self.refuse is not None:
            raise self.refuse
        self.aliases[name][alias] = version

    def set_tag(self, name: str, version: int, key: str, value: str) -> None:
        self.version(name, version)
        if self.refuse is not None:
            raise self.refuse
        self.tags.setdefault((name, version, key), []).append(value)

    def _ask(self) -> None:
        self.questions += 1
        if self.away:
            raise Unavailable("the registry can't be asked: it is away")


@dataclass
class _Watched:
    registry: FakeRegistry
    artifacts: LocalArtifacts

    def files(self) -> Mapping[str, int | None]:
        self.registry._ask()
        return self.artifacts.files()

    def copy(self, path: str, target: Path) -> str:
        self.registry._ask()
        if self.registry.gate is not None:
            assert self.registry.gate.wait(30)
        self.registry.copied.append(path)
        return self.artifacts.copy(path, target)


class DeskBench:
    """A desk, and what it has said."""

    def __init__(self, folder: Path, registry: FakeRegistry, *refs: str, **settings: Any) -> None:
        """`settings`: `limit` of the cache, `view` (a name), `entries` (finds them), and those of Desk."""
        self.registry = registry
        self.view = View(folder / settings.pop("view", "view"))
        self.view.folder.mkdir(exist_ok=True)
        self.cache = Cache(folder / "cache", URI)
        entries: Callable[[], list[RepositoryEntry]] = settings.pop("entries", list)
        self.bringing = Bringing(self.cache, self.view, settings.pop("limit", 0))
        given: dict[str, Any] = {"uri": URI, "poll_s": 600.0, "fallback_s": 600.0, **settings}
        self.desk = Desk(parse_refs(refs), entries, lambda: registry, self.bringing, **given)
        self.notes: list[FetchNote] = []
        self.desk.on_note = self.notes.append
        self.desk.on_state = self._hear
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self.desk.run())

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self.desk.close()

    def _hear(self, state: RegistryState) -> None:
        self.view.keep_state(state)
        self._changed.set()

    def model(self, name: str) -> RegistryModel | None:
        state = self.desk.state or RegistryState()
        return next((model for model in state.models if model.name == name), None)

    async def until(
        self, condition: Callable[[RegistryModel], bool], name: str = "m"
    ) -> RegistryModel:
        """Wait until what is said of the model fits. Returns it."""
        async with asyncio.timeout(30):
            while True:
                self._changed.clear()
                model = self.model(name)
                if model is not None and condition(model):
                    return model
                await self._changed.wait()

    async def settled(self, name: str = "m") -> RegistryModel:
        return await self.until(lambda model: model.settled, name)

    def there(self, name: str = "m") -> list[int]:
        """The versions in the view."""
        return self.view.versions(name)
