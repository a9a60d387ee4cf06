"""Which version of a model that is rolled out answers, and what its clients see of that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    NotFound,
    PenstockError,
    QueueFull,
    Unavailable,
)
from penstock.gateway import shadow_copies
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import Tensors, Terms
from penstock.repository.served_model import ServedModel
from penstock.types import NO_TERMS, CallTerms, InferHeader, OutputTensor, TensorSpec
from penstock.workers.request import Part, PendingRequest
from rollout_bench import (
    HEADER,
    A,
    B,
    Encoder,
    FakePool,
    RolloutBench,
    Sent,
    SequencesPool,
    Times,
    turns,
    version,
    y,
)

NAN = float("nan")
ALL = 10_000


def bench_at(share: int, **plan: Any) -> RolloutBench:
    """A roll-out at a share."""
    bench = RolloutBench(**plan)
    bench.live.share = share
    return bench


# ── who takes it ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("share", "first"), [(0, 1), (ALL, 2)])
async def test_the_share_decides(share: int, first: int) -> None:
    bench = bench_at(share)
    assert {bench.send(request_id).first for request_id in ("", "a", "b")} == {first}


async def test_who_asks_with_the_same_id_gets_the_same_version_and_keeps_the_new_one() -> None:
    bench = bench_at(0)
    ids = [f"r{number}" for number in range(400)]
    before: set[str] = set()
    for share in (100, 1000, 5000, ALL):
        bench.live.share = share
        now = {each for each in ids if bench.send(each).first == 2}
        assert {each for each in ids if bench.send(each).first == 2} == now
        assert before <= now
        assert abs(len(now) / len(ids) - share / ALL) < 0.1
        before = now


async def test_tenants_are_split_apart() -> None:
    bench = bench_at(5000)
    ids = [f"r{number}" for number in range(64)]
    versions = [
        [bench.send(each, CallTerms(tenant=tenant)).first for each in ids] for tenant in "ab"
    ]
    assert versions[0] != versions[1]


@pytest.mark.parametrize(("request_id", "plan"), [("", {}), ("same", {"sticky": False})])
async def test_chance_decides_where_no_id_does(request_id: str, plan: dict[str, Any]) -> None:
    bench = bench_at(5000, **plan)
    assert {bench.send(request_id).first for _ in range(64)} == {1, 2}
    bench.candidate.answer()
    assert bench.judge.seen[0].unit == 0


async def test_a_request_that_names_its_version_goes_there_and_is_not_observed() -> None:
    bench = bench_at(ALL)
    named = InferHeader(
        "m", "1", (TensorSpec("A", "FP32", (1, 2)), TensorSpec("B", "FP32", (1, 1)))
    )
    sent = bench.send("x", header=named)
    bench.stable.answer()
    assert sent.first == 1
    assert bench.judge.seen == []


async def test_of_the_stable_versions_requests_as_many_are_looked_at_as_comparisons_need() -> None:
    bench = bench_at(100)
    ids = [f"r{number}" for number in range(4000)]

    def looked_at() -> set[int]:
        bench.judge.seen.clear()
        for each in ids:
            if bench.send(each).first == 1:
                bench.stable.answer()
        return {seen.unit for seen in bench.judge.seen}

    first = looked_at()
    # four for each one of the candidate; those of some ids, and always of those
    assert 80 < len(first) < 250
    assert looked_at() == first
    passed = bench.live.counts.passed
    assert passed + 2 * len(first) == sum(request.done for request in bench.stable.requests)
    bench.live.share = 5000
    bench.judge.seen.clear()
    for each in ids[:50]:
        if bench.send(each).first == 1:
            bench.stable.answer()
    assert bench.live.counts.passed == passed
    assert len(bench.judge.seen) > 10


async def test_the_answer_is_the_candidates_and_observed() -> None:
    bench = bench_at(ALL)
    sent = bench.send("x")
    bench.candidate.answer(0.1, 0.2, 0.7)
    assert sent.answer == b"2 x: [0.1, 0.2, 0.7]"
    (seen,) = bench.judge.seen
    # the worker's own time, and the likeliest class
    assert (seen.version, seen.ok, seen.latency_us, seen.summary) == (2, True, 2000, 2)
    assert seen.unit != 0
    assert not bench.live.running
    assert bench.live.counts.candidate.requests == 1


async def test_a_candidate_that_can_not_take_it_is_not_asked_and_that_counts() -> None:
    bench = bench_at(ALL)
    bench.index.take("m", 2)
    for _ in range(2):
        sent = bench.send("x")
        bench.stable.answer()
        assert sent.answer == b"1 x: [0.1, 0.7, 0.2]"
    missed = [seen for seen in bench.judge.seen if seen.version == 2]
    assert [(seen.ok, seen.error_kind) for seen in missed] == [(False, "Unavailable")] * 2
    assert bench.live.counts.seen_failures == 0


async def test_a_candidate_with_another_signature_is_not_asked() -> None:
    bench = bench_at(ALL)
    other = {"input": [{"name": "C", "data_type": "TYPE_FP32", "dims": [2]}]}
    bench.index.put(version(2, bench.candidate, other))
    sent = bench.send("x")
    bench.stable.answer()
    assert sent.answer == b"1 x: [0.1, 0.7, 0.2]"


async def test_what_fits_no_version_is_the_clients_mistake() -> None:
    bench = bench_at(ALL)
    with pytest.raises(InvalidRequest, match="unexpected inference input 'Z'"):
        bench.send("x", header=InferHeader("m", "", (TensorSpec("Z", "FP32", (1, 2)),)))
    assert bench.judge.seen == []


async def test_without_the_stable_version_the_candidate_does_not_take_its_place() -> None:
    bench = bench_at(5000)
    bench.index.take("m", 1)
    with pytest.raises(Unavailable, match="version 1 is not at ready state"):
        bench.send("x")
    bench.index.take("m", 1, folder_too=True)
    with pytest.raises(NotFound):
        bench.send("x")


async def test_a_version_that_was_loaded_anew_takes_the_next_request() -> None:
    bench = bench_at(ALL)
    bench.send("x")
    bench.candidate.answer()
    new = FakePool()
    bench.index.put(version(2, new))
    sent = bench.send("x")
    new.answer()
    assert isinstance(sent.answer, bytes)


async def test_when_the_roll_out_is_over_the_default_version_answers() -> None:
    bench = bench_at(ALL)
    assert bench.send("x").first == 2
    bench.index.roll_out("m", None)
    assert bench.send("x").first == 1
    bench.index.set_default("m", 2)
    assert bench.send("x").first == 2


# ── what the candidate fails ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error", [ModelFailed("no"), Unavailable("gone"), QueueFull("full"), PenstockError("bug")]
)
async def test_what_the_candidate_fails_the_stable_version_answers(error: PenstockError) -> None:
    bench = bench_at(ALL)
    sent = bench.send("x")
    bench.candidate.fail(error)
    assert sent.answers == []
    bench.stable.answer()
    assert sent.answer == b"1 x: [0.1, 0.7, 0.2]"
    (seen,) = bench.judge.seen
    assert (seen.version, seen.ok, seen.error_kind) == (2, False, type(error).__name__)
    assert not seen.stable_failed
    counts = bench.live.counts
    assert (counts.fallbacks, counts.seen_failures, counts.stable.requests) == (1, 0, 0)
    assert not bench.live.running


@pytest.mark.parametrize("number", [NAN, float("inf")])
async def test_an_answer_with_nan_or_infinity_is_a_failure(number: float) -> None:
    bench = bench_at(ALL)
    sent = bench.send("x")
    bench.candidate.answer(0, number, 0)
    bench.stable.answer()
    assert sent.answer == b"1 x: [0.1, 0.7, 0.2]"
    (seen,) = bench.judge.seen
    assert (seen.ok, seen.non_finite) == (True, True)


async def test_a_candidate_that_refuses_at_once_is_replaced_at_once() -> None:
    bench = bench_at(ALL)
    bench.candidate.refusal = QueueFull("full")
    sent = bench.send("x")
    bench.stable.answer()
    assert isinstance(sent.answer, bytes)
    assert [seen.error_kind for seen in bench.judge.seen] == ["QueueFull"]


async def test_inputs_are_in_the_order_of_the_version_that_runs_them() -> None:
    bench = bench_at(ALL)
    reordered = {"input": list(reversed(version(1, FakePool()).config_dict["input"]))}
    bench.index.put(version(2, bench.candidate, reordered))
    bench.send("x")
    assert [bytes(each) for each in bench.candidate.requests[0].buffers] == [B, A]
    bench.candidate.fail()
    assert [bytes(each) for each in bench.stable.requests[0].buffers] == [A, B]


async def test_the_stable_versions_error_is_the_clients() -> None:
    bench = bench_at(ALL)
    sent = bench.send("x")
    bench.candidate.fail(ModelFailed("the candidate's"))
    bench.stable.fail(ModelFailed("the stable's"))
    assert str(sent.answer) == "the stable's"
    refused = bench.send("y")
    bench.stable.refusal = DeadlineExceeded("too late")
    bench.candidate.fail()
    assert isinstance(refused.answer, DeadlineExceeded)
    assert not bench.live.running
    assert [seen.stable_failed for seen in bench.judge.seen] == [True, False]
    bench.candidate.refusal = bench.stable.refusal = Unavailable("all are gone")
    with pytest.raises(Unavailable, match="all are gone"):
        bench.send("z")
    assert bench.judge.seen[-1].stable_failed
    assert {seen.version for seen in bench.judge.seen} == {2}


async def test_the_second_run_keeps_to_the_clients_deadline() -> None:
    bench = bench_at(ALL)
    bench.send("x", CallTerms(timeout_us=60_000_000))
    bench.candidate.fail()
    first, second = bench.candidate.requests[0], bench.stable.requests[0]
    assert first.deadline_us == second.deadline_us < time.monotonic_ns() / 1000 + 60_000_001
    assert second.arrived_ns > first.arrived_ns


@pytest.mark.parametrize(
    "error", [InvalidRequest("yours"), DeadlineExceeded("late"), Cancelled("gone")]
)
async def test_what_another_version_would_not_mend_is_told(error: PenstockError) -> None:
    bench = bench_at(ALL)
    sent = bench.send("x")
    bench.candidate.fail(error)
    assert sent.answer is error
    assert bench.stable.requests == []
    expected = [] if isinstance(error, Cancelled) else [False]
    assert [seen.ok for seen in bench.judge.seen] == expected


async def test_without_fallback_clients_see_failures_and_they_are_counted() -> None:
    bench = bench_at(ALL, fallback=False)
    failed, nan = bench.send("x"), bench.send("y")
    bench.candidate.answer(0, NAN, 0)
    assert nan.answer == b"2 y: [0.0, nan, 0.0]"
    bench.candidate.requests.pop()
    bench.candidate.fail()
    assert isinstance(failed.answer, ModelFailed)
    assert bench.live.counts.seen_failures == 2
    with pytest.raises(QueueFull):
        bench.candidate.refusal = QueueFull("full")
        bench.send("z")
    assert bench.live.counts.seen_failures == 3
    assert not bench.live.running


async def test_a_failure_of_the_stable_version_is_its_clients() -> None:
    bench = bench_at(5000)
    sent = next(sent for number in range(64) if (sent := bench.send(f"r{number}")).first == 1)
    bench.stable.fail()
    assert isinstance(sent.answer, ModelFailed)
    assert [(seen.version, seen.ok) for seen in bench.judge.seen] == [(1, False)]


async def test_a_client_that_leaves_takes_its_request_out_wherever_it_is() -> None:
    bench = bench_at(ALL)
    first = bench.send("x")
    first.pending.cancel()
    assert isinstance(first.answer, Cancelled)
    second = bench.send("y")
    bench.candidate.fail()
    second.pending.cancel()
    assert isinstance(second.answer, Cancelled)
    assert bench.stable.requests[0].done
    # it is over: nothing happens
    second.pending.cancel()
    assert not bench.live.running


class Charged:
    """A session with a quota."""

    tenant = "t"

    def __init__(self) -> None:
        self.taken = self.given_back = 0

    def check(self, verb: object, model: str = "") -> None:
        """As CallSession."""

    def admit(self, model: str, rows: int, nbytes: int) -> Charged:
        """As CallSession."""
        self.taken += 1
        return self

    def release(self) -> None:
        """As Lease."""
        self.given_back += 1


@pytest.mark.parametrize("plan", [{}, {"mode": "shadow"}])
async def test_a_request_is_charged_once(plan: dict[str, Any]) -> None:
    bench, session = bench_at(ALL, **plan), Charged()
    bench.send("x", CallTerms(tenant="t", session=session))
    if plan:
        bench.stable.answer()
        bench.candidate.answer()
    else:
        bench.candidate.fail()
        assert session.given_back == 0
        bench.stable.answer()
    assert (session.taken, session.given_back) == (1, 1)


# ── decoupled models ────────────────────────────────────────────────────────────────────────────────────────────────


class Parts:
    """A client of many responses."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def part(self, request: PendingRequest, part: Part) -> None:
        """As Sink."""
        outputs = part.outputs
        answer: object = outputs
        if isinstance(outputs, list):
            answer = request.encode(request, outputs)
        self.sent.append(answer)
        part.taken()


