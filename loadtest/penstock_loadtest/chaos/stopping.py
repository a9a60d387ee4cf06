"""SIGTERM under load: what was sent before it is answered, and what comes after it is answered or turned away."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock_loadtest.chaos.asking import Asking, Role, Scene
from penstock_loadtest.chaos.books import Kind, Outcome
from penstock_loadtest.chaos.cast import Cast
from penstock_loadtest.chaos.clients import Client, TritonGrpc, TritonHttp
from penstock_loadtest.chaos.explain import explain
from penstock_loadtest.chaos.family import alive, read_family
from penstock_loadtest.chaos.models import AFFINE, GRAPH_MODEL, ORDERED, RELOADED, Target
from penstock_loadtest.chaos.questions import make_question
from penstock_loadtest.chaos.raw_http import RawHttp

LOAD_S: Final = 1.0
"""How long the load lasts before SIGTERM."""
EXIT_S: Final = 45.0
GONE_S: Final = 5.0


@dataclass(slots=True)
class Stop:
    """When SIGTERM was sent, on the books' clock."""

    sent_s: float = float("inf")


async def stop_under_load(scene: Scene, supervisor: int) -> list[str]:
    """Load, SIGTERM, and the end of all clients and processes. Each line returned is something that must not be."""
    family = read_family(supervisor)
    stop = Stop()
    cast = _clients(scene, stop)

    async def terminate() -> None:
        await asyncio.sleep(LOAD_S)
        stop.sent_s = scene.books.now()
        os.kill(supervisor, signal.SIGTERM)

    cast.loop.append(terminate)
    await cast.perform(scene)
    lines = await asyncio.to_thread(_await_end, supervisor)
    return [*lines, *(await asyncio.to_thread(_outlived, family.pids - {supervisor}))]


def _clients(scene: Scene, stop: Stop) -> Cast:
    """Several of each kind, each until the server turns it away."""
    makers: list[tuple[str, Callable[[random.Random], Client]]] = [
        ("grpc", lambda _: TritonGrpc(scene.grpc)),
        ("http", lambda _: TritonHttp(scene.http)),
        ("raw", lambda rng: RawHttp(scene.http, rng)),
    ]
    return Cast(
        [
            partial(_ask_until_refused, scene, stop, _role(scene, name, t), make)
            for name, make in makers
            for t in (AFFINE, GRAPH_MODEL, ORDERED, RELOADED)
        ]
    )


def _role(scene: Scene, name: str, target: Target) -> Role:
    known = scene.tolerated & {Kind.SHUT_OUT}
    return Role(f"stop-{name}-{target.name}", target, known | {Kind.OK, Kind.STOPPED})


def _ask_until_refused(
    scene: Scene, stop: Stop, role: Role, make: Callable[[random.Random], Client]
) -> None:
    rng = scene.rng(role.name)
    with closing(make(rng)) as client:
        while not scene.stop.is_set():
            x = make_question(rng, role.target)
            asking = Asking(scene, role, x)
            try:
                reply = client.ask(asking.model, asking.id, x)
            except Exception as error:  # noqa: BLE001 - `_turned_away` says which ones may be
                asking.ended(_turned_away(explain(error), asking.ticket.sent_s > stop.sent_s))
                return
            asking.answered(reply)


def _turned_away(outcome: Outcome, after: bool) -> Outcome:
    """A request that was sent after SIGTERM may be refused; one sent before may not."""
    if outcome.kind is Kind.CANCELLED:
        return Outcome(Kind.SHUT_OUT, outcome.detail)
    if not after:
        return Outcome(Kind.UNEXPLAINED, f"sent before SIGTERM: {outcome.kind} {outcome.detail}")
    if outcome.kind is Kind.LINK_LOST:
        return Outcome(Kind.STOPPED, outcome.detail)
    return outcome


def _await_end(supervisor: int) -> list[str]:
    """The supervisor ends by itself, with 0. It is not reaped: its starter does that."""
    descriptor = os.pidfd_open(supervisor)
    try:
        if not select.select([descriptor], [], [], EXIT_S)[0]:
            return [f"the server did not end within {EXIT_S:.0f} s after SIGTERM"]
    finally:
        os.close(descriptor)
    ended = os.waitid(os.P_PID, supervisor, os.WEXITED | os.WNOWAIT)
    if ended is None or (ended.si_code, ended.si_status) != (os.CLD_EXITED, 0):
        return [f"the server ended with {ended}, expected 0"]
    return []


def _outlived(pids: set[int]) -> list[str]:
    """The processes that are still there some time after their supervisor's end."""
    deadline = time.monotonic() + GONE_S
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {pid} outlived the supervisor" for pid in left]
