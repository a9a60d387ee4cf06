"""Serves what the registry agent brings: loads versions, chooses the default one, and gives back what is not wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from penstock.config import Settings
from penstock.errors import LoadFailed, NotFound, PenstockError
from penstock.registry.link import RegistryLink
from penstock.registry.messages import DeploymentStatus, RegistryModel, RegistryState
from penstock.registry_refs import parse_ref
from penstock.repository.repository import ModelRepository
from penstock.workers.supervisor_messages import UNLOADED

log = logging.getLogger(__name__)

REPORT_S: Final = 0.2
"""Until a change is told: others come with it."""
START_PATIENCE_S: Final = 30.0
"""How long a starting server waits for an agent that says nothing."""
WAITING: Final = "it comes from the registry, which has not said yet what it is"

OnMoved = Callable[[str, str, int | None, int | None], None]
"""Model, alias, what it meant, what it means."""


@dataclass(slots=True)
class _Served:
    """How far one model is."""

    followed: int = 0
    """Revision of the view, as it was when all of it was loaded; 0: not yet."""
    applied_default: int | None = None
    """What the registry said last that is in force. A roll-out may have chosen another one since."""
    loading: asyncio.Task[None] | None = None
    again: bool = False
    aliases: dict[str, int] | None = None
    """As they were noticed; None: not yet."""
    told: dict[str, int] = field(default_factory=dict)
    """As others were told of them."""
    since: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Version → its state, and since when it has that."""