def give(pool: FakePool, outputs: list[OutputTensor] | PenstockError | None, *, final: bool) -> int:
    """A response of the request that came last. How often it was taken."""
    taken: list[None] = []
    request = pool.requests[-1]
    assert request.sink is not None
    request.sink.part(request, Part(outputs, {}, final, lambda: taken.append(None)))
    if final:
        request.finish(b"")
    return len(taken)


async def test_responses_of_a_decoupled_candidate() -> None:
    bench, parts = bench_at(ALL), Parts()
    sent = bench.send("x", sink=parts)
    assert give(bench.candidate, [y()], final=False) == 1
    assert give(bench.candidate, [y(1, 2, 3)], final=True) == 1
    assert parts.sent == [b"2 x: [0.1, 0.7, 0.2]", b"2 x: [1.0, 2.0, 3.0]"]
    assert sent.answer == b""
    assert [seen.ok for seen in bench.judge.seen] == [True]


@pytest.mark.parametrize("bad", [[y(NAN, 0, 0)], ModelFailed("no")])
async def test_a_first_response_that_is_bad_is_the_stable_versions(bad: Any) -> None:
    bench, parts = bench_at(ALL), Parts()
    sent = bench.send("x", sink=parts)
    assert give(bench.candidate, bad, final=False) == 1
    assert bench.candidate.requests[0].done
    # the worker does not know yet that nobody listens
    assert give(bench.candidate, [y()], final=True) == 1
    give(bench.stable, [y()], final=True)
    assert parts.sent == [b"1 x: [0.1, 0.7, 0.2]"]
    assert sent.answer == b""
    assert bench.live.counts.fallbacks == 1


