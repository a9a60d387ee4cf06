"""A whole run: start, warm up, harm, calm down, balance the books, stop under load."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from penstock_loadtest.chaos import flatness, server_books, server_log
from penstock_loadtest.chaos.asking import Scene
from penstock_loadtest.chaos.books import Balance, Books, Kind
from penstock_loadtest.chaos.cast import behind_relays, patient, unruly
from penstock_loadtest.chaos.family import Reading, read_holdings, shared_memory
from penstock_loadtest.chaos.garbage import send_garbage
from penstock_loadtest.chaos.killer import Killer, Reloader
from penstock_loadtest.chaos.models import TARGETS, write_models
from penstock_loadtest.chaos.relay import Relay
from penstock_loadtest.chaos.server_books import ServerCount
from penstock_loadtest.chaos.stopping import stop_under_load
from penstock_loadtest.servers import Penstock, RunningServer, running

WARM_UP_S: Final = 3.0
SETTLE_S: Final = 60.0
"""How long killed workers may take to be back, and connections to be gone."""
RELOAD_PAUSE_S: Final = 0.7
KNOWN_FAULTS: Final = {
    # one in some ten thousand calls that are cancelled or late ends its connection by GOAWAY
    "envoy": frozenset({Kind.LINK_LOST}),
    # at its stop gRPC's core cancels calls that it has received and no handler has taken yet
    "grpcio": frozenset({Kind.SHUT_OUT}),
}
SERVE_FLAGS: Final = ("--model-control-mode=explicit", "--load-model=*")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    seconds: float
    seed: int
    front: str
    executable: tuple[str, ...]
    """The words before `serve`."""
    poison: bool = True
    bounds: flatness.Bounds = field(default_factory=flatness.Bounds)


@dataclass(slots=True)
class Deeds:
    """What chaos did, for the report."""

    kills: int = 0
    reloads: int = 0
    cuts: int = 0
    stalls: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """All that a run found."""

    plan: Plan
    balance: Balance
    server: dict[str, ServerCount]
    before: Reading
    after: Reading
    deeds: Deeds
    faults: list[str] = field(default_factory=list)
    """What is wrong beside single answers: the server's books, flatness, log, end."""

    @property
    def passed(self) -> bool:
        """Whether the books balance."""
        return not self.faults and not self.balance.problem_count


Progress = Callable[[str, Balance], None]
"""Told about once a second: the phase, and the books so far."""


def run_chaos(plan: Plan, progress: Progress) -> Result:
    """Run it all. Raises BenchmarkError where the server can't be started."""
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        repository, log = Path(folder) / "models", Path(folder) / "log"
        repository.mkdir()
        write_models(repository)
        shared = shared_memory()
        penstock = Penstock(plan.executable, (*SERVE_FLAGS, "--front", plan.front))
        with running(penstock, repository, log) as server:
            result = asyncio.run(_Run(plan, server, repository, progress).run())
        return replace(result, faults=[*result.faults, *_left_behind(log, shared)])


def _left_behind(log: Path, shared: frozenset[str]) -> list[str]:
    bugs = server_log.bugs_in(log.read_text(errors="replace"))
    faults = [f"the server's log says {bug}" for bug in bugs[:20]]
    if left := sorted(shared_memory() - shared):
        faults.append(f"left in /dev/shm: {', '.join(left[:10])}")
    return faults


