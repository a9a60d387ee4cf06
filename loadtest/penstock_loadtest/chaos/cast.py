"""Who takes part in a run: the actors, over which connections, and which answers each of them may get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from penstock_loadtest.chaos import actors, leavers
from penstock_loadtest.chaos.actors import MakeClient
from penstock_loadtest.chaos.asking import Role, Scene
from penstock_loadtest.chaos.books import Kind
from penstock_loadtest.chaos.clients import TritonGrpc, TritonHttp
from penstock_loadtest.chaos.models import (
    AFFINE,
    BOUNDED,
    FRAIL,
    GRAPH_MODEL,
    ORDERED,
    RELOADED,
    SHAKY,
    Target,
)
from penstock_loadtest.chaos.raw_http import RawHttp
from penstock_loadtest.chaos.relay import Habits, Relay

BURST: Final = 48
"""Three times what BOUNDED's queue holds."""
FEW_COLUMNS: Final = 8
"""Poisoned requests and their mates must fit into one batch."""
MANY_COLUMNS: Final = 60_000
"""Answers of up to 4 MB, which no buffer between server and client swallows whole."""

OK: Final = frozenset({Kind.OK})
MAY_BE_FULL: Final = OK | {Kind.QUEUE_FULL}
MAY_BE_CUT: Final = OK | {Kind.CUT}
CUTS: Final = Habits(cut_after_bytes=40_000)
LARGE_CUTS: Final = Habits(cut_after_bytes=20_000_000)
STALLS: Final = Habits(stall_s=2.0, stall_share=0.02)


@dataclass(slots=True)
class Cast:
    """Actors that run in threads, and those of the event loop."""

    threads: list[Callable[[], None]] = field(default_factory=list)
    loop: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def __add__(self, other: Cast) -> Cast:
        return Cast(self.threads + other.threads, self.loop + other.loop)

    async def perform(self, scene: Scene) -> None:
        """Run all until the scene stops and each has ended. An actor that fails by itself stops it for all."""

        async def watched(actor: Awaitable[None]) -> None:
            try:
                await actor
            except BaseException:
                scene.stop.set()
                raise

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max(1, len(self.threads))) as pool:
            running: list[Awaitable[None]] = [
                loop.run_in_executor(pool, actor) for actor in self.threads
            ]
            running += [actor() for actor in self.loop]
            await asyncio.gather(*map(watched, running))


def patient(scene: Scene) -> Cast:
    """Those who talk to the server directly and wait for each answer: none of theirs may fail."""
    http, grpc = scene.http, scene.grpc
    roles: list[tuple[Role, MakeClient]] = [
        (Role("grpc-affine", AFFINE), partial(TritonGrpc, grpc)),
        (Role("grpc-bounded", BOUNDED, MAY_BE_FULL), partial(TritonGrpc, grpc)),
        (Role("grpc-frail", FRAIL, columns=FEW_COLUMNS), partial(TritonGrpc, grpc)),
        (Role("http-affine", AFFINE), partial(TritonHttp, http)),
        (Role("http-graph", GRAPH_MODEL), partial(TritonHttp, http)),
        (Role("http-reloaded", RELOADED), partial(TritonHttp, http)),
        *(_raw(scene, target) for target in (GRAPH_MODEL, RELOADED, ORDERED)),
        _raw(scene, FRAIL, columns=FEW_COLUMNS),
    ]
    callbacks = [Role(f"callback-{t.name}", t) for t in (AFFINE, ORDERED, RELOADED)]
    aio = [Role(f"aio-{t.name}", t) for t in (AFFINE, GRAPH_MODEL, RELOADED)]
    aio.append(Role("aio-frail", FRAIL, columns=FEW_COLUMNS))
    return Cast(
        [
            *(partial(actors.ask_in_turn, scene, role, make) for role, make in roles),
            *(partial(actors.ask_with_callbacks, scene, role, grpc) for role in callbacks),
        ],
        [partial(actors.ask_in_turn_aio, scene, role, grpc) for role in aio],
    )


def unruly(scene: Scene, *, poison: bool) -> Cast:
    """Those who hurry, cancel, hang up, flood and poison, each on a connection of its own."""
    http, grpc = scene.http, scene.grpc
    known = scene.tolerated & {Kind.LINK_LOST}
    late = OK | known | {Kind.LATE}
    left = frozenset({Kind.CANCELLED})
    cast = Cast(
        [partial(actors.flood, scene, _flood_role(), grpc, BURST)],
        [
            partial(leavers.hurry, scene, Role("hurry-ordered", ORDERED, late), grpc),
            partial(leavers.hurry, scene, Role("hurry-bounded", BOUNDED, late | MAY_BE_FULL), grpc),
            partial(
                leavers.cancel, scene, Role("cancel-ordered", ORDERED, OK | known | left), grpc
            ),
            partial(
                leavers.cancel, scene, Role("cancel-reloaded", RELOADED, OK | known | left), grpc
            ),
            partial(leavers.hang_up, scene, Role("hang-up-ordered", ORDERED, left), http),
            partial(leavers.hang_up, scene, Role("hang-up-bounded", BOUNDED, left), http),
        ],
    )
    if poison:
        role = Role("poison", FRAIL, frozenset({Kind.CRASHED}), columns=FEW_COLUMNS)
        cast.loop.append(partial(leavers.poison, scene, role, grpc))
    return cast


async def behind_relays(scene: Scene, relays: list[Relay]) -> Cast:
    """Those whose connections are cut half-way, or who stop to read for a while. Their relays are added to `relays`."""
    cast = Cast()

    async def relayed(name: str, habits: Habits, address: str) -> tuple[Relay, str]:
        relay = Relay(int(address.rpartition(":")[2]), habits, scene.rng(f"relay of {name}"))
        relays.append(relay)
        return relay, await relay.start()

    for name, habits, columns, over_http in (
        ("cut-grpc", CUTS, 0, False),
        ("cut-http", CUTS, 0, True),
        ("cut-large-grpc", LARGE_CUTS, MANY_COLUMNS, False),
        ("cut-large-http", LARGE_CUTS, MANY_COLUMNS, True),
        ("stall-grpc", STALLS, MANY_COLUMNS, False),
        ("stall-http", STALLS, MANY_COLUMNS, True),
    ):
        relay, address = await relayed(name, habits, scene.http if over_http else scene.grpc)
        allowed = MAY_BE_CUT if habits.cut_after_bytes else OK
        role = Role(name, SHAKY, allowed, relay.cut_since, pause_s=0.05, columns=columns)
        over_grpc: MakeClient = partial(TritonGrpc, address)
        make = _raw_http(scene, name, address, keep=False) if over_http else over_grpc
        cast.threads.append(partial(actors.ask_in_turn, scene, role, make))
    return cast


def _raw(scene: Scene, target: Target, columns: int = 0) -> tuple[Role, MakeClient]:
    name = f"raw-{target.name}"
    return Role(name, target, columns=columns), _raw_http(scene, name, scene.http)


def _raw_http(scene: Scene, name: str, address: str, *, keep: bool = True) -> MakeClient:
    return partial(RawHttp, address, scene.rng(f"connection of {name}"), keep=keep)


def _flood_role() -> Role:
    return Role("flood-bounded", BOUNDED, MAY_BE_FULL, pause_s=0.5)
