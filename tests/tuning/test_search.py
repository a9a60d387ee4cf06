"""The search on simulated machines, quiet and noisy ones: what it finds, and what it does not believe."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from penstock.errors import ModelFailed
from penstock.tuning.candidate import BATCH_SIZES, DELAYS_US, Candidate, Space
from penstock.tuning.search import FINAL_TURNS, OVERDUE, TURNS, Found, Gain, Goal, Search, Slice

NOW = Candidate("onnxruntime", max_batch_size=64)
SPACE = Space(backends=("onnxruntime", "openvino"), cores=4, batches=True, waits=True)

Speed = Callable[[Candidate], float]


@dataclass
class Simulated:
    """Rows a second by a formula, times the noise of the moment, which drifts as other programs come and go."""

    speed: Speed
    noise: float = 0.0
    drift: float = 0.0
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Backend → why."""
    seed: int = 0
    prepared: list[Candidate] = field(default_factory=list)
    measured: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._load = 1.0

    async def prepare(self, candidates: Sequence[Candidate]) -> Mapping[Candidate, str]:
        assert not self.prepared, "what was there before was released"
        assert len(set(candidates)) == len(candidates)
        self.prepared = list(candidates)
        return {c: self.refuses[c.backend] for c in candidates if c.backend in self.refuses}

    async def measure(self, candidate: Candidate) -> Slice:
        assert candidate in self.prepared
        self.measured.append(candidate)
        self._load *= 1 + self._random.uniform(-self.drift, self.drift)
        rows_s = self.speed(candidate) * self._load * self._random.gauss(1, self.noise)
        return Slice(rows_s, 16_000 / rows_s, 32_000 / rows_s)

    async def release(self, candidates: Sequence[Candidate]) -> None:
        assert list(candidates) == self.prepared
        self.prepared = []


def real_machine(c: Candidate) -> float:
    """OpenVINO is a fifth faster, two instances a third; a larger batch is better up to 32; waiting does harm."""
    backend = 1.2 if c.backend == "openvino" else 1.0
    instances = {1: 1.0, 2: 1.33, 4: 1.1}[c.instances] * (0.7 if c.threads == 1 else 1)
    batch = {8: 0.8, 16: 0.9, 32: 1.1, 64: 1.0, 128: 1.0}[c.max_batch_size]
    return 1000 * backend * instances * batch / (1 + c.delay_us / 1000)


async def find(machine: Simulated, **options: object) -> Found:
    search = Search(machine, SPACE, Goal.THROUGHPUT, **options)  # type: ignore[arg-type]
    found = await search.run(NOW)
    assert not machine.prepared
    return found


async def test_each_coordinate_is_found() -> None:
    found = await find(Simulated(real_machine))
    assert found.best == Candidate("openvino", instances=2, max_batch_size=32)
    assert found.gain.ratio == pytest.approx(1.2 * 1.33 * 1.1)
    assert found.in_time
    chosen = [trial for trial in found.trials if trial.chosen]
    assert [trial.step for trial in chosen] == [*SPACE.steps(), "once more"]


async def test_what_the_machine_does_beside_falls_on_all_alike() -> None:
    """Its speed wanders by far more than the candidates differ."""
    found = await find(Simulated(real_machine, noise=0.01, drift=0.05, seed=3))
    assert (found.best.backend, found.best.instances) == ("openvino", 2)


async def test_luck_is_hardly_ever_written() -> None:
    """All are equally fast: some always look faster."""
    lucky = 0
    for seed in range(200):
        found = await find(Simulated(lambda _: 1000, noise=0.1, drift=0.05, seed=seed))
        lucky += found.best != NOW
    assert lucky < 20


async def test_a_gain_that_is_not_worth_it_is_left_alone() -> None:
    def barely(c: Candidate) -> float:
        return 1010 if c.backend == "openvino" else 1000

    assert (await find(Simulated(barely))).best == NOW


async def test_trials_say_whether_their_turns_differ_too_much() -> None:
    noisy = await find(Simulated(lambda _: 1000, noise=0.3, seed=1))
    assert any(trial.within_noise for trial in noisy.trials)
    assert not any(t.within_noise for t in noisy.trials if t.chosen or t.candidate == NOW)
    clear = await find(Simulated(real_machine, noise=0.001, seed=1))
    assert not any(trial.within_noise for trial in clear.trials if trial.step == "backend")


