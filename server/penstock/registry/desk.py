"""The agent's work: asks the registry again and again, brings what is missing, and says what is there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from penstock.errors import (
    Forbidden,
    InvalidRequest,
    LoadFailed,
    NotFound,
    PenstockError,
    Unavailable,
    Untrusted,
)
from penstock.registry.bringing import Bringing
from penstock.registry.entries import RepositoryEntry
from penstock.registry.followed import Followed
from penstock.registry.messages import (
    FetchNote,
    RegistryCounts,
    RegistryModel,
    RegistryState,
    ResolvedVersion,
    VersionLineage,
)
from penstock.registry.source import Registry
from penstock.registry_refs import RegistryRef, check_together, parse_part

log = logging.getLogger(__name__)

FALLBACK_S: Final = 5.0
"""How long the registry may take at first to say what references mean; then they mean what they meant before."""
JITTER: Final = 0.2
"""Of the time between two questions: many servers don't ask at once."""
SHORT_THREADS: Final = 2
FETCH_THREADS: Final = 8

T = TypeVar("T")
Connect = Callable[[], Registry]


class Desk:
    """All models of a server that come from the registry. For one event loop."""

    def __init__(
        self,
        refs: Iterable[RegistryRef],
        find_entries: Callable[[], list[RepositoryEntry]],
        connect: Connect,
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
        self._refs: Final = tuple(refs)
        self._find_entries: Final = find_entries
        self._connect: Final = connect
        self._bringing: Final = bringing
        self._uri: Final = uri
        self._poll_s: Final = poll_s
        self._fallback_s: Final = fallback_s
        self._registry: Registry | None = None
        self._models: dict[str, Followed] = {}
        self._entries: list[RepositoryEntry] = []
        self._held: Mapping[str, tuple[int, ...]] = {}
        self._tasks: dict[tuple[str, int], asyncio.Task[Exception | None]] = {}
        self._problem = ""
        self._counts = RegistryCounts()
        self._short: Final = ThreadPoolExecutor(SHORT_THREADS, "registry")
        self._long: Final = ThreadPoolExecutor(FETCH_THREADS, "fetch")
        self._wake = asyncio.Event()
        self._asked_for = False
        self._connecting = asyncio.Lock()
        self.state: RegistryState | None = None
        """What was said last; None: nothing yet."""

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._long, self._bringing.start)
        await self._adopt()
        self.tell()
        loop.call_later(self._fallback_s, self._fall_back)
        while True:
            await self._round()
            await self._sleep()
            await self._find_models()

    def close(self) -> None:
        """Its threads end with what they do."""
        self._short.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)

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
        for model in list(self._models.values()):
            if model.gone:
                continue
            if not away:
                away = await self._ask_for(model)
            if away:
                model.away(away)
            self._bring_due(model)
        if away != self._problem:
            if away:
                log.warning("%s; what was fetched goes on", away)
            elif self._problem:
                log.info("the registry answers again")
            self._problem = away
        self.tell()

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
        for model in self._models.values():
            if not model.gone:
                model.fall_back()
                self._bring_due(model)
        self.tell()

    # ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _adopt(self) -> None:
        """Go on where an agent before this one has ended."""
        before = await self._in_thread(self._bringing.view.state)
        await self._find_models()
        for old in () if before is None else before.models:
            model = self._models.get(old.name)
            if model is None or model.registered != old.registered:
                continue
            present = await self._in_thread(self._bringing.present, old.name, old.registered)
            model.adopt(present, old)

    async def _find_models(self) -> None:
        """Those of the settings, and those of repositories, as they are now."""
        self._entries = await self._in_thread(self._find_entries)
        by_name: dict[str, list[RegistryRef]] = {}
        for ref in (*self._refs, *(e.ref for e in self._entries if e.ref is not None)):
            by_name.setdefault(ref.name, []).append(ref)
        for name, refs in by_name.items():
            await self._follow(name, refs)
        for model in self._models.values():
            model.gone = model.name not in by_name
        for entry in self._entries:
            if entry.ref is not None:
                await self._put_beside(self._models[entry.ref.name], entry)

    async def _put_beside(self, model: Followed, entry: RepositoryEntry) -> None:
        """What lies beside the entry's file lies beside the versions."""
        try:
            put = self._bringing.view.put_beside
            if await self._in_thread(put, model.name, entry.beside):
                model.beside_changed()
        except OSError as error:
            log.warning("model '%s': %s", model.name, error)

    async def _follow(self, name: str, refs: list[RegistryRef]) -> None:
        try:
            check_together(refs)
        except InvalidRequest as error:
            log.warning("model '%s': %s", name, error)
            refs = refs[:1]
        known = self._models.get(name)
        if known is not None and known.refs == tuple(map(str, refs)):
            return
        cached = await self._in_thread(self._bringing.cache.known, refs[0].model)
        model = Followed(refs, cached)
        if known is not None and known.registered == model.registered:
            model.adopt(known.present, known.state())
        model.hold(self._held.get(name, ()))
        self._models[name] = model

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
                self._long,
                self._bringing.bring,
                # not waited for where it is not there yet: the cache may do
                self._registry,
                model.name,
                model.registered,
                version,
            )
        except (PenstockError, OSError) as error:
            refused = isinstance(error, (Untrusted, Forbidden))
            model.failed(version, str(error), loop.time())
            log.warning("model '%s' version %d can't be fetched: %s", model.name, version, error)
            outcome: str = "refused" if refused else "failed"
            self._count(**{f"{outcome}_fetches": 1})
            self._note(model, outcome, str(error), what)
            # it is to be tried again
            self._wake.set()
            self.tell()
            return error
        except BaseException:
            model.bringing.discard(version)
            raise
        else:
            model.brought(version, brought.manifest)
            self._count(fetches=int(brought.fetched), fetched_bytes=brought.bytes)
            digest = {"digest": brought.manifest.digest}
            if brought.fetched:
                log.info("model '%s' version %d is fetched", model.name, version)
                self._note(model, "done", "", {**what, **digest})
            await self._remember(model)
        self.tell()
        return None

    async def _remember(self, model: Followed) -> None:
        try:
            await self._in_thread(self._bringing.cache.remember, model.registered, model.known())
        except OSError as error:
            log.warning("what '%s' means can't be kept for a restart: %s", model.name, error)

    # ── what the gateway asks ───────────────────────────────────────────────────────────────────────────────────────

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
        manifest = await self._in_thread(self._bringing.cache.manifest, model.registered, number)
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
        manifest = await self._in_thread(self._bringing.cache.manifest, model.registered, version)
        return msgspec.structs.replace(found, digest=manifest.digest if manifest else "")

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed, InvalidRequest."""
        model, part = self._served(name), parse_part(f"@{alias}")
        await self._ask(lambda r: r.set_alias(model.registered, part[1:], version))
        self._ask_now()

    async def set_tag(self, registered: str, version: int, key: str, value: str) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        await self._ask(lambda r: r.set_tag(registered, version, key, value))

    async def bring(self, name: str, version: int) -> None:
        """Have it in the view. It stays as long as it is held. Raises NotFound, Unavailable, LoadFailed."""
        model = self._served(name)
        if version in model.present:
            return
        error = await asyncio.shield(self._begin(model, version))
        if isinstance(error, PenstockError):
            raise error
        if error is not None:
            raise LoadFailed(f"version {version} can't be fetched: {error}")

    def hold(self, versions: Mapping[str, tuple[int, ...]]) -> None:
        """These stay, whatever references mean."""
        self._held = dict(versions)
        for model in self._models.values():
            model.hold(versions.get(model.name, ()))
            self._bring_due(model)
        self.tell()

    async def release(self, name: str, version: int) -> None:
        """Nothing is served from it any more."""
        model = self._models.get(name)
        if model is None or version not in model.present or not model.may_release(version):
            return
        # at once: the same version may be brought again meanwhile
        hidden = [self._bringing.view.hide(name, version)]
        model.released(version)
        if model.gone and not model.present:
            hidden.append(self._bringing.view.hide(name))
            del self._models[name]
        self.tell()
        for folder in hidden:
            await self._in_thread(self._bringing.view.discard, folder)

    def registered(self, name: str) -> str:
        """What the served model is called in the registry. Raises NotFound."""
        return self._served(name).registered

    def tell(self) -> None:
        """Say what there is, if it is not what was said last."""
        models = [model.state() for model in self._models.values()]
        broken = [
            RegistryModel(
                name=entry.name, registered="", refs=(), problem=entry.problem, settled=True
            )
            for entry in self._entries
            if entry.ref is None and entry.name not in self._models
        ]
        counts = msgspec.structs.replace(
            self._counts,
            damaged_files=self._bringing.damaged,
            cache_bytes=self._bringing.cache_bytes,
            evicted_bytes=self._bringing.evicted_bytes,
            tags_written=self.tags_written(),
        )
        state = RegistryState(
            uri=self._uri,
            models=tuple(sorted([*models, *broken], key=lambda model: model.name)),
            counts=counts,
            problem=self._problem,
        )
        if state != self.state:
            self.state = state
            self.on_state(state)

    # ── the registry ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, question: Callable[[Registry], T]) -> T:
        """In a thread. Raises what the registry does."""
        try:
            registry = await self._connected()
            answer = await asyncio.get_running_loop().run_in_executor(
                self._short, question, registry
            )
        except Unavailable:
            self._asked(reachable=False, failed=True)
            raise
        except OSError as error:
            self._asked(reachable=False, failed=True)
            raise Unavailable(f"the registry can't be asked: {error}") from error
        except PenstockError:
            self._asked(reachable=True, failed=False)
            raise
        self._asked(reachable=True, failed=False)
        return answer

    def _asked(self, *, reachable: bool, failed: bool) -> None:
        self._count(requests=1, failures=int(failed))
        last = time.time() if reachable else self._counts.last_contact_s
        self._counts = msgspec.structs.replace(
            self._counts, reachable=reachable, last_contact_s=last
        )

    async def _connected(self) -> Registry:
        """MLflow takes seconds to import: in a thread. Raises Unavailable."""
        async with self._connecting:
            if self._registry is not None:
                return self._registry
            loop = asyncio.get_running_loop()
            try:
                registry = await loop.run_in_executor(self._short, self._connect)
            except PenstockError as error:
                raise Unavailable(str(error)) from error
            self._registry = registry
            return registry

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.to_thread(work, *arguments)

    def _count(self, **more: int) -> None:
        now = self._counts
        added = {name: getattr(now, name) + number for name, number in more.items()}
        self._counts = msgspec.structs.replace(now, **added)

    def _note(self, model: Followed, outcome: str, reason: str, details: Mapping[str, str]) -> None:
        self.on_note(
            FetchNote(
                action="registry.fetch",
                model=model.name,
                outcome=outcome,  # type: ignore[arg-type]
                reason=reason,
                details=details,
            )
        )

    def _served(self, name: str) -> Followed:
        model = self._models.get(name)
        if model is None:
            raise NotFound(f"model '{name}' does not come from the registry")
        return model
