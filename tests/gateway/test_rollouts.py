"""The life of roll-outs: begun, decided, kept, gone on with, and ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.config import Settings
from penstock.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    NotFound,
    PenstockError,
    Unavailable,
)
from penstock.gateway import rollout_effects, rollout_promotion, rollout_saving
from penstock.gateway.rollout_store import RolloutStore, store_of
from penstock.gateway.rollout_versions import check_gates
from penstock.registry_config import RegistrySettings
from penstock.rollouts.decisions import Promote, RollBack, Status
from penstock.workers.request import PendingRequest
from rollout_bench import FakePool, Sent, SequencesPool, version, y
from rollout_server import FakeRegistry, RolloutServer

QUICK: Mapping[str, Any] = {
    "steps": [50, 100],
    "step_s": 0.001,
    "min_requests": 5,
    "guards": {"min_windows": 0},
}
SLOW: Mapping[str, Any] = {
    "steps": [50, 100],
    "step_s": 3600,
    "guards": {"window_requests": 5, "window_s": 0.001},
}


Make = Callable[..., Any]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Make]:
    """`await serve(**settings)`: a server, which ends with the test or with its `rollouts.close()`."""
    servers: list[RolloutServer] = []

    async def make(source: Any = None, loaded: bool = True, **settings: Any) -> RolloutServer:
        server = RolloutServer(tmp_path / "rollouts", source, loaded, **settings)
        servers.append(server)
        return await server.begin()

    yield make
    for server in servers:
        await server.rollouts.close()


async def until(condition: Callable[[], object]) -> None:
    """Something else on the event loop comes about."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never happens")


# ── beginning ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_good_candidate_is_promoted_step_by_step(serve: Make) -> None:
    server = await serve()
    run = await server.start(**QUICK)
    # 2 was the highest, and answered all: now it is tried
    assert server.index.default_version("m") == 1
    assert (run.live.share, run.view().by) == (5000, "key:ada")
    sent = await server.traffic(lambda: run.done)
    assert all(isinstance(each.answer, bytes) for each in sent)
    assert run.rollout.status is Status.PROMOTED
    assert server.index.default_version("m") == 2
    assert server.index.rollouts == {}
    assert server.send().first == 2
    assert server.actions() == ["rollout.begin", "rollout.advance", "rollout.promote"]
    assert server.log.events[0].details["by"] == "key:ada"


async def test_a_bad_candidate_is_taken_back_and_no_client_has_seen_it(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    sent = await server.traffic(lambda: run.over, fails=True)
    assert all(isinstance(each.answer, bytes) for each in sent)
    assert run.rollout.status is Status.ROLLED_BACK
    assert run.done
    assert run.counts.seen_failures == 0
    assert run.counts.fallbacks == sum(each.first == 2 for each in sent) > 0
    assert server.index.default_version("m") == 1
    assert {server.send().first for _ in range(20)} == {1}
    event = server.log.events[-1]
    assert (event.action, event.model) == ("rollout.rollback", "m")
    assert event.details["guard"] in ("failing", "errors")
    assert "version 2 of 'm'" in event.reason


async def test_what_is_under_way_at_the_roll_back_is_answered(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    waiting: list[tuple[Sent, PendingRequest]] = []
    while len(waiting) < 3:
        sent = server.send()
        if sent.first == 2:
            waiting.append((sent, server.candidate.requests[-1]))
    server.rollouts.abort("m", "enough")
    assert run.done
    (good, one), (bad, other), (_, third) = waiting
    one.finish(one.encode(one, [y()]))
    other.finish(ModelFailed("no"))
    server.stable.answer()
    assert good.answer == b"2 : [0.1, 0.7, 0.2]"
    assert bad.answer == b"1 : [0.1, 0.7, 0.2]"
    third.cancel()


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"to": 9}, NotFound, "version 9 is not found"),
        ({"to": "x"}, InvalidRequest, "'x' is no version of model 'm'"),
        ({"to": True}, InvalidRequest, "is no version"),
        ({"to": "@challenger"}, InvalidRequest, "comes from a folder"),
        ({"to": 1}, InvalidRequest, "'from' says which version"),
        ({"to": 2, "from": 2}, InvalidRequest, "both version 2"),
        ({"to": 2, "from": 7}, NotFound, "version 7"),
        ({"to": 2, "steps": [50, 10]}, InvalidRequest, "percentages that rise"),
        ({"to": 2, "stepz": 1}, InvalidRequest, "stepz"),
        ({"to": 2, "guards": {"drfit": 1}}, InvalidRequest, "drfit"),
        ({"to": 2, "guards": 3}, InvalidRequest, "guards: expected an object"),
        ({"to": 2, "model": "n"}, InvalidRequest, "unexpected 'model'"),
        ({"to": None}, InvalidRequest, "'to' is missing"),
    ],
)
async def test_what_can_not_be_is_refused_and_changes_nothing(
    serve: Make, given: Mapping[str, Any], kind: type[PenstockError], text: str
) -> None:
    server = await serve()
    if given["to"] == 1:
        server.index.take("m", 2, folder_too=True)
    with pytest.raises(kind, match=text):
        await server.start(**given)
    assert server.index.rollouts == {}
    assert server.index.default_version("m") is None
    assert server.log.events == []
    with pytest.raises(NotFound, match="there is no roll-out of model 'm'"):
        server.rollouts.index.run_of("m")