async def test_after_a_response_nothing_is_run_again() -> None:
    bench, parts = bench_at(ALL), Parts()
    sent = bench.send("x", sink=parts)
    give(bench.candidate, [y()], final=False)
    give(bench.candidate, ModelFailed("no"), final=True)
    assert isinstance(parts.sent[1], ModelFailed)
    assert sent.answer == b""
    assert bench.stable.requests == []
    assert [(seen.ok, seen.error_kind) for seen in bench.judge.seen] == [(False, "ModelFailed")]
    assert bench.live.counts.seen_failures == 1


# ── sequences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def stateful(share: int) -> tuple[RolloutBench, SequencesPool, SequencesPool]:
    """A roll-out of a model with sequences."""
    config: dict[str, Any] = {"sequence_batching": {"direct": {}}}
    bench = RolloutBench(config)
    pools = SequencesPool(), SequencesPool()
    for number, pool in enumerate(pools, start=1):
        bench.index.put(version(number, pool, config))
    bench.live.share = share
    return bench, *pools


def one_of(bench: RolloutBench, **flags: Any) -> int:
    """A request of the sequence 7."""
    return bench.send("", sequence_id=7, **flags).first


async def test_a_sequence_stays_where_it_began_whatever_the_share_is_by_then() -> None:
    bench, stable, candidate = stateful(0)
    assert one_of(bench, sequence_start=True) == 1
    stable.held.add(("default", 7))
    bench.live.share = ALL
    assert one_of(bench) == 1
    assert one_of(bench, sequence_start=True) == 1
    stable.held.clear()
    assert one_of(bench, sequence_start=True) == 2
    candidate.held.add(("default", 7))
    bench.live.share = 0
    assert one_of(bench) == 2
    assert one_of(bench, sequence_end=True) == 2


