"""Makes a candidate the version that answers all requests: with the registry, where the model comes from one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.errors import PenstockError
from penstock.gateway.rollout_versions import VersionSource, alias_to_move
from penstock.rollouts.plan import RolloutPlan

RETRY_S: Final = 10.0


async def promote(
    source: VersionSource,
    plan: RolloutPlan,
    alias: str,
    check_ready: Callable[[], object],
    on_problem: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Returns when the registry's alias means the candidate, and the candidate can take all requests. Tries for as long
    as that takes: meanwhile the roll-out gives the candidate everything that it can answer.

    `alias`: by which the stable version was known when the roll-out began; it may mean the candidate by now, where an
    earlier try was cut off. `check_ready` raises Unavailable, or NotFound, while it can't. `on_problem` hears what is
    in the way.
    """
    while True:
        try:
            check_ready()
            if source.serves(plan.model):
                moved = alias or alias_to_move(source, plan.model, plan.stable)
                await source.set_alias(plan.model, moved, plan.candidate)
                # it may have gone meanwhile
                check_ready()
        except PenstockError as error:
            on_problem(f"version {plan.candidate} can't be promoted yet: {error}")
            await sleep(RETRY_S)
        else:
            return
