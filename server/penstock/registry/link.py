"""The gateway's end of the line to the registry agent: it never blocks, and comes back by itself when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.errors import Forbidden, LoadFailed, NotFound, PenstockError, Unavailable
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
    ResolvedVersion,
    SetAlias,
    VersionLineage,
    WriteTag,
)

log = logging.getLogger(__name__)

AGENT_AWAY: Final = "the registry agent is not there: it is started again"
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 2.0
"""Until the agent's socket is tried again."""
ANSWER_TIMES: Final = 4
"""An answer may take so many times what the registry may: MLflow asks twice, and other questions may come first."""

OnAlias = Callable[[str, str, int | None, int | None], None]
"""Served model, alias, the version that it meant (None: it was not there), the one that it means (None: it is gone)."""

_ERRORS: Final[Mapping[Problem, type[PenstockError]]] = {
    "not_found": NotFound,
    "unavailable": Unavailable,
    "refused": Forbidden,
    "failed": LoadFailed,
}
_TagKey = tuple[str, int, str]


class RegistryLink:
    """What the gateway knows of the registry, and asks of it. Models are named as they are served.

    All its methods are for the event loop that it was made on.
    """

    def __init__(
        self, socket_path: Path, state: RegistryState | None = None, *, timeout_s: float = 10
    ) -> None:
        """`state`: what an agent last said to a gateway before this one. `timeout_s`: how long the registry may take to
        answer. Nothing is connected before `start`."""
        self.state: RegistryState = state or RegistryState()
        """What the agent said last; it stays while the agent is away."""
        self.on_state: Callable[[RegistryState], None] = lambda _: None
        self.on_note: Callable[[FetchNote], None] = lambda _: None
        self.on_alias: OnAlias = lambda *_: None
        """Called for each alias of a served model that is new, has moved, or is gone, once; after a gateway's start for
        all that there are, with None as the version before. Of one that a reference names the version is loaded first.
        It is called for no alias that names a version which can't be loaded."""
        self.share_of: Callable[[str, int], float | None] = lambda *_: None
        """Percent of a model's requests that a version gets, where a roll-out decides; None: none does. Call
        `statuses_changed` when that has changed."""
        self.statuses_changed: Callable[[], None] = lambda: None
        self.loaded: Callable[[str, int], Awaitable[None]] = _at_once
        """Waits until a version that is in the view is loaded. Raises LoadFailed."""
        self._socket_path: Final = socket_path
        self._answer_s: Final = timeout_s * ANSWER_TIMES
        self._models: dict[str, RegistryModel] = {m.name: m for m in self.state.models}
        self._decoder: Final = msgspec.msgpack.Decoder(AgentMessage)
        self._writer: asyncio.StreamWriter | None = None
        self._running: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Future[Answer]] = {}
        self._next_call = 1
        self._held: dict[str, set[int]] = {}
        self._tags: dict[_TagKey, str] = {}
        """To be written, as far as anybody knows."""
        self._tag_calls: dict[int, dict[_TagKey, str]] = {}
        self._deployments: Deployments | None = None
        self._look_due = False

    # ── what others ask ─────────────────────────────────────────────────────────────────────────────────────────────

    def serves(self, model: str) -> bool:
        """Whether the model comes from the registry."""
        return model in self._models

    def model(self, name: str) -> RegistryModel | None:
        """What there is of it; None: it does not come from the registry."""
        return self._models.get(name)

    def aliases(self, model: str) -> Mapping[str, int]:
        """All aliases of the model, as the registry had them when it was last asked; empty for others."""
        found = self._models.get(model)
        return {} if found is None else found.aliases

    async def resolve(self, model: str, ref: str) -> ResolvedVersion:
        """What a reference means now: `@challenger`, `4`, or empty for the latest. Asks the registry.

        Raises NotFound (no such model, alias or version), Unavailable (it can't be asked now), Forbidden."""
        answer = await self._ask(lambda call: Resolve(call=call, model=model, ref=ref))
        assert answer.resolved is not None
        return answer.resolved

    async def want(self, model: str, version: int) -> None:
        """Have that version loaded beside the others, although no reference names it, until `unwant`; returns when it
        is. It is fetched where it has to be. Raises NotFound, Unavailable, Forbidden, LoadFailed: then it is not
        wanted."""
        held = self._held.setdefault(model, set())
        new = version not in held
        held.add(version)
        self._send_held()
        try:
            # as long as it takes: files may be large
            await self._ask(lambda call: Bring(call=call, model=model, version=version), None)
            await self.loaded(model, version)
        except BaseException:
            if new:
                self.unwant(model, version)
            raise

    def unwant(self, model: str, version: int) -> None:
        """It may go again, unless a reference names it."""
        self._held.get(model, set()).discard(version)
        self._send_held()

    def holds(self, model: str, version: int) -> bool:
        """Whether it is wanted."""
        return version in self._held.get(model, ())

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """Have the alias mean that version, in the registry. Raises NotFound, Unavailable, Forbidden, LoadFailed:
        nothing was changed, as far as anybody knows. Trying again does no harm."""
        await self._ask(lambda call: SetAlias(call=call, model=model, alias=alias, version=version))

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Have tags of the version written. Returns at once; it is tried until it works, also after the registry was
        away, and of several values of one name the last holds. What is not written when the gateway ends is lost."""
        self._tags |= {(model, version, name): value for name, value in tags.items()}
        self._send_tags(model, version, tags)

    async def lineage(self, model: str, version: int) -> VersionLineage:
        """Where the version comes from. Raises NotFound, Unavailable, Forbidden."""
        answer = await self._ask(lambda call: AskLineage(call=call, model=model, version=version))
        assert answer.lineage is not None
        return answer.lineage

    def look(self) -> None:
        """Somebody says that the registry has changed: it is asked at once, or when there is an agent again."""
        self._look_due = self._writer is None
        self._send(Look())

    def release(self, model: str, version: int) -> None:
        """Nothing is served from it any more."""
        self._send(Release(model=model, version=version))

    def deployed(self, statuses: Mapping[str, Mapping[int, DeploymentStatus]]) -> None:
        """How all versions are served now."""
        self._deployments = Deployments(statuses=statuses)
        self._send(self._deployments)

    def hear(self, state: RegistryState) -> None:
        """The agent has said this."""
        self.state = state
        self._models = {model.name: model for model in state.models}
        self.on_state(state)

    # ── the line ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        """Whether there is an agent."""
        return self._writer is not None

    def start(self) -> None:
        """Begin to look for the agent, for ever."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Whoever waits for an answer is told that there is none."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._socket_path)
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LONGEST_RETRY_S)
                continue
            delay_s = FIRST_RETRY_S
            try:
                await self._talk(reader, writer)
            except Ended:
                log.warning("%s; what it has brought goes on", AGENT_AWAY)
            finally:
                self._hang_up(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises Ended."""
        self._writer = writer
        # before anything is released
        self._send_held()
        if self._deployments is not None:
            self._send(self._deployments)
        if self._look_due:
            self.look()
        for (model, version, name), value in list(self._tags.items()):
            self._send_tags(model, version, {name: value})
        while True:
            match await read(reader, self._decoder):
                case RegistryState() as state:
                    self.hear(state)
                case FetchNote() as note:
                    self.on_note(note)
                case Answer() as answer:
                    self._take(answer)

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        self._writer = None
        self._tag_calls.clear()
        with contextlib.suppress(OSError):
            writer.close()
        calls, self._calls = self._calls, {}
        for call, waiting in calls.items():
            if not waiting.done():
                waiting.set_result(Answer(call=call, problem="unavailable", text=AGENT_AWAY))

    def _take(self, answer: Answer) -> None:
        written = self._tag_calls.pop(answer.call, None)
        if written is not None:
            # those that never will be are not tried again either: the agent has logged them
            for key, value in written.items():
                if self._tags.get(key) == value:
                    del self._tags[key]
        waiting = self._calls.pop(answer.call, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def _ask(
        self, make: Callable[[int], GatewayCall], timeout_s: float | None = -1.0
    ) -> Answer:
        """Raises what the answer says, and Unavailable where there is none in time. None: any time."""
        if self._writer is None:
            raise Unavailable(AGENT_AWAY)
        patience_s = self._answer_s if timeout_s == -1.0 else timeout_s
        call = self._number()
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls[call] = waiting
        try:
            self._send(make(call))
            async with asyncio.timeout(patience_s):
                answer = await waiting
        except TimeoutError:
            raise Unavailable(f"the registry did not answer within {patience_s:g} s") from None
        finally:
            self._calls.pop(call, None)
        if answer.problem is not None:
            raise _ERRORS[answer.problem](answer.text)
        return answer

    def _send_held(self) -> None:
        held = {model: tuple(sorted(versions)) for model, versions in self._held.items()}
        self._send(Held(versions={model: versions for model, versions in held.items() if versions}))

    def _send_tags(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        if self._writer is None:
            return
        call = self._number()
        self._tag_calls[call] = {(model, version, name): value for name, value in tags.items()}
        self._send(WriteTag(call=call, model=model, version=version, tags=tags))

    def _number(self) -> int:
        self._next_call += 1
        return self._next_call

    def _send(self, message: GatewayCall) -> None:
        """While there is no agent, it is told when there is one, or not at all."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))


async def _at_once(*_: Any) -> None:
    return None
