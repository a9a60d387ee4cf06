"""Takes turns (A B A B …) and turns pairs of measurements into ratios with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock_loadtest.cases import Case
from penstock_loadtest.contestants import Contestant
from penstock_loadtest.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Spread:
    """A ratio over the rounds."""

    rounds: tuple[float, ...]
    """In the order they were run."""

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        """The lowest round."""
        return min(self.rounds)

    @property
    def high(self) -> float:
        """The highest round."""
        return max(self.rounds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Subject over baseline for one case. Throughput: more is better; the other two: less is better."""

    case: Case
    subject: str
    baseline: str
    throughput: Spread
    median_latency: Spread | None
    server_cpu: Spread
    """CPU of all the server's processes for each request."""
    noise_cores: float
    """The most that other programs took in any of the turns."""


def take_turns(
    case: Case,
    contestants: Sequence[Contestant],
    rounds: int,
    seconds: float,
    on_turn: Callable[[Measurement], None],
) -> list[list[Measurement]]:
    """Each contestant's measurements, one a round; within a round they run one after the other."""
    found: list[list[Measurement]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, measured in zip(contestants, found, strict=True):
            measured.append(contestant.measure(case, seconds))
            on_turn(measured[-1])
    return found


def compare(
    case: Case, subject: Sequence[Measurement], baseline: Sequence[Measurement]
) -> Comparison:
    """The ratios of each round's pair; never of medians, which may come from different minutes."""
    pairs = list(zip(subject, baseline, strict=True))
    latencies = [
        s.median_us / b.median_us
        for s, b in pairs
        if s.median_us is not None and b.median_us is not None
    ]
    return Comparison(
        case=case,
        subject=subject[0].contestant,
        baseline=baseline[0].contestant,
        throughput=Spread(tuple(s.per_second / b.per_second for s, b in pairs)),
        median_latency=Spread(tuple(latencies)) if latencies else None,
        server_cpu=Spread(tuple(s.server_cpu_us / b.server_cpu_us for s, b in pairs)),
        noise_cores=max(turn.other_cores for turn in (*subject, *baseline)),
    )