class RegistryModels:
    """One a gateway that has a registry."""

    def __init__(self, settings: Settings, link: RegistryLink, repository: ModelRepository) -> None:
        self._settings: Final = settings
        self._link: Final = link
        self._repository: Final = repository
        self._served: Final[dict[str, _Served]] = {}
        self._settled = asyncio.Event()
        self._reporting: asyncio.Handle | None = None
        self._reported: Mapping[str, Mapping[int, DeploymentStatus]] = {}
        self.on_moved: OnMoved = lambda *_: None
        """Hears when an alias is seen to mean another version, whether that can be loaded or not."""
        link.on_state = self._take
        link.loaded = self._wait_until_loaded
        link.statuses_changed = self.report
        self._prepare()

    async def start(self, load_others: Callable[[], Awaitable[None]]) -> None:
        """Listen to the agent from now on, and return when what it has brought is loaded, as far as it can be, and all
        other models are."""
        again = bool(self._link.state.models)
        if not again:
            self._link.start()
        await load_others()
        if again:
            # a gateway before this one has served them: they were loaded with the others
            self._link.start()
            self._take(self._link.state)
        await self.settled()

    async def settled(self) -> None:
        """Wait until each reference has had its first answer, and what is there is loaded or can't be. An agent that
        says nothing at all is not waited for for long."""
        while not self._settled.is_set():
            try:
                await asyncio.wait_for(self._settled.wait(), START_PATIENCE_S)
            except TimeoutError:
                if not self._link.connected:
                    log.error("there is no registry agent: the server starts without its models")  # noqa: TRY400
                    return

    async def close(self) -> None:
        """Nothing is loaded any more."""
        if self._reporting is not None:
            self._reporting.cancel()
        await self._link.close()
        tasks = [s.loading for s in self._served.values() if s.loading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def report(self) -> None:
        """Something may have changed in how versions are served: the registry is told, in a while."""
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().call_later(REPORT_S, self._report)

    # ── what the agent says ─────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        """Names that are to come, before anybody asks for them; and those that a gateway before this one served."""
        for text in self._settings.registry.models:
            ref = parse_ref(text)
            self._repository.expect(ref.name, self._reason(ref.name, WAITING), None, wanted=False)
        explicit = self._settings.model_control_mode == "explicit"
        for model in self._link.state.models:
            # in mode explicit the supervisor has kept which were wanted
            wanted = bool(model.versions) and not explicit and not model.gone
            self._expect(model, wanted=wanted)

    def _take(self, state: RegistryState) -> None:
        for model in state.models:
            self._expect(model, wanted=False)
            served = self._served.setdefault(model.name, _Served())
            self._notice_aliases(model, served)
            self._work(model, served)
        for name in self._served.keys() - {model.name for model in state.models}:
            served = self._served.pop(name)
            if served.loading is not None:
                served.loading.cancel()
            self._repository.forget(name)
        self._check_settled()
        self.report()

    def _expect(self, model: RegistryModel, *, wanted: bool) -> None:
        reason = model.problem or WAITING
        if model.fetching:
            reason = (
                f"version {', '.join(map(str, model.fetching))} is on its way from the registry"
            )
        self._repository.expect(
            model.name, self._reason(model.name, reason), model.default, wanted=wanted
        )

    def _reason(self, name: str, reason: str) -> str:
        """In mode explicit a model that nobody has asked for is well as it is."""
        return reason if self._is_asked_for(name) else UNLOADED

    def _is_asked_for(self, name: str) -> bool:
        """Whether the model is to be served: in mode explicit that is for the start to say, and for load requests."""
        if self._settings.model_control_mode != "explicit" or self._repository.is_wanted(name):
            return True
        served, first = self._served.get(name), self._settings.load_model
        return (served is None or not served.followed) and ("*" in first or name in first)

    # ── one model ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self, model: RegistryModel, served: _Served) -> None:
        """Go on with it, unless that is under way: then once more after that."""
        if served.loading is not None:
            served.again = True
            return
        served.loading = asyncio.get_running_loop().create_task(self._go_on(model.name, served))
        served.loading.add_done_callback(lambda task: self._ended(model.name, served, task))

    def _ended(self, name: str, served: _Served, task: asyncio.Task[None]) -> None:
        served.loading = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("model '%s' can't be followed", name, exc_info=error)
        model = self._link.model(name)
        if served.again and model is not None:
            served.again = False
            self._work(model, served)
        self._check_settled()
        self.report()

    async def _go_on(self, name: str, served: _Served) -> None:
        model = self._link.model(name)
        if model is None:
            return
        if model.gone:
            await self._withdraw(model, served)
            return
        if self._is_asked_for(name) and model.versions and served.followed != model.revision:
            served.followed = model.revision
            await self._repository.follow(name)
            # that may have taken long
            model = self._link.model(name) or model
        self._choose_default(model, served)
        self._give_back(model)
        self._tell_aliases(model, served)

    async def _withdraw(self, model: RegistryModel, served: _Served) -> None:
        """Nothing names it any more."""
        served.followed, served.applied_default = 0, None
        if self._repository.is_wanted(model.name):
            await self._repository.withdraw(model.name)
        for version in model.versions:
            if not self._link.holds(model.name, version.version):
                self._link.release(model.name, version.version)

    def _choose_default(self, model: RegistryModel, served: _Served) -> None:
        """When the registry says something new, and it is loaded: until then the one before goes on."""
        if model.default is None or model.default == served.applied_default:
            return
        try:
            self._repository.set_default(model.name, model.default)
        except PenstockError:
            # not loaded: the index says why
            return
        served.applied_default = model.default
        log.info("model '%s': version %d is the default now", model.name, model.default)

    def _give_back(self, model: RegistryModel) -> None:
        """What no reference names any more, and nothing is served from by default."""
        default = self._repository.default_version(model.name)
        loaded = self._repository.versions(model.name)
        if model.default is not None and model.default not in loaded and loaded:
            # the new one can't be loaded: what is there goes on
            return
        for version in model.versions:
            number = version.version
            if (
                not version.wanted
                and number != default
                and not self._link.holds(model.name, number)
            ):
                self._link.release(model.name, number)

    async def _wait_until_loaded(self, name: str, version: int) -> None:
        """Raises LoadFailed, NotFound."""
        while True:
            served = self._served.get(name)
            if served is None:
                raise NotFound(f"model '{name}' does not come from the registry")
            if served.loading is None:
                break
            await asyncio.wait([served.loading])
        if version not in self._repository.versions(name):
            reason = self._repository.why_not(name) or "nobody has asked to load it"
            raise LoadFailed(f"model '{name}' version {version} can't be loaded: {reason}")

    # ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _notice_aliases(self, model: RegistryModel, served: _Served) -> None:
        before, served.aliases = served.aliases, dict(model.aliases)
        if before is None:
            return
        for alias, old, new in _moves(before, model.aliases):
            log.info("model '%s': alias '%s' means %s now, not %s", model.name, alias, new, old)
            self.on_moved(model.name, alias, old, new)

    def _tell_aliases(self, model: RegistryModel, served: _Served) -> None:
        loaded = self._repository.versions(model.name)
        named = {alias for ref in model.refs for alias in parse_ref(ref).aliases}
        for alias, old, new in _moves(served.told, model.aliases):
            if new is not None and alias in named and new not in loaded:
                continue
            if new is None:
                del served.told[alias]
            else:
                served.told[alias] = new
            self._link.on_alias(model.name, alias, old, new)

    # ── the start ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_settled(self) -> None:
        models = self._link.state.models
        asked = {parse_ref(text).name for text in self._settings.registry.models}
        there = {model.name for model in models if model.settled}
        busy = any(served.loading is not None for served in self._served.values())
        if asked <= there and len(there) == len(models) and not busy:
            self._settled.set()

    # ── how versions are served ─────────────────────────────────────────────────────────────────────────────────────

    def _report(self) -> None:
        self._reporting = None
        now = {name: dict(self._statuses(name, served)) for name, served in self._served.items()}
        if now != self._reported:
            self._reported = now
            self._link.deployed(now)

    def _statuses(self, name: str, served: _Served) -> Iterator[tuple[int, DeploymentStatus]]:
        default = self._repository.default_version(name)
        for line in self._repository.lines_of(name):
            number = int(line.version)
            if line.state == "LOADING":
                continue
            state, since = served.since.get(number, ("", ""))
            if state != line.state:
                since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                served.since[number] = line.state, since
            share = self._link.share_of(name, number)
            if share is None:
                share = 100.0 if number == default else 0.0
            yield (
                number,
                DeploymentStatus(
                    state=line.state, since=since, share=share, healthy=line.state == "READY"
                ),
            )


def _moves(
    before: Mapping[str, int], now: Mapping[str, int]
) -> Iterator[tuple[str, int | None, int | None]]:
    """Alias, what it meant, what it means: of those where that is not the same."""
    for alias in sorted(before.keys() | now.keys()):
        old, new = before.get(alias), now.get(alias)
        if old != new:
            yield alias, old, new
