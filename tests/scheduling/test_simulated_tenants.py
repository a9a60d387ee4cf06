"""Fair shares and priorities in simulated time: who sends more waits longer, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from outcomes import between, of, quantile_us
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import AHEAD_SHARE, AHEAD_US, SchedulingPolicy
from simulation import Batch, Job, Service, Simulation, Stream, noisy

SATURATION = 400
"""Rows a second that an instance can take: 20 ms for a batch of 8."""

FULL_US = 20_000
GREED = 100
"""Times what the polite one sends, which is a twentieth of what all instances can take: five times the saturation."""

POLICY = SchedulingPolicy(
    BatchPolicy(max_rows=8, merge=True), weight_of=lambda tenant: 3.0 if tenant == "three" else 1.0
)


def fixed(rows: int, now_us: float) -> float:
    """Costs the same for any number of rows."""
    return FULL_US


def affine(rows: int, now_us: float) -> float:
    """A small batch is quicker."""
    return 4_000 + 2_000 * rows


def polite(service: Service, instances: int, greed: float, timeout_us: float) -> list[Job]:
    """All requests of a tenant that needs a twentieth of the instances, beside one that sends `greed` times as much."""
    rate = 0.05 * SATURATION * instances
    streams = [Stream(rate=rate, tenant="polite", timeout_us=timeout_us)]
    if greed:
        streams.append(Stream(rate=greed * rate, tenant="greedy", timeout_us=timeout_us))
    simulation = Simulation(POLICY, noisy(service), streams, instances)
    # so that there are the same number of them, whatever the number of instances
    end_s = 2 + 12 / instances
    simulation.run(end_s)
    return of(between(simulation.jobs, 1, end_s - 1), "polite")


@pytest.mark.parametrize("timeout_us", [200_000, 2_000_000])
@pytest.mark.parametrize("instances", [1, 3])
def test_the_polite_tenant_hardly_notices_the_greedy_one(instances: int, timeout_us: float) -> None:
    alone = polite(fixed, instances, 0, timeout_us)
    beside = polite(fixed, instances, GREED, timeout_us)
    assert quantile_us(beside, 0.99) <= 1.5 * quantile_us(alone, 0.99)
    assert all(job.good for job in beside)


def test_where_small_batches_are_quick_the_polite_tenant_waits_for_one_full_batch_at_most() -> None:
    beside = polite(affine, 1, GREED, 200_000)
    # one that runs, then its own, each with noise, and one that was sent ahead just before it came
    ahead_us = AHEAD_US + AHEAD_SHARE * FULL_US
    assert quantile_us(beside, 0.99) <= 1.2 * 2 * FULL_US + ahead_us
    assert all(job.good for job in beside)


def rows_of(batches: Iterable[Batch], tenant: str) -> int:
    return sum(job.rows for batch in batches for job in batch.jobs if job.tenant == tenant)


SHARERS = {
    "clients that wait for their answers": (
        Stream(clients=50, tenant="one"),
        Stream(clients=50, tenant="three"),
    ),
    "the heavier one sends single rows": (
        Stream(clients=50, tenant="one", rows=(1, 4, 8)),
        Stream(clients=50, tenant="three"),
    ),
    "deadlines, and the lighter one sends twice as much": (
        Stream(rate=4 * SATURATION, tenant="one", timeout_us=200_000),
        Stream(rate=2 * SATURATION, tenant="three", timeout_us=200_000),
    ),
}


@pytest.mark.parametrize("streams", SHARERS.values(), ids=SHARERS)
def test_tenants_that_have_work_waiting_share_by_weight(streams: tuple[Stream, Stream]) -> None:
    simulation = Simulation(POLICY, noisy(affine), streams)
    simulation.run(10)
    # every second of it, not only at the end
    for second in range(1, 10):
        batches = [
            batch for batch in simulation.batches if second <= batch.began_us / 1e6 < second + 1
        ]
        one, three = rows_of(batches, "one"), rows_of(batches, "three")
        # a batch each at either end, and the deadlines' refusals
        assert abs(one / (one + three) - 0.25) < 0.06
    one, three = rows_of(simulation.batches, "one"), rows_of(simulation.batches, "three")
    assert one / (one + three) == pytest.approx(0.25, abs=0.01)


def test_what_one_tenant_leaves_the_other_has() -> None:
    streams = [Stream(clients=50, tenant="one"), Stream(rate=0.25 * SATURATION, tenant="three")]
    simulation = Simulation(POLICY, fixed, streams)
    simulation.run(10)
    one, three = rows_of(simulation.batches, "one"), rows_of(simulation.batches, "three")
    assert three == pytest.approx(0.25 * SATURATION * 10, rel=0.1)
    assert one + three > 0.98 * SATURATION * 10


def began_s(batches: Iterable[Batch], priority: int) -> list[float]:
    """When batches that had some of that level began."""
    return [b.began_us / 1e6 for b in batches if any(job.priority == priority for job in b.jobs)]


def test_no_level_starves_and_none_takes_much_of_a_higher_one() -> None:
    streams = [Stream(clients=50, priority=priority) for priority in (1, 2, 3)]
    simulation = Simulation(POLICY, noisy(fixed), streams)
    simulation.run(15)
    for priority in (2, 3):
        times = [0.0, *began_s(simulation.batches, priority), 15.0]
        # a second, and what runs or was to run before it
        assert max(later - earlier for earlier, later in pairwise(times)) < 1 + 4 * FULL_US / 1e6
    assert len(began_s(simulation.batches, 1)) > 0.95 * len(simulation.batches)


def test_a_higher_level_goes_first() -> None:
    streams = [
        Stream(rate=0.5 * SATURATION, priority=1, tenant="urgent"),
        Stream(clients=50, priority=2, tenant="patient"),
    ]
    simulation = Simulation(POLICY, noisy(fixed), streams)
    simulation.run(10)
    jobs = between(simulation.jobs, 1, 9)
    # one batch that runs, then its own; one batch in fifty is of the other level, which would starve else
    assert quantile_us(of(jobs, "urgent"), 0.98) < 1.2 * 2 * FULL_US
    assert quantile_us(of(jobs, "patient"), 0.5) > 4 * FULL_US