class _Run:
    """The phases of one run, one after the other."""

    def __init__(
        self, plan: Plan, server: RunningServer, repository: Path, progress: Progress
    ) -> None:
        self._plan = plan
        self._server = server
        self._repository = repository
        self._progress = progress
        self._deeds = Deeds()
        http, grpc = (f"127.0.0.1:{port}" for port in (server.ports.http, server.ports.grpc))
        self._metrics = f"127.0.0.1:{server.ports.metrics}"
        known = KNOWN_FAULTS.get(plan.front, frozenset())
        self._scene = Scene(plan.seed, http, grpc, Books(), threading.Event(), tolerated=known)

    async def run(self) -> Result:
        await self._play("warm-up", WARM_UP_S, self._calm_load)
        before = await self._settled("warm-up")
        await self._play("chaos", self._plan.seconds, self._chaos)
        after = await self._settled("calm")
        counts = await asyncio.to_thread(server_books.read_counts, self._metrics)
        clients = self._scene.books.balance()
        faults = server_books.compare(TARGETS, clients, counts)
        faults += flatness.compare(TARGETS, before, after, self._plan.bounds)
        faults += await self._stop()
        self._scene.books.close_missing()
        balance = self._scene.books.balance()
        return Result(self._plan, balance, counts, before, after, self._deeds, faults)

    async def _play(
        self, phase: str, seconds: float, act: Callable[[Scene], Awaitable[None]]
    ) -> None:
        """One phase: until `act` has ended after `seconds`."""
        scene = replace(self._scene, stop=threading.Event())
        timer = asyncio.create_task(self._stop_after(scene, phase, seconds))
        try:
            await act(scene)
        finally:
            scene.stop.set()
            await timer

    async def _stop_after(self, scene: Scene, phase: str, seconds: float) -> None:
        began_s = time.monotonic()
        while not scene.stop.is_set():
            gone_s = time.monotonic() - began_s
            if gone_s >= seconds:
                scene.stop.set()
            self._progress(f"{phase} {gone_s:.0f}/{seconds:.0f} s", scene.books.balance())
            await asyncio.sleep(min(1.0, max(0.01, seconds - gone_s)))

    async def _calm_load(self, scene: Scene) -> None:
        """All code runs once, connections of each kind are made and closed, and a model is loaded anew."""
        relays: list[Relay] = []
        cast = patient(scene) + await behind_relays(scene, relays)
        for relay in relays:
            relay.tame = True
        cast.loop.append(lambda: Reloader(scene, self._repository, None).run(RELOAD_PAUSE_S))
        try:
            await cast.perform(scene)
        finally:
            await asyncio.gather(*(relay.close() for relay in relays))

    async def _chaos(self, scene: Scene) -> None:
        relays: list[Relay] = []
        killer = Killer(scene, self._server.pid)
        reloader = Reloader(scene, self._repository, killer)
        cast = patient(scene) + unruly(scene, poison=self._plan.poison)
        cast += await behind_relays(scene, relays)
        cast.loop += [
            killer.run,
            lambda: reloader.run(RELOAD_PAUSE_S),
            lambda: send_garbage(scene),
        ]
        try:
            await cast.perform(scene)
        finally:
            await asyncio.gather(*(relay.close() for relay in relays))
        self._deeds = Deeds(
            killer.kills,
            reloader.loads,
            sum(relay.cuts for relay in relays),
            sum(relay.stalls for relay in relays),
        )

    async def _settled(self, phase: str) -> Reading:
        """What the server holds once its workers are back and it has seen the end of all connections."""
        self._progress(f"{phase}: waiting for quiet", self._scene.books.balance())
        workers = flatness.expected_workers(TARGETS)
        deadline = time.monotonic() + SETTLE_S
        earlier: Reading | None = None
        while True:
            await asyncio.sleep(0.5)
            reading = await asyncio.to_thread(read_holdings, self._server.pid)
            still = earlier is not None and _same(earlier, reading)
            if still and reading.workers == workers and await self._queues_empty():
                return reading
            if time.monotonic() > deadline:
                return reading
            earlier = reading

    async def _queues_empty(self) -> bool:
        with contextlib.suppress(OSError):
            counts = await asyncio.to_thread(server_books.read_counts, self._metrics)
            return not any(count.pending for count in counts.values())
        return False

    async def _stop(self) -> list[str]:
        self._progress("SIGTERM under load", self._scene.books.balance())
        scene = replace(self._scene, stop=threading.Event())
        return await stop_under_load(scene, self._server.pid)


def _same(one: Reading, other: Reading) -> bool:
    """Whether nothing came or went in between; memory may still."""
    names = ("processes", "gateway_descriptors", "supervisor_descriptors", "slabs")
    return all(getattr(one, name) == getattr(other, name) for name in names)
