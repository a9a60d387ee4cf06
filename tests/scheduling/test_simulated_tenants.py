"""Fair shares and priorities in simulated time: who sends more waits longer, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import inf

import pytest

from outcomes import between, of, quantile_us
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import SchedulingPolicy
from simulation import Job, Service, Simulation, Stream, noisy

SATURATION = 400
"""Rows a second that an instance can take: 20 ms for a batch of 8."""

POLITE_RATE = 0.05 * SATURATION
GREED = 100
WARM_S, END_S = 1, 16
BATCHES = BatchPolicy(max_rows=8, merge=True)


def fixed(rows: int, now_us: float) -> float:
    """Costs the same for any number of rows."""
    return 20_000


def affine(rows: int, now_us: float) -> float:
    """A small batch is quicker."""
    return 4_000 + 2_000 * rows


MODELS: dict[str, Service] = {"fixed": fixed, "affine": affine}


@cache
def polite(model: str, greedy_rate: float, timeout_us: float, instances: int = 1) -> list[Job]:
    """All requests of a tenant that needs a twentieth of one instance, beside one that sends at `greedy_rate`."""
    streams = [Stream(rate=POLITE_RATE, tenant="polite", timeout_us=timeout_us)]
    if greedy_rate:
        streams.append(Stream(rate=greedy_rate, tenant="greedy", timeout_us=timeout_us))
    policy = SchedulingPolicy(BATCHES)
    simulation = Simulation(policy, noisy(MODELS[model]), streams, instances)
    simulation.run(END_S)
    return of(between(simulation.jobs, WARM_S, END_S - 1), "polite")
