"""The agent's work: asks the registry again and again, brings what is missing, and says what is there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

import msgspec

from penstock.errors import (
    Forbidden,
    LoadFailed,
    NotFound,
    PenstockError,
    Unavailable,
    Untrusted,
)
from penstock.registry.answers import Answers
from penstock.registry.asking import Asking
from penstock.registry.bringing import Bringing
from penstock.registry.entries import RepositoryEntry
from penstock.registry.followed import Followed
from penstock.registry.manifest import Known
from penstock.registry.messages import (
    FetchNote,
    RegistryState,
)
from penstock.registry.roster import Roster
from penstock.registry.source import Registry
from penstock.registry_refs import RegistryRef

log = logging.getLogger(__name__)

FALLBACK_S: Final = 5.0
"""How long the registry may take at first to say what references mean; then they mean what they meant before."""
JITTER: Final = 0.2
"""Of the time between two questions: many servers don't ask at once."""
THREADS: Final = 8
"""So many versions are fetched at once."""

Outcome = Literal["done", "refused", "failed"]


class Desk:
    """All models of a server that come from the registry. For one event loop."""

    def __init__(
        self,
        refs: Iterable[RegistryRef],
        find_entries: Callable[[], list[RepositoryEntry]],
        connect: Callable[[], Registry],
        bringing: Bringing,
        *,
        uri: str,
        poll_s: float,
        fallback_s: float = FALLBACK_S,
    ) -> None:
        """`find_entries`: those of repositories, as they are now. `connect`: a registry; both block. `uri`: as it may
        be shown."""
        self.on_state: Callable[[RegistryState], None] = lambda _: None
        self.on_note: Callable[[FetchNote], None] = lambda _: None
        self.tags_written: Callable[[], int] = lambda: 0
        self._roster: Final = Roster(refs, find_entries, bringing)
        self._models: Final = self._roster.models
        self._ask: Final = Asking(connect)
        self._bringing: Final = bringing
        self._uri: Final = uri
        self._poll_s: Final = poll_s
        self._fallback_s: Final = fallback_s
        self._tasks: dict[tuple[str, int], asyncio.Task[Exception | None]] = {}
        self._remembered: Final[dict[tuple[str, str], Known]] = {}
        """Served and registered name → what was kept for a restart last."""
        self._problem = ""
        self._threads: Final = ThreadPoolExecutor(THREADS, "fetch")
        self._wake = asyncio.Event()
        self._asked_for = False
        self._adopted = False
        """Until then nobody knows what there is."""
        self.answers: Final = Answers(self._roster.served, self._ask, bringing.cache, self._ask_now)
        self.state: RegistryState | None = None
        """What was said last; None: nothing yet."""

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._bringing.start)
        await self._roster.adopt()
        self._adopted = True
        self.tell()
        loop.call_later(self._fallback_s, self._fall_back)
        while True:
            await self._round()
            await self._sleep()
            await self._roster.find()

    def close(self) -> None:
        """Its threads end with what they do."""
        self._ask.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Ask now: somebody says that the registry has changed."""
        for model in self._models.values():
            model.retry()
        self._ask_now()

    def _ask_now(self) -> None:
        self._asked_for = True
        self._wake.set()

    async def _sleep(self) -> None:
        """Until the registry is to be asked again: in a while, when a fetch is to be tried again, or now."""
        loop = asyncio.get_running_loop()
        poll_at = loop.time() + self._poll_s * random.uniform(1 - JITTER, 1 + JITTER)
        while not self._asked_for:
            due = [at for m in self._models.values() if (at := m.next_due_at()) is not None]
            left_s = min([poll_at, *due]) - loop.time()
            if left_s <= 0:
                break
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left_s)
            except TimeoutError:
                break
        self._asked_for = False

    async def _round(self) -> None:
        """Ask for all models, and begin to bring what is missing. A registry that is away is asked once."""
        away = ""
        for model in self._roster.asked_for():
            if not away:
                away = await self._ask_for(model)
            if away:
                model.away(away)
            self._bring_due(model)
            await self._remember(model)
        if away != self._problem:
            if away:
                there = any(model.present for model in self._models.values())
                goes_on = "what was fetched goes on" if there else self._nothing_yet()
                log.warning("%s; %s, and it is asked again", away, goes_on)
            elif self._problem:
                log.info("the registry answers again")
            self._problem = away
        self.tell()

    def _nothing_yet(self) -> str:
        """It may never have been where it is asked."""
        at = f" is {self._uri} now, and" if self._uri else ""
        return f"nothing of it is served yet (the registry{at} is set by --registry-uri)"

    async def _ask_for(self, model: Followed) -> str:
        """Returns why the registry can't be asked; empty: it has answered."""
        before = model.state().problem
        try:
            facts = await self._ask(
                lambda registry: registry.model(model.registered, latest=model.needs_latest)
            )
        except Unavailable as error:
            return str(error)
        except PenstockError as error:
            model.refuse(f"{error} in {self._uri}" if isinstance(error, NotFound) else str(error))
        else:
            model.take(facts)
        problem = model.state().problem
        if problem and problem != before:
            log.warning("model '%s': %s. It is asked for again.", model.name, problem)
        return ""

    def _fall_back(self) -> None:
        for model in self._roster.asked_for():
            model.fall_back()
            self._bring_due(model)
        self.tell()

    # ── what is missing ─────────────────────────────────────────────────────────────────────────────────────────────

    def _bring_due(self, model: Followed) -> None:
        for version in model.due(asyncio.get_running_loop().time()):
            self._begin(model, version)

    def _begin(self, model: Followed, version: int) -> asyncio.Task[Exception | None]:
        key = model.name, version
        if key not in self._tasks:
            model.begin(version)
            self._tasks[key] = task = asyncio.ensure_future(self._bring(model, version))
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
            self.tell()
        return self._tasks[key]

    async def _bring(self, model: Followed, version: int) -> Exception | None:
        """Errors become the model's problem. Returns them."""
        loop = asyncio.get_running_loop()
        what = {"version": str(version), "registered": model.registered}
        try:
            brought = await loop.run_in_executor(
                self._threads,
                self._bringing.bring,
                # not waited for where it is not there yet: the cache may do
                self._ask.registry,
                model.name,
                model.registered,
                version,
            )
        except (PenstockError, OSError) as error:
            self._failed(self._now(model) or model, version, error, what)
            return error
        except BaseException:
            model.bringing.discard(version)
            raise
        else:
            now = self._now(model)
            if now is None:
                await self._take_back(model, version)
                return None
            model = now
            model.brought(version, brought.manifest)
            self._ask.count(fetches=int(brought.fetched), fetched_bytes=brought.bytes)
            digest = {"digest": brought.manifest.digest}
            if brought.fetched:
                log.info("model '%s' version %d is fetched", model.name, version)
                self._note(model, "done", "", {**what, **digest})
            await self._remember(model)
        self.tell()
        return None

    def _failed(
        self, model: Followed, version: int, error: Exception, what: Mapping[str, str]
    ) -> None:
        model.failed(version, str(error), asyncio.get_running_loop().time())
        log.warning("model '%s' version %d can't be fetched: %s", model.name, version, error)
        outcome: Outcome = "refused" if isinstance(error, (Untrusted, Forbidden)) else "failed"
        self._ask.count(**{f"{outcome}_fetches": 1})
        self._note(model, outcome, str(error), what)
        if self._now(model) is None:
            self._ask_now()
        # it is to be tried again
        self._wake.set()
        self.tell()

    def _now(self, model: Followed) -> Followed | None:
        """The model while a version of it was brought: it may have got other references. None: it is not served any
        more, or its name stands for another registered model."""
        now = self._models.get(model.name)
        return now if now is not None and now.registered == model.registered else None

    async def _take_back(self, model: Followed, version: int) -> None:
        """It has come for a model that is not served any more."""
        served = model.name in self._models
        hidden = self._bringing.view.hide(model.name, version if served else None)
        # the one that has its name may have waited with a version of that number
        self._ask_now()
        await asyncio.to_thread(self._bringing.view.discard, hidden)

    async def _remember(self, model: Followed) -> None:
        """What it means, if that is not what was remembered last."""
        key, known = (model.name, model.registered), model.known()
        if not known.meant or self._remembered.get(key) == known:
            return
        self._remembered[key] = known
        try:
            await asyncio.to_thread(self._bringing.cache.remember, model.registered, known)
        except OSError as error:
            log.warning("what '%s' means can't be kept for a restart: %s", model.name, error)

    # ── what the gateway asks ───────────────────────────────────────────────────────────────────────────────────────

    async def bring(self, name: str, version: int) -> None:
        """Have it in the view. It stays as long as it is held. Raises NotFound, Unavailable, LoadFailed."""
        while version not in (model := self._roster.served(name)).present:
            # one of a model that had this name before may be on its way still
            error = await asyncio.shield(self._begin(model, version))
            if isinstance(error, PenstockError):
                raise error
            if error is not None:
                raise LoadFailed(f"version {version} can't be fetched: {error}")

    def hold(self, versions: Mapping[str, tuple[int, ...]]) -> None:
        """These stay, whatever references mean."""
        self._roster.hold(versions)
        for model in self._roster.asked_for():
            self._bring_due(model)
        self.tell()

    async def release(self, name: str, version: int) -> None:
        """Nothing is served from it any more."""
        model = self._models.get(name)
        if model is None or version not in model.present or not model.may_release(version):
            return
        # at once: the same version may be brought again meanwhile
        hidden = self._bringing.view.hide(name, version)
        model.released(version)
        self.tell()
        await asyncio.to_thread(self._bringing.view.discard, hidden)
        await self._roster.forget_if_over(model)
        self.tell()

    def registered(self, name: str) -> str:
        """What the served model is called in the registry. Raises NotFound."""
        return self._roster.served(name).registered

    def tell(self) -> None:
        """Say what there is, if it is not what was said last."""
        if not self._adopted:
            return
        counts = msgspec.structs.replace(
            self._ask.counts,
            damaged_files=self._bringing.damaged,
            cache_bytes=self._bringing.cache_bytes,
            evicted_bytes=self._bringing.evicted_bytes,
            tags_written=self.tags_written(),
        )
        state = RegistryState(
            uri=self._uri,
            models=self._roster.states(),
            counts=counts,
            problem=self._problem,
        )
        if state != self.state:
            self.state = state
            self.on_state(state)

    def _note(
        self, model: Followed, outcome: Outcome, reason: str, details: Mapping[str, str]
    ) -> None:
        self.on_note(
            FetchNote(
                action="registry.fetch",
                model=model.name,
                outcome=outcome,
                reason=reason,
                details=details,
            )
        )