async def test_a_sequence_that_the_candidate_fails_is_not_run_elsewhere() -> None:
    bench, stable, candidate = stateful(ALL)
    sent = bench.send("", sequence_id=7, sequence_start=True)
    candidate.fail()
    assert isinstance(sent.answer, ModelFailed)
    assert stable.requests == []


# ── models that are clients themselves ──────────────────────────────────────────────────────────────────────────────


class Nested:
    """A model that asks the one that is rolled out."""

    def __init__(self, bench: RolloutBench) -> None:
        self.answers: list[Tensors | PenstockError] = []
        self._calls = NestedCalls(bench.index, rollouts=bench.index.rollouts)

    def ask(self, request_id: str = "x", model_version: str = "", holder: object = None) -> None:
        """One request."""
        inputs = [OutputTensor("A", "FP32", (1, 2), A), OutputTensor("B", "FP32", (1, 1), B)]
        terms = Terms(holder=holder)
        self._calls.submit("m", model_version, inputs, (), terms, self.answers.append, request_id)


class Lease:
    """Of a slab."""

    released = 0

    def release(self) -> None:
        """As Releasable."""
        self.released += 1


async def test_requests_of_other_models_are_split_too() -> None:
    bench = bench_at(ALL)
    nested, lease = Nested(bench), Lease()
    nested.ask()
    request = bench.candidate.requests[0]
    assert request.caller is not None
    request.caller.computed(Times(), lease)
    bench.candidate.answer()
    (answer,) = nested.answers
    assert isinstance(answer, Tensors)
    assert lease.released == 0
    answer.release()
    assert lease.released == 1
    nested.ask(model_version="1")
    assert len(bench.stable.requests) == 1


