"""The SLO controller in simulated time: it finds the objective again after a step, and then stays where it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest

from outcomes import between, goodput, late_share, quantile_us
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import SchedulingPolicy
from penstock.scheduling.slo import FLAT, PERIOD_US, Decision
from simulation import Simulation, Stream, noisy

PERIOD_S = PERIOD_US / 1e6
SETTLED_S = 4 * PERIOD_S
"""The four periods after a step may be worse."""

STEP_S, END_S = 10, 30
MOST_CHANGES = 3
"""In the last twenty periods: what is learnt from noise can't stand quite still. Swinging would be twenty."""


@dataclass(frozen=True)
class Model:
    """What batches take (±20 %), and how much of it comes."""

    slo_us: float
    batch_us: float
    row_us: float
    max_rows: int
    rate: float
    instances: int = 1


MODELS = {
    "rows cost most": Model(100_000, 2_000, 1_000, 64, 100),
    "batches cost most": Model(100_000, 20_000, 100, 32, 100),
    "three instances": Model(50_000, 4_000, 500, 16, 300, 3),
    "quick": Model(20_000, 500, 50, 32, 600),
}
every_model = pytest.mark.parametrize("name", MODELS)


class Plant:
    """A model under the controller, or under a delay that somebody chose. Its clients wait as long as the objective."""

    def __init__(self, model: Model, load: float = 1.0, fixed_delay_us: int | None = None) -> None:
        self.slowdown = 1.0
        self.stream = Stream(
            rate=load * model.rate, timeout_us=model.slo_us, deadline_is_clients=False
        )
        tuned = fixed_delay_us is not None
        batches = BatchPolicy(model.max_rows, merge=True, max_delay_us=fixed_delay_us or 0)
        policy = SchedulingPolicy(batches, slo_p99_us=0 if tuned else model.slo_us)
        service = noisy(lambda rows, _: self.slowdown * (model.batch_us + model.row_us * rows))
        self.simulation = Simulation(policy, service, [self.stream], model.instances)


@cache
def stepped(name: str, step: str) -> Simulation:
    """After ten seconds three times as much comes, or each batch takes twice as long."""
    plant = Plant(MODELS[name], load=2.0 if step == "service" else 1.0)
    plant.simulation.run(STEP_S)
    if step == "load":
        plant.stream.rate *= 3
    else:
        plant.slowdown = 2.0
    plant.simulation.run(END_S - STEP_S)
    return plant.simulation


def changes(decisions: list[Decision], since_s: float) -> int:
    return sum(
        (before.rows_cap, before.delay_us) != (after.rows_cap, after.delay_us)
        for before, after in pairwise(decisions)
        if after.at_us > since_s * 1e6
    )


@every_model
@pytest.mark.parametrize("step", ["load", "service"])
def test_after_a_step_the_objective_holds_again_and_nothing_swings(name: str, step: str) -> None:
    simulation = stepped(name, step)
    slo_us = MODELS[name].slo_us
    jobs = between(simulation.jobs, STEP_S + SETTLED_S, END_S - slo_us / 1e6)
    assert quantile_us(jobs, 0.99) <= slo_us
    # of all that came, refused ones and late ones too
    assert sum(job.good for job in jobs) >= 0.99 * len(jobs)
    assert changes(simulation.decisions, END_S - 20 * PERIOD_S) <= MOST_CHANGES


@every_model
@pytest.mark.parametrize("step", ["load", "service"])
def test_most_requests_are_in_time_even_while_it_learns(name: str, step: str) -> None:
    jobs = between(stepped(name, step).jobs, STEP_S, STEP_S + SETTLED_S)
    assert sum(job.good for job in jobs) >= 0.95 * len(jobs)


@every_model
def test_two_of_the_largest_batches_fit_into_the_objective(name: str) -> None:
    plant = Plant(MODELS[name], load=2.0)
    plant.simulation.run(5)
    plant.slowdown = 2.0
    for _ in range(20):
        plant.simulation.run(PERIOD_S)
        decision = plant.simulation.decisions[-1]
        if plant.simulation.now_us > (5 + SETTLED_S) * 1e6:
            # what the curve has learnt since the decision, of batches that vary by a fifth
            curve = plant.simulation.scheduler.curve
            two_us = 2 * curve.upper_us(decision.rows_cap)
            # where not even two single rows fit, smaller batches would help nobody
            most_us = max(plant.stream.timeout_us, 2 * FLAT * curve.expected_us(1))
            assert two_us + decision.delay_us <= 1.2 * most_us


def test_waiting_begins_when_instances_are_busy_and_ends_when_they_would_not_be() -> None:
    model = MODELS["quick"]
    plant = Plant(model, load=0.5)
    plant.simulation.run(5)
    assert {decision.delay_us for decision in plant.simulation.decisions} == {0.0}
    plant.stream.rate = 4 * model.rate
    plant.simulation.run(5)
    waiting = plant.simulation.decisions[-1]
    assert waiting.delay_us > 0
    assert "waiting until" in waiting.reason
    plant.stream.rate = 0.5 * model.rate
    plant.simulation.run(10)
    assert plant.simulation.decisions[-1].delay_us == 0.0


def test_waiting_saves_most_of_the_instances_time() -> None:
    model = MODELS["quick"]
    busy = {}
    for delay_us in (None, 0):
        plant = Plant(model, 3.0, delay_us)
        plant.simulation.run(6)
        batches = [batch for batch in plant.simulation.batches if batch.began_us > 3e6]
        busy[delay_us] = sum(batch.ended_us - batch.began_us for batch in batches) / 3e6
    assert busy[0] > 0.7
    assert busy[None] < 0.5 * busy[0]


@pytest.mark.parametrize("load", [1, 3, 12, 25])
@pytest.mark.parametrize("name", ["rows cost most", "batches cost most"])
def test_no_delay_chosen_by_hand_gives_more_answers_in_time(name: str, load: float) -> None:
    """Within 5 %, from a tenth of the saturation rate to more than twice as much; the same requests come each time."""
    answers = {}
    for delay_us in (None, 0, 5_000, 40_000):
        plant = Plant(MODELS[name], load, delay_us)
        plant.simulation.run(4)
        jobs = between(plant.simulation.jobs, 1.5, 4 - MODELS[name].slo_us / 1e6)
        answers[delay_us] = sum(job.good for job in jobs)
    assert answers[None] >= 0.95 * max(answers.values())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "quick"])
def test_overload_does_not_make_batches_smaller_than_they_need_be(name: str) -> None:
    model = MODELS[name]
    rows = model.max_rows
    most = model.instances * rows / (model.batch_us + model.row_us * rows) * 1e6
    plant = Plant(model, 2 * most / model.rate)
    plant.simulation.run(5)
    jobs = plant.simulation.jobs
    assert goodput(jobs, 2, 5) >= 0.93 * most
    assert late_share(between(jobs, 2, 5 - model.slo_us / 1e6)) < 0.05
    plant.stream.rate = model.rate
    plant.simulation.run(4)
    after = between(plant.simulation.jobs, 5 + SETTLED_S, 8)
    assert all(job.good for job in after)
