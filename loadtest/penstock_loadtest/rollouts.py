"""Roll-outs over simulated traffic: how often a good candidate is taken back, and how soon a bad one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock.rollouts.decisions import RollBack
from penstock.rollouts.observation import Observation
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.state import Rollout
from penstock_loadtest.rollouts_traffic import Fault, Requests, Traffic, requests_of

STABLE: Final = 1
CANDIDATE: Final = 2


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one roll-out."""

    guard: str
    """That took the candidate back; empty: none did."""
    requests: int
    """Of the candidate."""
    seconds: float
    """Since it began, or since the fault did."""


def run_one(plan: RolloutPlan, traffic: Traffic, fault: Fault, seed: int) -> Run:
    """One roll-out, until it is over."""
    seconds = plan.step_s * len(plan.steps)
    requests = requests_of(traffic, fault, seconds, seed)
    rollout = Rollout.start(plan, 0.0)
    seen = 0
    for index, now_us in enumerate(requests.at_us):
        candidate = requests.place[index] < rollout.share
        seen += candidate and now_us >= fault.from_s * 1e6
        if rollout.observe(_observation(requests, index, candidate), now_us):
            decision = rollout.tick(now_us)
            if isinstance(decision, RollBack):
                return Run(decision.guard, seen, now_us / 1e6 - fault.from_s)
            if rollout.status.over:
                break
    return Run("", seen, seconds - fault.from_s)


def _observation(requests: Requests, index: int, candidate: bool) -> Observation:
    return Observation(
        CANDIDATE if candidate else STABLE,
        requests.latency_us[candidate][index],
        not requests.failed[candidate][index],
        "server" if requests.failed[candidate][index] else "",
        candidate and requests.outage[index],
        candidate and requests.non_finite[index],
        requests.answer[candidate][index],
        requests.unit[index],
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of many runs of one kind."""

    runs: tuple[Run, ...]

    @property
    def taken_back(self) -> int:
        """Runs that ended so."""
        return sum(bool(run.guard) for run in self.runs)

    @property
    def share(self) -> float:
        """Of runs that were taken back."""
        return self.taken_back / len(self.runs)

    @property
    def guards(self) -> str:
        """Which took it back how often."""
        counts = Counter(run.guard for run in self.runs if run.guard)
        return ", ".join(f"{name} {count}" for name, count in counts.most_common())

    def requests(self, share: float) -> int:
        """That so many of the runs had at most until the candidate was taken back."""
        found = sorted(run.requests for run in self.runs if run.guard)
        return found[min(int(share * len(found)), len(found) - 1)] if found else 0

    @property
    def median_s(self) -> float:
        """Until it was taken back."""
        return statistics.median([run.seconds for run in self.runs if run.guard] or [0.0])


def simulate(
    plan: RolloutPlan, traffic: Traffic, fault: Fault, seeds: Iterable[int], processes: int = 1
) -> Outcome:
    """As many runs as seeds."""
    one = partial(run_one, plan, traffic, fault)
    if processes == 1:
        return Outcome(tuple(map(one, seeds)))
    with ProcessPoolExecutor(processes) as pool:
        return Outcome(tuple(pool.map(one, seeds, chunksize=10)))
