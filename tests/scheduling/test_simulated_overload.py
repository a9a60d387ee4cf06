"""Overload in simulated time: what is admitted is answered in time, and the model does nothing else."""

from __future__ import annotations

from functools import cache
from math import inf

import pytest

from outcomes import between, goodput, late_share, quantile_us, refused_share
from penstock.errors import DeadlineExceeded, QueueFull
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import SchedulingPolicy
from simulation import Job, Service, Simulation, Stream, noisy

ROWS = 8
TIMEOUT_US = 200_000
SATURATION = 400
"""Requests a second that one instance can take: both models need 20 ms for a full batch."""

WARM_S, END_S = 1, 7
BATCHES = BatchPolicy(max_rows=ROWS, merge=True)


def fixed(rows: int, now_us: float) -> float:
    """Costs the same for any number of rows."""
    return 20_000


def affine(rows: int, now_us: float) -> float:
    """A small batch is quicker."""
    return 4_000 + 2_000 * rows


MODELS: dict[str, Service] = {"fixed": fixed, "affine": affine}
every_model = pytest.mark.parametrize("model", MODELS)
every_pool = pytest.mark.parametrize("instances", [1, 3])


@cache
def overload(model: str, instances: int, load: float) -> Simulation:
    """Poisson arrivals at `load` times the saturation rate, each with a deadline; batches vary by ±20 %."""
    stream = Stream(rate=load * SATURATION * instances, timeout_us=TIMEOUT_US)
    policy = SchedulingPolicy(BATCHES)
    simulation = Simulation(policy, noisy(MODELS[model]), [stream], instances)
    simulation.run(END_S)
    return simulation


def judged(simulation: Simulation) -> list[Job]:
    """Requests that came when the service curve was known, and whose end is known."""
    return between(simulation.jobs, WARM_S, END_S - TIMEOUT_US / 1e6)


@every_pool
@every_model
def test_goodput_stays_at_its_peak_whatever_the_load(model: str, instances: int) -> None:
    by_load = {
        load: goodput(overload(model, instances, load).jobs, WARM_S, END_S)
        for load in (0.9, 1.0, 1.2, 2.0, 5.0)
    }
    peak = max(by_load.values())
    assert peak > 0.97 * SATURATION * instances
    assert by_load[2.0] >= 0.95 * peak
    assert by_load[5.0] >= 0.95 * peak


@every_pool
@every_model
def test_of_the_admitted_at_twice_the_load_few_are_late(model: str, instances: int) -> None:
    jobs = judged(overload(model, instances, 2.0))
    assert late_share(jobs) < 0.05
    assert all(isinstance(job.error, DeadlineExceeded) for job in jobs if job.refused)


@every_pool
@every_model
def test_the_queue_holds_no_more_than_can_be_served_in_time(model: str, instances: int) -> None:
    in_time = SATURATION * instances * TIMEOUT_US / 1e6
    for load in (2.0, 5.0):
        simulation = overload(model, instances, load)
        # what came before anything was known of the model stays for its 200 ms
        unknown = load * SATURATION * instances * 0.1
        assert simulation.most_waiting < in_time + unknown


@every_pool
@every_model
def test_below_saturation_hardly_anybody_is_refused(model: str, instances: int) -> None:
    jobs = judged(overload(model, instances, 0.9))
    assert refused_share(jobs) < 0.005
    assert late_share(jobs) < 0.005


def urgent_and_patient(model: str, instances: int, load: float) -> tuple[list[Job], list[Job]]:
    """Every tenth request has 60 ms, the others have 2 s."""
    rate = load * SATURATION * instances
    streams = [
        Stream(rate=0.1 * rate, timeout_us=60_000, tenant="t"),
        Stream(rate=0.9 * rate, timeout_us=2_000_000, tenant="t"),
    ]
    simulation = Simulation(SchedulingPolicy(BATCHES), noisy(MODELS[model]), streams, instances)
    simulation.run(END_S + 2)
    jobs = between(simulation.jobs, WARM_S, END_S)
    urgent = [job for job in jobs if job.deadline_us - job.arrived_us < 100_000]
    return urgent, [job for job in jobs if job not in set(urgent)]


@every_pool
@every_model
def test_the_urgent_are_in_time_while_all_can_be(model: str, instances: int) -> None:
    urgent, patient = urgent_and_patient(model, instances, 0.8)
    assert sum(job.good for job in urgent) >= 0.99 * len(urgent)
    assert all(job.good for job in patient)


def test_the_urgent_are_not_refused_for_the_sake_of_a_queue_that_has_time() -> None:
    urgent, patient = urgent_and_patient("affine", 1, 1.3)
    assert sum(job.good for job in urgent) >= 0.9 * len(urgent)
    assert late_share(patient) < 0.05


def test_requests_without_a_deadline_are_refused_by_how_long_they_would_wait() -> None:
    policy = SchedulingPolicy(BATCHES, max_queue_us=100_000)
    simulation = Simulation(policy, noisy(affine), [Stream(rate=3 * SATURATION)])
    simulation.run(END_S)
    jobs = between(simulation.jobs, WARM_S, END_S - 1)
    assert goodput(jobs, WARM_S, END_S - 1) > 0.95 * SATURATION
    # the wait, one batch that runs, and their noise
    assert quantile_us(jobs, 0.99) < 1.5 * (100_000 + 20_000)
    assert all(job.good != job.refused for job in jobs)
    errors = [job.error for job in jobs if job.error is not None]
    for error in errors:
        assert isinstance(error, QueueFull)
        assert 0 < (error.retry_after_s or 0) < 0.1


def test_a_refused_client_that_comes_back_when_told_is_taken() -> None:
    policy = SchedulingPolicy(BATCHES, max_queue_us=100_000)
    stream = Stream(rate=2 * SATURATION)
    simulation = Simulation(policy, affine, [stream])
    simulation.run(3)
    stream.rate = 0
    refused = next(job for job in reversed(simulation.jobs) if job.refused)
    assert isinstance(refused.error, QueueFull)
    wait_us = 1e6 * (refused.error.retry_after_s or inf)
    back = Job(refused.arrived_us + wait_us)
    simulation.submit_at_their_time([back])
    simulation.run(1)
    assert back.good
