"""Roll-outs over simulated traffic: how often a good candidate is taken back, and how soon a bad one."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import comb
from pathlib import Path
from random import Random
from typing import Final

from penstock.rollouts.decisions import RollBack
from penstock.rollouts.observation import Observation
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.split import WHOLE, watch_place_of, watched_of
from penstock.rollouts.state import Rollout
from penstock_loadtest.marked import fill, table
from penstock_loadtest.rollouts_cases import (
    BURSTS,
    EVEN,
    FAULTS,
    JUST_ALLOWED,
    NOTHING_WRONG,
    TRAFFICS,
)
from penstock_loadtest.rollouts_traffic import Fault, Requests, Traffic, requests_of

STABLE: Final = 1
CANDIDATE: Final = 2
DEFAULTS: Final = RolloutPlan("simulated", STABLE, CANDIDATE)


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
    random = Random(seed)
    seen = 0
    for index, now_us in enumerate(requests.at_us):
        candidate = requests.place[index] < rollout.share
        if not candidate:
            unit = requests.unit[index]
            place = watch_place_of(unit) if unit else random.randrange(WHOLE)
            if place >= watched_of(rollout.share):
                continue
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
        """Which took it back, the most frequent first."""
        counts = Counter(run.guard for run in self.runs if run.guard)
        return ", ".join(f"`{name}`" for name, _ in counts.most_common())

    @property
    def at_most(self) -> float:
        """With 95 % confidence the true share is not greater (Clopper and Pearson)."""
        return upper_bound(self.taken_back, len(self.runs))

    def requests(self, share: float) -> int:
        """That so many of the runs had at most until the candidate was taken back."""
        found = sorted(run.requests for run in self.runs if run.guard)
        return found[min(int(share * len(found)), len(found) - 1)] if found else 0

    @property
    def median_s(self) -> float:
        """Until it was taken back."""
        return statistics.median([run.seconds for run in self.runs if run.guard] or [0.0])


def upper_bound(found: int, runs: int, doubt: float = 0.05) -> float:
    """The greatest chance with which as few as `found` of the runs would still be found `doubt` of the times."""
    low, high = found / runs, 1.0
    for _ in range(50):
        chance = (low + high) / 2
        at_most = sum(
            comb(runs, k) * chance**k * (1 - chance) ** (runs - k) for k in range(found + 1)
        )
        low, high = (chance, high) if at_most > doubt else (low, chance)
    return high


def simulate(
    plan: RolloutPlan, traffic: Traffic, fault: Fault, seeds: Iterable[int], processes: int = 1
) -> Outcome:
    """As many runs as seeds."""
    one = partial(run_one, plan, traffic, fault)
    if processes == 1:
        return Outcome(tuple(map(one, seeds)))
    with ProcessPoolExecutor(processes) as pool:
        return Outcome(tuple(pool.map(one, seeds, chunksize=5)))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the command finds."""

    false_alarms: Mapping[str, Outcome]
    """By traffic."""
    delays: Mapping[str, tuple[Outcome, Outcome]]
    """By fault: even traffic, and that with bursts."""

    def false_alarm_table(self) -> str:
        """In Markdown."""
        rows = [
            [name, f"{outcome.taken_back} of {len(outcome.runs)}", f"{outcome.at_most:.2%}"]
            for name, outcome in self.false_alarms.items()
        ]
        return table(["traffic", "good candidates taken back", "at most (95 %)"], rows)

    def delay_table(self) -> str:
        """In Markdown."""
        rows = []
        for name, outcomes in self.delays.items():
            row = [name, outcomes[0].guards or "none"]
            for outcome in outcomes:
                text = (
                    f"{outcome.requests(0.5)} ({outcome.requests(0.9)}), {outcome.median_s:.0f} s"
                )
                if outcome.share < 1:
                    text += f"; {outcome.share:.0%} found"
                row.append(text if outcome.taken_back else "not found")
            rows.append(row)
        return table(["what is wrong", "guard", "even traffic", "tails and bursts"], rows)


def measure(
    good_runs: int,
    bad_runs: int,
    processes: int,
    tell: Callable[[str], None],
    plan: RolloutPlan = DEFAULTS,
    traffics: Sequence[Traffic] = TRAFFICS,
    faults: Sequence[Fault] = FAULTS,
) -> Measured:
    """All cases. Good candidates share 20 requests a second with the stable version, bad ones 100."""
    false_alarms: dict[str, Outcome] = {}
    good = [(traffic.name, traffic, NOTHING_WRONG) for traffic in traffics]
    worst = [(f"{JUST_ALLOWED.name}: {one.name}", one, JUST_ALLOWED) for one in (EVEN, BURSTS)]
    for name, traffic, fault in good + worst:
        slow = replace(traffic, rate=20.0)
        found = simulate(plan, slow, fault, range(good_runs), processes)
        false_alarms[name] = found
        tell(f"{name}: {found.taken_back} of {good_runs} taken back {found.guards}")
    delays: dict[str, tuple[Outcome, Outcome]] = {}
    for fault in faults:
        even, bursts = (
            simulate(plan, traffic, fault, range(bad_runs), processes) for traffic in (EVEN, BURSTS)
        )
        delays[fault.name] = (even, bursts)
        tell(f"{fault.name}: {even.requests(0.5)} and {bursts.requests(0.5)} requests")
    return Measured(false_alarms, delays)


def publish(measured: Measured, page: Path) -> None:
    """Fill in the page's tables."""
    text = fill(page.read_text(), "false alarms", measured.false_alarm_table())
    page.write_text(fill(text, "delays", measured.delay_table()))


def cost_us(share: float, version: int, count: int = 200_000) -> float:
    """What one call of `observe` takes of a core, in the mean, windows' ends included."""
    plan = RolloutPlan("simulated", STABLE, CANDIDATE, steps=(share,), step_s=1e9)
    rollout = Rollout.start(plan, 0.0)
    others = STABLE + CANDIDATE - version
    random = Random(1)
    seen = [
        Observation(version, random.lognormvariate(8.5, 0.4), summary=number % 10)
        for number in range(count)
    ]
    other = Observation(others, 5_000.0, summary=1)
    spent_ns, now_us = 0, 0.0
    for start in range(0, count, 100):
        # the other version's answers, so that windows end; not counted
        for _ in range(20):
            now_us += 1_000.0
            rollout.observe(other, now_us)
        before_ns = time.process_time_ns()
        for one in seen[start : start + 100]:
            now_us += 1_000.0
            rollout.observe(one, now_us)
        spent_ns += time.process_time_ns() - before_ns
    return spent_ns / count / 1e3