IN_A = {"name": "A", "data_type": "TYPE_FP32", "dims": [2]}
IN_B = {"name": "B", "data_type": "TYPE_FP32", "dims": [1]}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"input": [{**IN_A, "data_type": "TYPE_INT32"}, IN_B]},
            r"input 'A' is INT32 \[2\], and FP32 \[2\] with",
        ),
        ({"input": [{**IN_A, "dims": [3]}, IN_B]}, r"input 'A' is FP32 \[3\], and FP32 \[2\] with"),
        ({"input": [IN_A]}, "input 'B' is missing"),
        ({"input": [IN_A, IN_B, {**IN_B, "name": "C"}]}, "input 'C' is new"),
        ({"output": [{**IN_B, "name": "Z"}]}, "output 'Y' is missing"),
        ({"max_batch_size": 4}, "max_batch_size 4, and 8 with version 1"),
        ({"model_transaction_policy": {"decoupled": True}}, "decoupled: yes, and no with"),
    ],
)
async def test_a_candidate_that_answers_other_requests_is_refused(
    serve: Make, config: Mapping[str, Any], text: str
) -> None:
    server = await serve()
    server.index.put(version(2, server.candidate, config))
    with pytest.raises(InvalidRequest, match=text):
        await server.start()


async def test_a_candidate_may_take_more_than_the_stable_version(serve: Make) -> None:
    server = await serve()
    inputs = [{**IN_A, "dims": [-1]}, IN_B, {**IN_B, "name": "C", "optional": True}]
    server.index.put(version(2, server.candidate, {"input": inputs, "max_batch_size": 16}))
    assert (await server.start(**SLOW)).begun


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_transaction_policy": {"decoupled": True}}, "decoupled"),
        ({"sequence_batching": {"direct": {}}}, "stateful"),
    ],
)
async def test_what_can_not_be_compared_has_no_shadow(
    serve: Make, config: Mapping[str, Any], kind: str
) -> None:
    server = await serve()
    for number in (1, 2):
        server.index.put(version(number, FakePool(), config))
    with pytest.raises(InvalidRequest, match=f"in shadow mode: it is {kind}"):
        await server.start(mode="shadow")
    assert (await server.start(**SLOW)).begun


async def test_one_at_a_time(serve: Make) -> None:
    server = await serve()
    results = await asyncio.gather(
        server.start(**SLOW), server.start(**SLOW), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in results) == ["Conflict", "RolloutRun"]
    with pytest.raises(Conflict, match="from version 1 to 2 is running: it has to end first"):
        await server.start(**SLOW)
    server.rollouts.abort("m", "enough")
    assert (await server.start(**SLOW)).begun


async def test_what_a_server_says_holds_where_a_request_does_not(serve: Make) -> None:
    server = await serve(
        steps=(5.0, 100.0),
        step_secs=7,
        promote=False,
        fallback=False,
        guards={"drift": "off", "p99_ratio": 2},
    )
    plan = (await server.start(step_s=9, guards={"p99_ratio": 3})).plan
    assert (plan.steps, plan.step_s, plan.promote, plan.fallback) == ((5, 100), 9, False, False)
    assert (plan.guards.drift, plan.guards.p99_ratio) == (None, 3)


