"""Aliases of a registry that move: what begins by them, and what ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import Unavailable
from penstock.gateway import rollout_aliases
from penstock.gateway.rollout_aliases import AliasFollower
from penstock.rollouts.decisions import RollBack, Status
from rollout_bench import FakePool, version
from rollout_server import FakeRegistry, RolloutServer

SETTINGS: dict[str, Any] = {"steps": (50, 100), "step_secs": 3600}


class Followed:
    """A server that tries what `@challenger` means."""

    def __init__(self, folder: Path) -> None:
        self.registry = FakeRegistry()
        self.server = RolloutServer(folder, self.registry, **SETTINGS)
        self.server.index.put(version(3, FakePool()))
        self.server.index.expect_default("m", 1)
        self.rollouts = self.server.rollouts
        self.follower = AliasFollower(self.rollouts, {"m": "@challenger"})

    def move(self, alias: str, new: int | None) -> None:
        """As the registry's link tells it."""
        old = self.registry.known.get(alias)
        if new is not None:
            self.registry.known[alias] = new
        self.follower.moved("m", alias, old, new)

    async def until(self, condition: Callable[[], object]) -> None:
        """It comes about."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("it never happens")

    def tries(self, candidate: int) -> bool:
        """Whether a roll-out to that version goes on."""
        run = self.rollouts.index.going("m")
        return run is not None and run.plan.candidate == candidate and not run.over


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    """One whose models are loaded."""
    made = Followed(tmp_path / "rollouts")
    await made.server.begin()
    made.follower.begin()
    yield made
    await made.follower.close()
    await made.rollouts.close()


async def test_an_alias_begins_a_roll_out(followed: Followed) -> None:
    followed.move("challenger", 2)
    await followed.until(lambda: followed.tries(2))
    run = followed.rollouts.index.run_of("m")
    assert (run.by, run.plan.stable, run.plan.steps) == ("alias:challenger", 1, (50, 100))


async def test_what_aliases_said_before_the_models_were_loaded_is_done_then(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "rollouts")
    await followed.server.rollouts.restore()
    followed.move("challenger", 2)
    await asyncio.sleep(0)
    assert followed.rollouts.index.going("m") is None
    followed.rollouts.models_are_loaded()
    followed.follower.begin()
    await followed.until(lambda: followed.tries(2))
    await followed.rollouts.close()


@pytest.mark.parametrize(("alias", "new"), [("challenger", 1), ("other", 2), ("challenger", None)])
async def test_what_begins_nothing(followed: Followed, alias: str, new: int | None) -> None:
    followed.move(alias, new)
    for _ in range(5):
        await asyncio.sleep(0)
    assert followed.rollouts.index.going("m") is None


async def test_a_version_is_tried_once(followed: Followed) -> None:
    followed.move("challenger", 2)
    await followed.until(lambda: followed.tries(2))
    followed.rollouts.abort("m", "it was bad")
    # as after a restart of the agent
    followed.follower.moved("m", "challenger", None, 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert followed.rollouts.index.going("m") is None


async def test_an_alias_that_moves_on_takes_its_roll_out_along(followed: Followed) -> None:
    followed.move("challenger", 2)
    await followed.until(lambda: followed.tries(2))
    first = followed.rollouts.index.run_of("m")
    followed.move("challenger", 3)
    await followed.until(lambda: followed.tries(3))
    assert first.rollout.status is Status.ABORTED
    assert isinstance(first.rollout.decision, RollBack)
    assert first.rollout.decision.reason == "@challenger means version 3 now"


async def test_an_alias_that_moves_on_while_its_version_is_fetched_is_not_forgotten(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = asyncio.Event()
    want = followed.registry.want

    async def slow(model: str, number: int) -> None:
        if number == 2:
            await fetched.wait()
        await want(model, number)

    monkeypatch.setattr(followed.registry, "want", slow)
    followed.move("challenger", 2)
    await asyncio.sleep(0.01)
    followed.move("challenger", 3)
    await asyncio.sleep(0.01)
    fetched.set()
    await followed.until(lambda: followed.tries(3))


async def test_a_roll_out_that_can_not_begin_is_tried_again(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_aliases, "RETRY_S", 0.01)
    followed.registry.problem = Unavailable("it is being fetched")
    followed.move("challenger", 2)
    await asyncio.sleep(0.03)
    assert followed.rollouts.index.going("m") is None
    followed.registry.problem = None
    await followed.until(lambda: followed.tries(2))


async def test_one_that_can_never_begin_is_not_tried_again(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rollout_aliases, "RETRY_S", 0.001)
    followed.server.index.put(version(2, FakePool(), {"max_batch_size": 4}))
    followed.move("challenger", 2)
    await followed.until(lambda: "max_batch_size 4, and 8" in caplog.text)
    await asyncio.sleep(0.02)
    assert caplog.text.count("can't be rolled out") == 2


async def test_who_moves_the_stable_versions_alias_to_the_candidate_promotes_it(
    followed: Followed,
) -> None:
    followed.move("challenger", 2)
    await followed.until(lambda: followed.tries(2))
    run = followed.rollouts.index.run_of("m")
    followed.move("champion", 2)
    await followed.until(lambda: run.done)
    assert run.rollout.status is Status.PROMOTED
    assert followed.registry.tags["penstock.promoted.by"] == "alias:champion"


async def test_who_moves_it_elsewhere_ends_the_roll_out(followed: Followed) -> None:
    followed.move("challenger", 2)
    await followed.until(lambda: followed.tries(2))
    run = followed.rollouts.index.run_of("m")
    followed.move("champion", 1)
    assert not run.over
    followed.move("champion", 3)
    assert run.rollout.status is Status.ABORTED
    assert isinstance(run.rollout.decision, RollBack)
    assert run.rollout.decision.reason == "@champion means version 3 now"