async def test_a_nested_answer_that_is_not_taken_gives_its_memory_back() -> None:
    bench = bench_at(ALL)
    nested, lease = Nested(bench), Lease()
    nested.ask()
    request = bench.candidate.requests[0]
    assert request.caller is not None
    request.caller.computed(Times(), lease)
    bench.candidate.answer(0, NAN, 0)
    assert lease.released == 1
    bench.stable.answer()
    assert isinstance(nested.answers[0], Tensors)


async def test_an_instance_that_waits_for_the_answer_does_not_queue_twice() -> None:
    bench = bench_at(ALL)
    nested = Nested(bench)
    nested.ask(holder=object())
    bench.candidate.fail()
    assert bench.stable.at_once == bench.stable.requests != []


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_in_shadow_mode_the_stable_version_answers_and_the_candidate_gets_a_copy() -> None:
    bench = bench_at(ALL, mode="shadow")
    sent = bench.send("x", CallTerms(timeout_us=10_000))
    assert bench.candidate.requests == []
    bench.stable.answer()
    assert sent.answer == b"1 x: [0.1, 0.7, 0.2]"
    (copy,) = bench.candidate.requests
    assert copy.priority > 1000
    assert (copy.tenant, [bytes(each) for each in copy.buffers]) == ("default", [A, B])
    bench.candidate.answer(0.1, 0.7001, 0.2)
    await turns()
    (pair,) = bench.judge.pairs
    assert (pair.stable.version, pair.candidate.version, pair.mismatch) == (1, 2, False)
    assert bench.judge.seen == []
    assert (bench.live.copies.under_way, bench.live.copies.nbytes) == (0, 0)


@pytest.mark.parametrize("values", [(0.3, 0.7, 0.2), (NAN, 0.7, 0.2)])
async def test_another_answer_is_a_mismatch(values: tuple[float, ...]) -> None:
    bench = bench_at(ALL, mode="shadow")
    bench.send("x")
    bench.stable.answer()
    bench.candidate.answer(*values)
    await turns()
    assert [pair.mismatch for pair in bench.judge.pairs] == [True]
    assert bench.live.counts.mismatches == 1
    assert bench.live.counts.seen_failures == 0


async def test_a_copy_that_fails_hurts_nobody_and_counts() -> None:
    bench = bench_at(ALL, mode="shadow")
    sent = bench.send("x")
    bench.stable.answer()
    bench.candidate.fail()
    assert isinstance(sent.answer, bytes)
    (pair,) = bench.judge.pairs
    assert (pair.candidate.ok, pair.candidate.error_kind, pair.mismatch) == (
        False,
        "ModelFailed",
        None,
    )
    assert bench.live.copies.under_way == 0


