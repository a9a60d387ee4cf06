"""Simulated traffic of two versions of a model, as unfriendly as that of servers is.

Each request has what it would come to on either version: the same, but for what each version's own worker suffers just
then (bursts of slowness and of errors, of which the other's knows nothing) and for what is wrong with the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.rollouts.split import WHOLE, share_of_unit, unit_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GRID_S: Final = 0.1
CLASSES: Final = 10
MEDIAN_US: Final = 5_000.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests come and what they take where nothing is wrong with the candidate."""

    name: str
    rate: float = 100.0
    """Requests a second, in the mean."""
    swing: float = 0.0
    """By how much the rate goes up and down in a few minutes, as a share of it."""
    sigma: float = 0.4
    """Of the logarithm of latencies."""
    pareto: float = 0.0
    """Index of the tail of a factor on them: 1.5 has a mean and no variance, 1 has neither. 0: no such factor."""
    common_sigma: float = 0.0
    """Of a factor on both versions' latencies that wanders."""
    common_s: float = 20.0
    """For how long the factor remembers."""
    bursts_every_s: float = 0.0
    """Of each version's worker by itself; 0: never."""
    bursts_s: float = 0.5
    """Their mean length."""
    burst_slows: float = 1.0
    """Times as long a request takes in one."""
    burst_fails: float = 0.0
    """Share of the requests that fail in one."""
    fails: float = 0.0
    """Share of the requests that fail always."""
    outages_every_s: float = 0.0
    """Times of both versions alike in which all requests fail; 0: never."""
    ids: int = 0
    """So many request ids, a few of which make most of the requests; 0: each request is drawn anew."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the candidate."""

    name: str = "none"
    fails: float = 0.0
    slows: float = 1.0
    slows_tail: float = 1.0
    """Factor on every tenth request, on no other."""
    non_finite: float = 0.0
    drifts: float = 0.0
    """Share of its answers that are of one class, whatever was asked."""
    from_s: float = 0.0
    """When it begins."""


@dataclass(frozen=True, slots=True)
class Requests:
    """All of a run, in order."""

    at_us: list[float]
    place: list[int]
    """Where each lies in the split."""
    unit: list[int]
    latency_us: tuple[list[float], list[float]]
    """With the stable version, and with the candidate; and so on."""
    failed: tuple[list[bool], list[bool]]
    outage: list[bool]
    """Both fail."""
    non_finite: list[bool]
    """With the candidate."""
    answer: tuple[list[int], list[int]]


def requests_of(traffic: Traffic, fault: Fault, seconds: float, seed: int) -> Requests:
    """The same for the same seed."""
    random = np.random.default_rng(seed)
    at_s = _arrivals(traffic, seconds, random)
    count = len(at_s)
    units, places, heavy, kinds = _clients(traffic, count, random)
    base = MEDIAN_US * np.exp(traffic.sigma * random.standard_normal(count)) * heavy
    if traffic.pareto:
        base *= 0.5 + 0.5 * (1 + random.pareto(traffic.pareto, count))
    if traffic.common_sigma:
        base *= np.exp(_wander(traffic, seconds, random)[(at_s / GRID_S).astype(int)])
    outage = _bursts(traffic.outages_every_s, 3.0, at_s, seconds, random)
    latencies, failures = [], []
    for _ in range(2):
        burst = _bursts(traffic.bursts_every_s, traffic.bursts_s, at_s, seconds, random)
        latencies.append(np.where(burst, base * traffic.burst_slows, base))
        chance = np.where(burst, traffic.burst_fails, traffic.fails)
        failures.append(outage | (random.random(count) < chance))
    wrong = at_s >= fault.from_s
    latencies[1] = np.where(wrong, latencies[1] * fault.slows, latencies[1])
    tail = wrong & (random.random(count) < 0.1)
    latencies[1] = np.where(tail, latencies[1] * fault.slows_tail, latencies[1])
    failures[1] |= wrong & (random.random(count) < fault.fails)
    drifted = wrong & (random.random(count) < fault.drifts)
    return Requests(
        at_us=(at_s * 1e6).tolist(),
        place=places.tolist(),
        unit=units,
        latency_us=(latencies[0].tolist(), latencies[1].tolist()),
        failed=(failures[0].tolist(), failures[1].tolist()),
        outage=outage.tolist(),
        non_finite=(wrong & (random.random(count) < fault.non_finite)).tolist(),
        answer=(kinds.tolist(), np.where(drifted, 0, kinds).tolist()),
    )


def _arrivals(traffic: Traffic, seconds: float, random: np.random.Generator) -> Floats:
    grid = np.arange(0, seconds, GRID_S)
    phase, period_s = random.random() * 2 * np.pi, random.uniform(60, 300)
    rate = traffic.rate * (1 + traffic.swing * np.sin(2 * np.pi * grid / period_s + phase))
    counts = random.poisson(np.maximum(rate, 0) * GRID_S)
    # a hair under the end, for what is looked up by the place in the grid
    at = np.repeat(grid, counts) + random.random(counts.sum()) * GRID_S * 0.999
    return np.sort(at)


def _clients(
    traffic: Traffic, count: int, random: np.random.Generator
) -> tuple[list[int], npt.NDArray[Any], Floats, npt.NDArray[Any]]:
    """Units, places in the split, factors on latencies, classes of right answers."""
    if not traffic.ids:
        kinds = random.integers(0, CLASSES, count)
        return [0] * count, random.integers(0, WHOLE, count), np.ones(count), kinds
    salt = str(random.integers(1 << 30))
    ids = [unit_of("", str(number), salt) for number in range(traffic.ids)]
    popularity = 1 / np.arange(1, traffic.ids + 1)
    who = random.choice(traffic.ids, count, p=popularity / popularity.sum())
    places = np.array([share_of_unit(unit) for unit in ids])[who]
    heavy = np.exp(0.5 * random.standard_normal(traffic.ids))[who]
    favourite = random.integers(0, CLASSES, traffic.ids)[who]
    anything = random.integers(0, CLASSES, count)
    kinds = np.where(random.random(count) < 0.7, favourite, anything)
    return [ids[number] for number in who], places, heavy, kinds


def _wander(traffic: Traffic, seconds: float, random: np.random.Generator) -> Floats:
    keeps = np.exp(-GRID_S / traffic.common_s)
    steps = random.standard_normal(int(seconds / GRID_S) + 2)
    steps[1:] *= np.sqrt(1 - keeps**2)
    value, values = 0.0, np.empty_like(steps)
    for index, step in enumerate(steps):
        value = keeps * value + step
        values[index] = value
    return traffic.common_sigma * values


def _bursts(
    every_s: float, mean_s: float, at_s: Floats, seconds: float, random: np.random.Generator
) -> Bools:
    """Which requests fall into one."""
    if not every_s:
        return np.zeros(len(at_s), bool)
    starts = np.sort(random.random(random.poisson(seconds / every_s)) * seconds)
    if not len(starts):
        return np.zeros(len(at_s), bool)
    ends = starts + random.exponential(mean_s, len(starts))
    last = np.searchsorted(starts, at_s, side="right") - 1
    return (last >= 0) & (at_s < np.maximum.accumulate(ends)[last])