async def test_a_roll_out_that_can_not_be_kept_does_not_begin(serve: Make, tmp_path: Path) -> None:
    (tmp_path / "rollouts").write_text("no folder")
    server = await serve()
    with pytest.raises(Unavailable, match="can't be kept in"):
        await server.start(**SLOW)
    assert server.index.rollouts == {}
    assert server.send().first == 2


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pause_and_resume(serve: Make) -> None:
    server = await serve()
    run = await server.start(**QUICK)
    server.rollouts.pause("m", "ada")
    count = 0

    def enough() -> bool:
        nonlocal count
        count += 1
        return count > 60

    await server.traffic(enough)
    assert (run.rollout.status, run.live.share) == (Status.PAUSED, 5000)
    server.rollouts.resume("m", "ada")
    await server.traffic(lambda: run.done)
    assert run.rollout.status is Status.PROMOTED


async def test_promote_by_hand_wants_a_candidate_that_is_ready(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    server.index.take("m", 2)
    with pytest.raises(Unavailable, match="version 2 of model 'm' can't take requests now"):
        server.rollouts.promote("m")
    assert run.rollout.status is Status.RUNNING
    server.index.put(version(2, server.candidate))
    server.rollouts.promote("m", "ada")
    await until(lambda: run.done)
    assert server.index.default_version("m") == 2
    for again in (server.rollouts.promote, server.rollouts.abort, server.rollouts.pause):
        with pytest.raises(InvalidRequest, match="it is promoted"):
            again("m", "ada")


async def test_a_plan_may_leave_the_promotion_to_somebody(serve: Make) -> None:
    server = await serve()
    run = await server.start(**QUICK, promote=False)
    await server.traffic(lambda: run.rollout.status is Status.WAITING)
    assert not run.done
    assert server.send().first == 2
    assert server.index.default_version("m") == 1
    server.rollouts.promote("m")
    await until(lambda: run.done)
    assert server.actions()[-2:] == ["rollout.wait", "rollout.promote"]


async def test_shadows_get_no_traffic_until_they_are_promoted(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW, mode="shadow")
    assert {server.send().first for _ in range(20)} == {1}
    assert (server.rollouts.index.share_of("m", 1), server.rollouts.index.share_of("m", 2)) == (
        100,
        0,
    )
    server.rollouts.promote("m")
    assert server.send().first == 2
    await until(lambda: run.done)
    assert server.send().first == 2


async def test_forgetting(serve: Make, tmp_path: Path) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    assert await server.rollouts.forget("m", "enough") is run
    assert run.rollout.status is Status.ABORTED
    assert list(server.rollouts.index.runs()) == []
    assert not list((tmp_path / "rollouts").glob("*.rollout.json"))
    # the version that was gone back to goes on answering
    assert server.send().first == 1
    with pytest.raises(NotFound):
        await server.rollouts.forget("m", "enough")


async def test_shares(serve: Make) -> None:
    server = await serve()
    heard: list[None] = []
    server.rollouts.effects.on_share = lambda: heard.append(None)
    assert server.rollouts.index.share_of("m", 1) is None
    await server.start(steps=[10, 100], step_s=3600)
    assert [server.rollouts.index.share_of("m", number) for number in (1, 2, 3)] == [90, 10, None]
    server.rollouts.abort("m", "enough")
    assert server.rollouts.index.share_of("m", 2) is None
    assert len(heard) == 2


# ── models that come and go ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_candidate_that_is_gone_for_good_ends_it(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    server.index.take("m", 2, folder_too=True)
    assert run.rollout.status is Status.ABORTED
    assert isinstance(run.rollout.decision, RollBack)
    assert "version 2 is not found" in run.rollout.decision.reason
    assert server.send().first == 1


async def test_a_candidate_that_is_away_for_long_ends_it(serve: Make) -> None:
    server = await serve(absent_secs=0.05)
    run = await server.start(**SLOW)
    server.candidate.accepts = False
    server.index.change()
    assert not run.over
    assert "not at ready state" in run.view().problem
    assert server.send().first == 1
    await until(lambda: run.over)
    assert run.rollout.status is Status.ABORTED


async def test_a_candidate_that_comes_back_goes_on(serve: Make) -> None:
    server = await serve(absent_secs=0.05)
    run = await server.start(**SLOW)
    server.candidate.accepts = False
    server.index.change()
    server.candidate.accepts = True
    server.index.change()
    await asyncio.sleep(0.1)
    assert run.rollout.status is Status.RUNNING


async def test_a_candidate_that_is_another_one_now_ends_it(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    # the same files: nothing has changed
    server.index.put(version(2, server.candidate))
    server.index.put(version(1, server.stable), b"others")
    assert not run.over
    server.index.put(version(2, server.candidate), b"others")
    assert run.rollout.status is Status.ABORTED
    assert isinstance(run.rollout.decision, RollBack)
    assert "loaded anew, from other files" in run.rollout.decision.reason


async def test_a_candidate_that_takes_other_requests_now_ends_it(serve: Make) -> None:
    server = await serve()
    run = await server.start(**SLOW)
    server.index.put(version(2, server.candidate, {"input": [IN_A]}))
    assert run.rollout.status is Status.ABORTED
    assert isinstance(run.rollout.decision, RollBack)
    assert "input 'B' is missing" in run.rollout.decision.reason


async def test_models_that_are_held_get_new_versions_by_roll_outs_alone(serve: Make) -> None:
    server = await serve(loaded=False, hold=("m",))
    server.index.put(version(1, server.stable))
    server.index.put(version(2, server.candidate))
    assert server.send().first == 1
    run = await server.start(**QUICK)
    await server.traffic(lambda: run.done)
    assert server.send().first == 2
    await server.rollouts.close()
    after = await serve(hold=("m",))
    after.index.put(version(3, FakePool()))
    assert after.send().first == 2


# ── restarts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_goes_on_after_a_restart(serve: Make) -> None:
    before = await serve()
    first = await before.start(**SLOW)
    await before.traffic(lambda: first.counts.candidate.requests >= 10)
    report = first.report
    await before.rollouts.close()
    after = await serve(loaded=False)
    run = after.rollouts.index.run_of("m")
    assert not run.begun
    # as versions come, the higher one does not answer before the other is there
    after.index.put(version(2, after.candidate))
    assert after.index.default_version("m") == 1
    after.index.put(version(1, after.stable))
    assert run.begun
    assert (run.live.share, run.by, run.started_at) == (5000, "key:ada", first.started_at)
    assert run.counts.candidate.requests >= 10
    assert run.report.candidate_requests >= report.candidate_requests > 0
    assert [event.what for event in run.report.events] == ["started", "restored"]
    assert {after.send().first for _ in range(64)} == {1, 2}


async def test_what_was_decided_holds_after_a_restart(serve: Make) -> None:
    before = await serve()
    await before.start(**SLOW)
    before.rollouts.abort("m", "enough")
    await before.rollouts.close()
    after = await serve(loaded=False)
    after.index.put(version(1, after.stable))
    after.index.put(version(2, after.candidate))
    assert after.rollouts.index.run_of("m").rollout.status is Status.ABORTED
    assert after.send().first == 1
    assert after.index.rollouts == {}


async def test_a_candidate_that_does_not_come_back_after_a_restart_is_given_up(serve: Make) -> None:
    before = await serve()
    await before.start(**SLOW)
    await before.rollouts.close()
    after = await serve(loaded=False, absent_secs=0.05)
    run = after.rollouts.index.run_of("m")
    after.index.put(version(1, after.stable))
    await until(lambda: run.over)
    assert run.rollout.status is Status.ABORTED
    assert after.send().first == 1


async def test_evidence_is_kept_while_it_goes_on(
    serve: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_saving, "SAVE_S", 0.01)
    server = await serve()
    run = await server.start(**SLOW)
    await server.traffic(lambda: run.counts.candidate.requests >= 3)
    store = RolloutStore(tmp_path / "rollouts")

    def kept() -> int:
        ((file),) = (tmp_path / "rollouts").glob("*.rollout.json")
        return int(json.loads(file.read_bytes())["counts"]["candidate"]["requests"])

    # as after a kill: nothing was closed
    await until(lambda: kept() >= 3)
    with pytest.raises(Unavailable, match="are another server's"):
        store.load()


async def test_a_second_server_on_the_folder_serves_but_rolls_nothing_out(serve: Make) -> None:
    first = await serve()
    await first.start(**SLOW)
    second = await serve()
    assert list(second.rollouts.index.runs()) == []
    # which version answers was decided for these models, whoever serves them
    assert second.send().first == 1
    with pytest.raises(Unavailable, match="are another server's, which runs"):
        await second.start(**SLOW)
    await first.rollouts.close()
    assert (await second.start(**SLOW)).begun


def test_what_another_server_has_left_stays(tmp_path: Path) -> None:
    first, second = RolloutStore(tmp_path / "r"), RolloutStore(tmp_path / "r")
    first.save_defaults({"m": 1, "n": 1})
    with pytest.raises(Unavailable):
        second.load()
    first.close()
    second.save_defaults({"n": 2})
    second.close()
    third = RolloutStore(tmp_path / "r")
    assert third.load()[0] == {"m": 1, "n": 2}
    third.close()


async def test_a_file_that_can_not_be_read_is_left_alone(serve: Make, tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    (folder / "m.rollout.json").write_text("{")
    (folder / "n.rollout.json").write_text('{"model":"n","state":{},"counts":{}}')
    (folder / "o.rollout.json").write_text('{"model":"o","state":{},"counts":{},"format":2}')
    server = await serve()
    assert list(server.rollouts.index.runs()) == []
    assert (folder / "m.rollout.json").read_text() == "{"


def test_servers_of_other_models_have_folders_of_their_own(tmp_path: Path) -> None:
    def folder(**given: Any) -> Path:
        return store_of(Settings(**given)).folder

    one = folder(registry=RegistrySettings(models=("models:/a@champion",)))
    other = folder(registry=RegistrySettings(models=("models:/b@champion",)))
    models = folder(model_repository=(tmp_path,))
    assert len({one, other, models}) == 3
    # a model more leaves those of the folder where they are
    registry = RegistrySettings(models=("models:/a@champion",))
    assert folder(model_repository=(tmp_path,), registry=registry) == models


# ── registries ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_alias_is_tried_and_a_promotion_moves_the_other_one(serve: Make) -> None:
    registry = FakeRegistry()
    server = await serve(registry)
    run = await server.start("@challenger", **QUICK)
    assert registry.held == [("m", 2)]
    assert '"status":"running"' in registry.tags["penstock.rollout"]
    await server.traffic(lambda: run.done)
    assert registry.moves == [("champion", 2)]
    assert '"status":"promoted"' in registry.tags["penstock.rollout"]
    assert registry.tags["penstock.promoted.by"] == "key:ada"
    assert registry.tags["penstock.promoted.at"] == run.ended_at


async def test_a_roll_back_is_written_to_the_registry(serve: Make) -> None:
    registry = FakeRegistry()
    server = await serve(registry)
    withdrawn: list[tuple[str, int]] = []
    server.rollouts.effects.on_withdrawn = lambda model, version: withdrawn.append((model, version))
    await server.start("@challenger", **SLOW)
    server.rollouts.abort("m", "enough")
    assert '"status":"aborted"' in registry.tags["penstock.rollout"]
    assert '"reason":"enough"' in registry.tags["penstock.rollout"]
    # else version 1 would be a downgrade after the next start
    await until(lambda: withdrawn == [("m", 2)])
    assert registry.held == []
    assert registry.moves == []


@pytest.mark.parametrize("problem", [Unavailable("the registry is away"), Forbidden("not you")])
async def test_a_registry_that_does_not_take_the_promotion_is_asked_again(
    serve: Make, monkeypatch: pytest.MonkeyPatch, problem: PenstockError
) -> None:
    monkeypatch.setattr(rollout_promotion, "RETRY_S", 0.01)
    registry = FakeRegistry()
    server = await serve(registry)
    run = await server.start("@challenger", **SLOW)
    registry.problem = problem
    server.rollouts.promote("m")
    # it gets all requests meanwhile, and the other one those that it fails
    sent = server.send()
    assert sent.first == 2
    server.candidate.fail()
    server.stable.answer()
    assert isinstance(sent.answer, bytes)
    await until(lambda: str(problem) in run.view().problem)
    assert not run.done
    with pytest.raises(Conflict):
        await server.start("@challenger", **SLOW)
    with pytest.raises(Conflict, match="is being promoted"):
        await server.rollouts.forget("m", "")
    registry.problem = None
    await until(lambda: run.done)
    assert registry.moves == [("champion", 2)]
    assert isinstance(run.rollout.decision, Promote)
    assert run.view().problem == ""


async def test_a_promotion_that_can_not_be_carried_out_can_be_taken_back(serve: Make) -> None:
    registry = FakeRegistry()
    server = await serve(registry)
    server.index.set_default("m", 1)
    run = await server.start("@challenger", **SLOW)
    registry.problem = Forbidden("not you")
    server.rollouts.promote("m")
    await until(lambda: "not you" in run.view().problem)
    assert run.promotion is not None
    server.rollouts.abort("m", "aborted by key:ada")
    assert (run.done, run.rollout.status) == (True, Status.ABORTED)
    assert {server.send().first for _ in range(20)} == {1}
    registry.problem = None
    await until(run.promotion.done)
    assert registry.moves == []
    with pytest.raises(InvalidRequest, match="can't be aborted: it is aborted"):
        server.rollouts.abort("m", "again")


async def test_a_promotion_of_an_earlier_gateway_can_be_taken_back(serve: Make) -> None:
    registry = FakeRegistry()
    before = await serve(registry)
    await before.start("@challenger", **SLOW)
    registry.problem = Unavailable("away")
    before.rollouts.promote("m")
    await before.rollouts.close()
    after = await serve(registry)
    after.index.set_default("m", 1)
    after.rollouts.abort("m", "enough")
    registry.problem = None
    assert after.rollouts.index.run_of("m").rollout.status is Status.ABORTED
    assert {after.send().first for _ in range(20)} == {1}


async def test_a_version_that_failed_its_gates_is_rolled_out_only_when_that_is_said(
    serve: Make,
) -> None:
    registry = FakeRegistry()
    registry.said[2] = {"penstock.gates": "failed: accuracy 0.71, expected at least 0.98"}
    server = await serve(registry)
    for to in ("@challenger", 2):
        with pytest.raises(InvalidRequest, match="not passed its quality gates: failed: accuracy"):
            await server.start(to, **SLOW)
    with pytest.raises(InvalidRequest, match="despite_gates: expected true or false"):
        await server.start(2, despite_gates="yes", **SLOW)
    assert registry.held == []
    run = await server.start("@challenger", despite_gates=True, **SLOW)
    assert run.begun


async def test_a_registry_that_is_away_says_nothing_of_gates() -> None:
    class Away(FakeRegistry):
        async def resolve(self, model: str, ref: str) -> Any:
            raise Unavailable("away")

    await check_gates(Away(), "m", 2)


async def test_a_version_that_passed_its_gates_is_rolled_out(serve: Make) -> None:
    registry = FakeRegistry()
    registry.said[2] = {"penstock.gates": "passed"}
    assert (await (await serve(registry)).start(2, **SLOW)).begun


async def test_all_versions_that_were_tried_are_remembered(serve: Make) -> None:
    registry = FakeRegistry()
    before = await serve(registry)
    await before.start(2, **SLOW)
    before.rollouts.abort("m", "bad")
    await before.start(1, **{**SLOW, "from": 2})
    before.rollouts.abort("m", "bad too")
    await before.rollouts.close()
    after = await serve(registry)
    assert after.rollouts.index.was_tried("m", 2)
    assert after.rollouts.index.was_tried("m", 1)
    assert not after.rollouts.index.was_tried("m", 3)


async def test_a_promotion_that_a_crash_has_cut_off_is_done_after_it(
    serve: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry()
    before = await serve(registry)
    await before.start("@challenger", **SLOW)
    registry.problem = Unavailable("away")
    before.rollouts.promote("m", "key:eve")
    await before.rollouts.close()
    registry.problem = None
    after = await serve(registry)
    run = after.rollouts.index.run_of("m")
    await until(lambda: run.done)
    assert registry.moves == [("champion", 2)]
    # who promoted it, not who had begun it
    assert (run.by, registry.tags["penstock.promoted.by"]) == ("key:ada", "key:eve")
    assert after.index.default_version("m") == 2


async def test_a_promotion_by_hand_is_told_of_as_one_also_where_nobody_is_asked_who_he_is(
    serve: Make,
) -> None:
    registry = FakeRegistry()
    before = await serve(registry)
    await before.start("@challenger", **SLOW)
    registry.problem = Unavailable("away")
    before.rollouts.promote("m")
    await before.rollouts.close()
    registry.problem = None
    after = await serve(registry)
    await until(lambda: after.rollouts.index.run_of("m").done)
    # not the one who had begun the roll-out
    assert registry.tags["penstock.promoted.by"] == "hand"


async def test_a_promotion_that_was_cut_off_after_its_alias_moved_moves_no_other_one(
    serve: Make,
) -> None:
    registry = FakeRegistry()
    registry.known = {"live": 1, "challenger": 2}
    before = await serve(registry)
    await before.start("@challenger", **SLOW)
    registry.problem = Unavailable("its answer is lost")
    before.rollouts.promote("m")
    await before.rollouts.close()
    registry.problem = None
    registry.known["live"] = 2
    after = await serve(registry)
    await until(lambda: after.rollouts.index.run_of("m").done)
    assert registry.moves == [("live", 2)]
    assert registry.known == {"live": 2, "challenger": 2}


async def test_what_was_promoted_may_go_when_the_next_one_is(serve: Make) -> None:
    registry = FakeRegistry()
    server = await serve(registry)
    server.index.put(version(3, FakePool()))
    server.index.expect_default("m", 1)
    for candidate in (2, 3):
        run = await server.start(candidate, **SLOW)
        server.rollouts.promote("m")
        await until(lambda run=run: run.done)  # type: ignore[misc]
        assert registry.held == [("m", candidate)]


async def test_one_whose_default_can_not_be_kept_is_not_there_after_a_restart(
    serve: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("no space left")

    server = await serve()
    monkeypatch.setattr(RolloutStore, "save_defaults", full)
    with pytest.raises(Unavailable, match="no space left"):
        await server.start(**SLOW)
    assert list((tmp_path / "rollouts").glob("*.rollout.json")) == []


async def test_a_version_that_the_registry_does_not_give_is_not_tried(serve: Make) -> None:
    registry = FakeRegistry()
    server = await serve(registry)
    registry.problem = Unavailable("away")
    with pytest.raises(Unavailable, match="away"):
        await server.start("@challenger")
    with pytest.raises(NotFound, match="no @other"):
        await server.start("@other")
    assert server.index.rollouts == {}


# ── sequences ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("promoted", [False, True])
async def test_sequences_end_where_they_began_when_the_roll_out_is_over(
    serve: Make, monkeypatch: pytest.MonkeyPatch, promoted: bool
) -> None:
    monkeypatch.setattr(rollout_effects, "DRAIN_S", 0.01)
    server = await serve()
    stable, candidate = SequencesPool(), SequencesPool()
    stateful: dict[str, Any] = {"sequence_batching": {"direct": {}}}
    server.index.put(version(1, stable, stateful))
    server.index.put(version(2, candidate, stateful))
    run = await server.start(**SLOW)
    stable.held.add(("default", 1))
    candidate.held.add(("default", 2))
    if promoted:
        server.rollouts.promote("m")
        await until(lambda: run.done)
    else:
        server.rollouts.abort("m", "enough")
    assert [server.send(sequence_id=number).first for number in (1, 2)] == [1, 2]
    new = server.send(sequence_id=3, sequence_start=True)
    assert new.first == (2 if promoted else 1)
    with pytest.raises(Conflict, match="sequences of model 'm' go on from its last roll-out"):
        await server.start(**{"from": 1}, **SLOW)
    (stable if promoted else candidate).held.clear()
    await until(lambda: not server.index.rollouts)
    again = await server.start(**{"from": 1}, **SLOW)
    assert again.begun
