"""A gateway's roll-outs without a gateway: with versions whose answers the test gives, and a registry that it plays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from penstock.audit.event import AuditEvent
from penstock.errors import NotFound, PenstockError
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.inference import Inference
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_records import RolloutRecords
from penstock.gateway.rollout_request import RolloutRequest
from penstock.gateway.rollout_run import RolloutRun
from penstock.gateway.rollout_store import RolloutStore
from penstock.gateway.rollout_versions import Folders, VersionSource
from penstock.gateway.rollouts import Rollouts
from penstock.rollouts_config import RolloutsSettings
from penstock.types import NO_TERMS, Parameter
from rollout_bench import HEADER, A, B, Encoder, FakePool, Index, Sent, version


class FakeRegistry:
    """A registry that serves the model `m`."""

    def __init__(self) -> None:
        self.held: list[tuple[str, int]] = []
        self.known = {"champion": 1, "challenger": 2}
        self.tags: dict[str, str] = {}
        self.said: dict[int, dict[str, str]] = {}
        """Version → tags that it had before."""
        self.moves: list[tuple[str, int]] = []
        self.problem: PenstockError | None = None

    def serves(self, model: str) -> bool:
        """As VersionSource."""
        return model == "m"

    def aliases(self, model: str) -> Mapping[str, int]:
        """As VersionSource."""
        return self.known

    async def resolve(self, model: str, ref: str) -> Any:
        """As VersionSource."""
        if not ref.startswith("@"):
            return SimpleNamespace(version=int(ref), tags=self.said.get(int(ref), {}))
        if ref[1:] not in self.known:
            raise NotFound(f"no {ref}")
        version = self.known[ref[1:]]
        return SimpleNamespace(version=version, tags=self.said.get(version, {}))

    async def want(self, model: str, version: int) -> None:
        """As VersionSource."""
        if self.problem is not None:
            raise self.problem
        self.held.append((model, version))

    def unwant(self, model: str, version: int) -> None:
        """As VersionSource."""
        if (model, version) in self.held:
            self.held.remove((model, version))

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """As VersionSource."""
        if self.problem is not None:
            raise self.problem
        self.moves.append((alias, version))
        self.known[alias] = version

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """As VersionSource."""
        self.tags |= tags


class Log:
    """An audit log."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> int:
        """As AuditLog."""
        self.events.append(event)
        return len(self.events)


class RolloutServer:
    """A gateway's roll-outs. Versions 1 and 2 of `m` are there."""

    def __init__(
        self,
        folder: Path,
        source: VersionSource | None = None,
        loaded: bool = True,
        **settings: Any,
    ) -> None:
        self.stable, self.candidate = FakePool(), FakePool()
        self.index = Index()
        self.log = Log()
        audit_log: Any = self.log
        source = source or Folders()
        index: Any = self.index
        self.rollouts = Rollouts(
            index,
            RolloutsSettings(**settings),
            RolloutKeeper(RolloutStore(folder)),
            source,
            RolloutRecords(audit_log, source),
        )
        self.inference = Inference(index, ClientMemory(allowed=False))
        self.index.on_change = self.rollouts.follow_models
        if loaded:
            self.load()

    def load(self) -> None:
        """Both versions are there from now on."""
        self.index.put(version(1, self.stable))
        self.index.put(version(2, self.candidate))

    async def begin(self) -> RolloutServer:
        """As a gateway does that starts."""
        await self.rollouts.restore()
        self.rollouts.models_are_loaded()
        return self

    async def start(self, to: object = 2, **given: Any) -> RolloutRun:
        """Begin a roll-out."""
        return await self.rollouts.start("m", RolloutRequest({"to": to, **given}), "key:ada")

    def send(self, request_id: str = "", **parameters: Parameter) -> Sent:
        """A client's request, which waits in a version's queue."""
        header = replace(HEADER, parameters=parameters) if parameters else HEADER
        bound = self.inference.bind(header, NO_TERMS, request_id)
        sent = Sent(bound.model.version)
        encoder = Encoder(bound.model)
        sent.pending = self.inference.submit(bound, request_id, [A, B], encoder, sent.respond, 100)
        return sent

    async def traffic(self, until: Callable[[], bool], *, fails: bool = False) -> list[Sent]:
        """Requests that are answered, one after the other; the candidate may fail all that it gets."""
        every: list[Sent] = []
        while not until():
            assert len(every) < 20_000, "it never happens"
            sent = self.send()
            every.append(sent)
            if sent.first == 2 and fails:
                self.candidate.fail()
            elif sent.first == 2:
                self.candidate.answer()
            if sent.first == 1 or (fails and not sent.answers):
                self.stable.answer()
            await asyncio.sleep(0)
        return every

    def actions(self) -> list[str]:
        """What was recorded."""
        return [event.action for event in self.log.events]