@pytest.mark.parametrize("aside_from_bytes", [0, 1 << 20])
async def test_a_copy_that_can_not_be_compared_takes_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, aside_from_bytes: int
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(shadow_copies, "agree", fail)
    monkeypatch.setattr(shadow_copies, "ASIDE_FROM_BYTES", aside_from_bytes)
    bench = bench_at(ALL, mode="shadow")
    sent = bench.send("x")
    bench.stable.answer()
    bench.candidate.answer()
    for _ in range(1000):
        if not bench.live.copies.under_way:
            break
        await asyncio.sleep(0.001)
    assert bench.live.copies.under_way == 0
    assert (bench.judge.pairs, isinstance(sent.answer, bytes)) == ([], True)
    assert "could not be compared" in caplog.text


async def test_a_share_of_the_requests_is_copied() -> None:
    bench = bench_at(2500, mode="shadow")
    for number in range(200):
        bench.send(f"r{number}")
        bench.stable.answer()
        if bench.live.copies.under_way:
            bench.candidate.answer()
            await turns()
    assert 20 < len(bench.judge.pairs) < 80


async def test_copies_are_bounded_and_the_first_to_go() -> None:
    bench = bench_at(ALL, mode="shadow")
    for number in range(100):
        bench.send(f"r{number}")
        bench.stable.answer()
    assert bench.live.copies.under_way == len(bench.candidate.requests) == 64
    assert bench.live.counts.dropped_copies == 36
    for request in list(bench.candidate.requests):
        request.finish(QueueFull("full"))
    # that there was no time for them is nothing against the candidate
    assert bench.judge.pairs == []
    assert bench.live.counts.dropped_copies == 100
    bench.index.get("m", "1").statistics.pending = 17
    bench.send("y")
    bench.stable.answer()
    assert len(bench.candidate.requests) == 64
    assert bench.live.counts.dropped_copies == 101


async def test_there_is_no_copy_of_what_failed_or_was_left() -> None:
    bench = bench_at(ALL, mode="shadow")
    bench.send("x")
    bench.stable.fail()
    bench.send("y").pending.cancel()
    assert bench.candidate.requests == []
    assert bench.live.copies.under_way == 0


async def test_large_outputs_are_compared_beside_the_event_loop() -> None:
    bench = RolloutBench(
        {"output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}]}, mode="shadow"
    )
    bench.live.share = ALL
    bench.send("x")
    values = [0.5] * (32 << 10)
    bench.stable.answer(*values)
    bench.candidate.answer(*values[:-1], 0.6)
    while not bench.judge.pairs:
        await turns(1)
    assert bench.judge.pairs[0].mismatch is True
    assert bench.live.copies.under_way == 0


async def test_a_nested_request_is_copied_with_inputs_of_its_own() -> None:
    bench = bench_at(ALL, mode="shadow")
    nested = Nested(bench)
    nested.ask()
    bench.stable.answer()
    assert isinstance(nested.answers[0], Tensors)
    assert [type(each) for each in bench.candidate.requests[0].buffers] == [bytes, bytes]


# ── what notes which version has answered ───────────────────────────────────────────────────────────────────────────


class Digest:
    """Of a version's files."""

    def __init__(self, text: str) -> None:
        self.text = text

    def now(self) -> str:
        """As VersionDigest."""
        return self.text


async def test_the_digest_is_that_of_the_version_that_has_answered() -> None:
    bench = bench_at(ALL)
    for number, pool in enumerate((bench.stable, bench.candidate), start=1):
        digest: Any = Digest(f"sha256:{number}")
        bench.index.put(replace(version(number, pool), digest=digest))
    told: list[object] = []

    class Telling(Encoder):
        """Notes the parameters of responses."""

        def of(self, model: ServedModel) -> Telling:
            """As Retargetable."""
            return Telling(model)

        def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
            """As Encode."""
            told.append((self.version, request.response_parameters["model_digest"]))
            return super().__call__(request, outputs)

    header = replace(HEADER, parameters={"model_digest": True})
    for fails in (False, True):
        bound = bench.inference.bind(header, NO_TERMS, "x")
        sent = Sent(2)
        sent.pending = bench.inference.submit(
            bound, "x", [A, B], Telling(bound.model), sent.respond, 100
        )
        if fails:
            bench.candidate.fail()
            bench.stable.answer()
        else:
            bench.candidate.answer()
        assert isinstance(sent.answer, bytes)
    assert told == [(2, "sha256:2"), (1, "sha256:1")]
