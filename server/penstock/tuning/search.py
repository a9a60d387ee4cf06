"""The search itself: one coordinate after the other, by measurements that take turns, so that what the machine does
beside falls on all alike.

Each coordinate is a race. All its candidates and the best one so far are measured in turn, a slice of time each; after
two turns the slower half is out. What is left has to be faster than the best one so far by more than its measurements
differ among themselves. At the end the winner has to show it once more, against what the model's configuration says
now: of many candidates one is always lucky.

Sans I/O: a `Machine` measures, and a clock is given.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from penstock.errors import ModelFailed
from penstock.tuning.candidate import Candidate, Space

TURNS: Final = 4
FINAL_TURNS: Final = 6
HALVED_AFTER: Final = 2
LEAST_GAIN: Final = 0.03
"""Less is not worth another configuration."""
CERTAINTY: Final = 2.0
"""Standard errors that a gain has to be over nothing."""
OVERDUE: Final = "not measured, for the time was over"


class Goal(StrEnum):
    """What is to be good."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Slice:
    """What a candidate did in its slice of time."""

    rows_s: float
    p50_ms: float
    p99_ms: float


class Machine(Protocol):
    """What candidates are tried on."""

    async def prepare(self, candidates: Sequence[Candidate]) -> Mapping[Candidate, str]:
        """Load them. Returns those that can't take part, with the reason."""
        ...

    async def measure(self, candidate: Candidate) -> Slice:
        """One slice of one that is prepared."""
        ...

    async def release(self, candidates: Sequence[Candidate]) -> None:
        """They are not needed any more."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a candidate in a race."""

    step: str
    candidate: Candidate
    slices: tuple[Slice, ...]
    gain: float
    """Its score over that of the best one before, less one; of that itself 0."""
    chosen: bool
    refused: str = ""
    within_noise: bool = False
    """Its turns differ so much that it may as well be no gain, or no loss."""

    @property
    def rows_s(self) -> float:
        """In the middle of its slices."""
        return statistics.median(s.rows_s for s in self.slices) if self.slices else 0.0

    @property
    def p99_ms(self) -> float:
        """In the middle of its slices."""
        return statistics.median(s.p99_ms for s in self.slices) if self.slices else math.inf


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better one is than another, of pairs of slices of the same turn."""

    ratio: float
    low: float
    """What it is at least, as far as can be told."""

    @property
    def convincing(self) -> bool:
        """Whether it is there, and worth it."""
        return self.ratio >= 1 + LEAST_GAIN and self.low > 1

    @property
    def within_noise(self) -> bool:
        """Whether 1 is as little as `low` from the ratio, on either side."""
        return self.low <= 1 and self.ratio**2 >= self.low


@dataclass(frozen=True, slots=True)
class Found:
    """What the search has found."""

    now: Candidate
    best: Candidate
    """`now` where nothing is better."""
    gain: Gain
    trials: tuple[Trial, ...]
    in_time: bool
    """False: some coordinates were not searched."""


@dataclass(slots=True)
class Search:
    """One search. `run` does it."""

    machine: Machine
    space: Space
    goal: Goal
    p99_ms: float | None = None
    """What the 99th percentile must not be over."""
    time_left: Callable[[], bool] = lambda: True
    """Another coordinate may be begun."""
    overdue: Callable[[], bool] = lambda: False
    """It takes so much longer than it may that not even what is begun is finished."""
    on_step: Callable[[str, Sequence[Candidate]], None] = lambda _step, _candidates: None
    trials: list[Trial] = field(default_factory=list)
    cut: bool = False
    """Something was begun, and not finished."""

    async def run(self, now: Candidate) -> Found:
        """Raises what `machine` raises, and ModelFailed where what is to be beaten can't be measured."""
        best, in_time = now, True
        for step in self.space.steps():
            challengers = list(self.space.around(step, best))
            if not challengers:
                continue
            if not self.time_left():
                in_time = False
                break
            best = await self._race(step, best, challengers)
            if self.cut:
                break
        if best == now or self.cut:
            return Found(now, now, Gain(1, 1), tuple(self.trials), in_time and not self.cut)
        gain = await self._confirm(now, best)
        in_time = in_time and not self.cut
        return Found(now, best if gain.convincing else now, gain, tuple(self.trials), in_time)

    def score(self, found: Slice) -> float:
        """More is better. One that is over its bound loses by how much it is."""
        score = found.rows_s if self.goal is Goal.THROUGHPUT else 1000 / max(found.p99_ms, 1e-6)
        if self.p99_ms is not None and found.p99_ms > self.p99_ms:
            score *= (self.p99_ms / found.p99_ms) ** 2
        return score

    async def _race(
        self, step: str, best: Candidate, challengers: Sequence[Candidate]
    ) -> Candidate:
        self.on_step(step, challengers)
        everyone = [best, *challengers]
        refused = await self.machine.prepare(everyone)
        try:
            if best in refused:
                raise ModelFailed(f"{best} can't be measured: {refused[best]}")
            running = [c for c in everyone if c not in refused]
            slices = await self._turns(best, running, TURNS)
        finally:
            await self.machine.release(everyone)
        gains = {c: self.gain(slices[best], slices[c]) for c in running}
        last = [c for c in running if c != best and len(slices[c]) == TURNS]
        winner = max(last, key=lambda c: gains[c].ratio, default=best)
        if not gains[winner].convincing:
            winner = best
        for c in running:
            if not slices[c]:
                refused = {**refused, c: OVERDUE}
                continue
            noise = c != best and gains[c].within_noise
            found = Trial(
                step, c, tuple(slices[c]), gains[c].ratio - 1, c == winner, within_noise=noise
            )
            self.trials.append(found)
        self.trials += [Trial(step, c, (), 0.0, False, why) for c, why in refused.items()]
        return winner

    async def _turns(
        self, best: Candidate, running: Sequence[Candidate], turns: int
    ) -> dict[Candidate, list[Slice]]:
        slices: dict[Candidate, list[Slice]] = {c: [] for c in running}
        left = list(running)
        for turn in range(turns):
            if turn == HALVED_AFTER and len(left) > 2:
                ranked = sorted(
                    (c for c in left if c != best),
                    key=lambda c: -self.gain(slices[best], slices[c]).ratio,
                )
                left = [best, *ranked[: -(-len(ranked) // 2)]]
            # another one begins each turn: the first slice after a load may be unlike the others
            first = turn % len(left)
            for c in [*left[first:], *left[:first]]:
                if self.overdue():
                    self.cut = True
                    return slices
                slices[c].append(await self.machine.measure(c))
        return slices

    async def _confirm(self, now: Candidate, best: Candidate) -> Gain:
        self.on_step("once more", [best])
        refused = await self.machine.prepare([now, best])
        try:
            if refused:
                return Gain(1, 1)
            slices = await self._turns(now, [now, best], FINAL_TURNS)
        finally:
            await self.machine.release([now, best])
        gain = self.gain(slices[now], slices[best])
        if self.cut:
            gain = replace(gain, low=0.0)
        for c in (now, best):
            share = gain.ratio - 1 if c == best else 0.0
            chosen = (c == best) == gain.convincing
            noise = c == best and gain.within_noise
            found = Trial("once more", c, tuple(slices[c]), share, chosen, within_noise=noise)
            self.trials.append(found)
        return gain

    def gain(self, base: Sequence[Slice], other: Sequence[Slice]) -> Gain:
        """Of the turns that both had."""
        logs = [
            math.log(max(self.score(b), 1e-9) / max(self.score(a), 1e-9))
            for a, b in zip(base, other, strict=False)
        ]
        if not logs:
            return Gain(1, 0)
        middle = statistics.fmean(logs)
        error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
        return Gain(math.exp(middle), math.exp(middle - CERTAINTY * error))