async def test_those_that_answer_otherwise_take_no_part() -> None:
    why = "output 'Y' differs by 0.3 of its largest element"
    machine = Simulated(real_machine, refuses={"openvino": why})
    found = await find(machine)
    assert found.best.backend == "onnxruntime"
    assert [t.refused for t in found.trials if t.candidate.backend == "openvino"] == [why]
    assert all(c.backend == "onnxruntime" for c in machine.measured)


async def test_a_model_that_answers_nothing_as_it_is_cannot_be_tuned() -> None:
    machine = Simulated(real_machine, refuses={"onnxruntime": "IndexError: index 7"})
    why = "onnxruntime, 1 instance, max_batch_size 64 can't be measured: IndexError: index 7"
    with pytest.raises(ModelFailed, match=why):
        await find(machine)
    assert not machine.prepared


async def test_turns_are_taken_and_the_slower_half_leaves() -> None:
    machine = Simulated(real_machine)
    only_batches = Space(backends=("onnxruntime",), cores=1, batches=True, waits=False)
    await Search(machine, only_batches, Goal.THROUGHPUT).run(NOW)
    sizes = [c.max_batch_size for c in machine.measured]
    assert sizes[:5] == [64, 8, 16, 32, 128]
    assert sizes[5:10] == [8, 16, 32, 128, 64]
    # two of four are left, beside the best one before
    assert {*sizes[10:13]} == {64, 32, 128}
    assert len(sizes) == 2 * 5 + 2 * 3 + 2 * FINAL_TURNS
    assert sizes.count(32) == TURNS + FINAL_TURNS


async def test_time_that_is_over_ends_it_with_what_was_found() -> None:
    left = iter([True, False])
    found = await find(Simulated(real_machine), time_left=lambda: next(left))
    assert not found.in_time
    assert found.best == Candidate("openvino", max_batch_size=64)


async def test_what_takes_far_too_long_is_left_as_it_is() -> None:
    """Requests of seconds: what was measured is told, nothing is believed."""
    machine = Simulated(real_machine)
    found = await find(machine, overdue=lambda: len(machine.measured) == 1)
    assert not found.in_time
    assert found.best == NOW
    measured, other = found.trials
    assert measured.candidate == NOW and len(measured.slices) == 1
    assert other.refused == OVERDUE


async def test_a_last_race_that_was_cut_convinces_nobody() -> None:
    machine = Simulated(real_machine)
    confirming = len(SPACE.steps()) + 1
    steps: list[str] = []

    def overdue() -> bool:
        return len(steps) == confirming and machine.measured.count(NOW) > TURNS + 2

    found = await find(machine, overdue=overdue, on_step=lambda step, _: steps.append(step))
    assert len(steps) == confirming
    assert not found.in_time
    assert found.best == NOW
    assert found.gain.ratio > 1.5


async def test_latency_and_its_bound() -> None:
    def score(goal: Goal, bound: float | None, *found: Slice) -> list[float]:
        search = Search(Simulated(real_machine), SPACE, goal, bound)
        return [search.score(each) for each in found]

    quick, fast = Slice(100, 1, 2), Slice(400, 20, 40)
    few, many = score(Goal.THROUGHPUT, None, quick, fast)
    assert few < many
    few, many = score(Goal.LATENCY, None, quick, fast)
    assert few > many
    few, many = score(Goal.THROUGHPUT, 10, quick, fast)
    assert few > many


async def test_a_failing_measurement_leaves_nothing_prepared() -> None:
    def fails(c: Candidate) -> float:
        if c.backend == "openvino":
            raise RuntimeError("gone")
        return 1000

    machine = Simulated(fails)
    with pytest.raises(RuntimeError):
        await Search(machine, SPACE, Goal.THROUGHPUT).run(NOW)
    assert not machine.prepared


def test_gains() -> None:
    assert not Gain(1.5, 0.99).convincing
    assert not Gain(1.02, 1.01).convincing
    assert Gain(1.04, 1.01).convincing


def test_what_is_tried_around_a_candidate() -> None:
    around = list(SPACE.around("instances", NOW))
    assert [(c.instances, c.threads) for c in around] == [(2, 0), (4, 0), (1, 1)]
    assert [c.max_batch_size for c in SPACE.around("max_batch_size", NOW)] == [
        size for size in BATCH_SIZES if size != 64
    ]
    delays = list(SPACE.around("queue delay", NOW))
    assert [c.delay_us for c in delays] == [*DELAYS_US[1:], DELAYS_US[1]]
    assert delays[-1].preferred == (32,)
    fixed = Space(backends=("python",), cores=8, batches=False, waits=False, instances=False)
    assert not [
        c for step in fixed.steps() for c in fixed.around(step, NOW) if c.backend != "python"
    ]
