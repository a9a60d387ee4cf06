"""Where the gateway comes to the agent: what it asks, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import msgspec

from penstock.errors import Forbidden, NotFound, PenstockError, Unavailable
from penstock.registry.desk import Desk
from penstock.registry.framing import Ended, frame, read
from penstock.registry.messages import (
    AgentMessage,
    Answer,
    AskLineage,
    Bring,
    Deployments,
    DeploymentStatus,
    FetchNote,
    GatewayCall,
    Held,
    Look,
    Problem,
    RegistryModel,
    RegistryState,
    Release,
    Resolve,
    SetAlias,
    WriteTag,
)
from penstock.registry.tag_writer import TagWriter
from penstock.registry.view import View

log = logging.getLogger(__name__)

DEPLOYMENT_TAG: Final = "penstock.deployment."
MAX_NOTES: Final = 1000
"""That wait for a gateway."""


class Counter:
    """One gateway at a time: one that comes takes the place of the one before."""

    def __init__(self, desk: Desk, view: View, server: str) -> None:
        """`server`: this server's id in tags of deployments; empty: there are none."""
        self._desk: Final = desk
        self._view: Final = view
        self._tag: Final = f"{DEPLOYMENT_TAG}{server}" if server else ""
        self._tags: Final = TagWriter(desk.answers.set_tag)
        self._decoder: Final = msgspec.msgpack.Decoder(GatewayCall)
        self._gateway: asyncio.StreamWriter | None = None
        self._notes: list[FetchNote] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._deployed: dict[tuple[str, int], DeploymentStatus] = {}
        self._kept: tuple[RegistryModel, ...] = ()
        """What the view's folder has for a gateway that starts."""
        desk.tags_written = lambda: self._tags.count
        desk.on_state = self._tell
        desk.on_note = self._note

    async def run(self) -> None:
        """Write tags for ever."""
        await self._tags.run()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A gateway has come: tell it what there is, and do what it says until it goes."""
        self.hang_up()
        self._gateway = writer
        if self._desk.state is not None:
            self._send(self._desk.state)
        notes, self._notes = self._notes, []
        for note in notes:
            self._send(note)
        try:
            while True:
                self._take(await read(reader, self._decoder))
        except Ended:
            pass
        finally:
            if self._gateway is writer:
                self._gateway = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def hang_up(self) -> None:
        """Have the gateway come anew."""
        if self._gateway is not None:
            self._gateway.close()

    async def say_stopped(self, timeout_s: float) -> None:
        """Nothing is served any more: as far as the registry can be told."""
        if self._desk.state is None or not self._desk.state.counts.reachable:
            return
        for (registered, version), status in self._deployed.items():
            stopped = msgspec.structs.replace(status, state="STOPPED", share=0, healthy=False)
            self._tags.put(registered, version, {self._tag: _json(stopped)})
        await self._tags.flush(timeout_s)

    def _take(self, call: GatewayCall) -> None:
        match call:
            case Held(versions=versions):
                self._desk.hold(versions)
            case Look():
                self._desk.look()
            case Release(model=model, version=version):
                self._start(self._desk.release(model, version))
            case Deployments(statuses=statuses):
                self._report(statuses)
            case _:
                self._start(self._answer(call))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call of the gateway failed", exc_info=error)

    async def _answer(self, call: Resolve | SetAlias | AskLineage | Bring | WriteTag) -> None:
        try:
            answer = await self._done(call)
        except PenstockError as error:
            answer = Answer(call=call.call, problem=_problem(error), text=str(error))
        except OSError as error:
            answer = Answer(call=call.call, problem="failed", text=str(error))
        self._send(answer)

    async def _done(self, call: Resolve | SetAlias | AskLineage | Bring | WriteTag) -> Answer:
        desk = self._desk
        match call:
            case Resolve(model=model, ref=ref):
                return Answer(call=call.call, resolved=await desk.answers.resolve(model, ref))
            case AskLineage(model=model, version=version):
                return Answer(call=call.call, lineage=await desk.answers.lineage(model, version))
            case SetAlias(model=model, alias=alias, version=version):
                await desk.answers.set_alias(model, alias, version)
            case Bring(model=model, version=version):
                await desk.bring(model, version)
            case WriteTag(model=model, version=version, tags=tags):
                written = self._tags.put(desk.registered(model), version, tags)
                results = await asyncio.gather(*written, return_exceptions=True)
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
        return Answer(call=call.call)

    def _report(self, statuses: Mapping[str, Mapping[int, DeploymentStatus]]) -> None:
        """Write what has changed of how versions are served."""
        if not self._tag:
            return
        now: dict[tuple[str, int], DeploymentStatus] = {}
        for name, versions in statuses.items():
            with contextlib.suppress(NotFound):
                registered = self._desk.registered(name)
                now |= {(registered, version): status for version, status in versions.items()}
        for key, status in self._deployed.items():
            if key not in now:
                stopped = msgspec.structs.replace(status, state="STOPPED", share=0, healthy=False)
                self._tags.put_calmly(*key, self._tag, _json(stopped))
        for key, status in now.items():
            self._tags.put_calmly(*key, self._tag, _json(status))
        self._deployed = now

    def _tell(self, state: RegistryState) -> None:
        if state.models != self._kept:
            self._kept = state.models
            try:
                self._view.keep_state(state)
            except OSError as error:
                log.warning("what is served can't be kept for another gateway: %s", error)
        self._send(state)

    def _note(self, note: FetchNote) -> None:
        if self._gateway is None:
            self._notes = [*self._notes, note][-MAX_NOTES:]
        else:
            self._send(note)

    def _send(self, message: AgentMessage) -> None:
        if self._gateway is not None and not self._gateway.is_closing():
            self._gateway.write(frame(message))


def _json(status: DeploymentStatus) -> str:
    return msgspec.json.encode(status).decode()


def _problem(error: PenstockError) -> Problem:
    if isinstance(error, NotFound):
        return "not_found"
    if isinstance(error, Unavailable):
        return "unavailable"
    return "refused" if isinstance(error, Forbidden) else "failed"
