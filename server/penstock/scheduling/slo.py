"""Keeps a model's p99 under its objective: chooses how large batches may get and how long to wait for company.

Two limits come from the learnt service curve, one correction from what was measured:

- a request may come just after a batch began, wait for its end, and run in the next: two batches must fit into the
  budget, which bounds their rows;
- waiting pays only when the instances would be busy without it, and a larger batch costs less a row; then it lasts
  until the batch should be full at the present rate, and never longer than what the budget leaves;
- the budget is the objective times a headroom, which falls fast when the measured p99 is over the objective and rises
  slowly when it is well below it.

It does not swing, for nothing is judged by its own effect: whether waiting pays is reckoned for the batches that there
would be without it, a queue that grows is no reason for smaller batches, and what still holds is not changed a little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.scheduling.admission import Curve

PERIOD_US: Final = 500_000
MIN_SAMPLES: Final = 50
"""Answers that a period needs to be judged by; else it goes on, for `MAX_PERIODS` at most."""
MAX_PERIODS: Final = 6
MAX_SAMPLES: Final = 4096

SMALLEST_HEADROOM: Final = 0.3
FALL: Final = 0.85
RISE: Final = 0.02
COMFORT: Final = 0.75
"""Share of the objective below which there is room for more."""

OVERLOADED: Final = 0.1
"""Share of batches behind which a full one waits already, beyond which it is the queue that makes answers late."""

BUSY: Final = 0.7
QUIET: Final = 0.5
"""Instances that would be busier than the one without waiting start to wait for company, and stop below the other."""

GAIN: Final = 0.75
LEAST_GAIN: Final = 0.9
"""Waiting starts to pay when it brings the cost of a row below the one share of what it would be, up to the other."""

SPARE: Final = 0.2
LEAST_SPARE: Final = 0.1
"""Share of the objective that has to be left beside two batches to start waiting, and to go on."""

FLAT: Final = 1.5
"""Batches that take no more than so many times what a single row takes are never too large: smaller ones would answer
hardly anybody sooner, and far fewer."""

SHRINK: Final = 0.5
"""Of what a batch might have before, it keeps at least this share: what only noise has made too large comes back."""

STEADY: Final = 0.25
"""Changes of less than this share are not made."""

ROOM: Final = 0.9
"""Share of the budget that a new bound on rows may fill. One that holds may fill all of it: curves are never still."""

NEWS: Final = 0.3
"""What the last period counts in the rate."""

HISTORY: Final = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller has set, and why."""

    at_us: float
    rows_cap: int
    delay_us: float
    measured_p99_us: float
    """0 where there was too little to tell."""
    headroom: float
    reason: str


@dataclass(slots=True)
class Period:
    """What has run since the last decision."""

    since_us: float
    rows: int = 0
    requests: int = 0
    batches: int = 0
    backlogs: int = 0
    """Batches that left a full one waiting."""

    @property
    def overloaded(self) -> bool:
        """More comes than can be served."""
        return self.backlogs > OVERLOADED * self.batches


class SloController:
    """One a model that has `slo_p99_ms`. All times in microseconds."""

    def __init__(self, slo_us: float, max_rows: int) -> None:
        self.slo_us = slo_us
        self._max_rows = max_rows
        self._headroom = 1.0
        self._rows_per_us = 0.0
        self._period: Period | None = None
        self._latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self.history: deque[Decision] = deque(maxlen=HISTORY)

    @property
    def decision(self) -> Decision | None:
        """The last one."""
        return self.history[-1] if self.history else None

    def observe(
        self, rows: int, latencies_us: Sequence[float], now_us: float, *, backlog: bool
    ) -> None:
        """A batch ran; its requests were answered so long after they came. `backlog`: a full one waits already."""
        if self._period is None:
            self._period = Period(now_us)
        self._period.rows += rows
        self._period.requests += len(latencies_us)
        self._period.batches += 1
        self._period.backlogs += backlog
        self._latencies.extend(latencies_us)

    def missed(self) -> None:
        """A request that had been taken was not answered within the objective."""
        self._latencies.append(2 * self.slo_us)

    def decide(self, curve: Curve, instances: int, now_us: float) -> Decision | None:
        """What holds from now on, when a period is over; else None."""
        period = self._period
        if period is None or now_us - period.since_us < PERIOD_US:
            return None
        period_us = now_us - period.since_us
        if len(self._latencies) < MIN_SAMPLES and period_us < MAX_PERIODS * PERIOD_US:
            return None
        p99_us = _p99(self._latencies) if len(self._latencies) >= MIN_SAMPLES else 0.0
        self._correct(p99_us, period)
        self._learn_rate(period.rows / period_us)
        cap, why = self._rows_cap(curve)
        single = max(1, round(period.rows / max(1, period.requests)))
        delay_us, why_wait = self._delay(curve, cap, single, max(1, instances))
        self._period = Period(now_us)
        self._latencies.clear()
        decision = Decision(now_us, cap, delay_us, p99_us, self._headroom, f"{why}; {why_wait}")
        self.history.append(decision)
        return decision

    def _correct(self, p99_us: float, period: Period) -> None:
        if period.overloaded or 0 < p99_us < COMFORT * self.slo_us:
            self._headroom = min(1.0, self._headroom + RISE)
        elif p99_us > self.slo_us:
            self._headroom = max(SMALLEST_HEADROOM, self._headroom * FALL)

    def _learn_rate(self, rows_per_us: float) -> None:
        news = NEWS if self._rows_per_us else 1.0
        self._rows_per_us += news * (rows_per_us - self._rows_per_us)

    def _rows_cap(self, curve: Curve) -> tuple[int, str]:
        """The most rows of which two batches fit into the budget, or nearly so many that held before."""
        budget_us = max(self._headroom * self.slo_us, 2 * FLAT * curve.expected_us(1))
        most = range(self._max_rows, 1, -1)
        cap = next((rows for rows in most if 2 * curve.upper_us(rows) <= ROOM * budget_us), 1)
        last = self.decision.rows_cap if self.decision else cap
        if 2 * curve.upper_us(last) <= budget_us and cap < (1 + STEADY) * last:
            cap = last
        cap = max(cap, int(SHRINK * last))
        if cap == self._max_rows:
            return cap, "all rows fit" if cap > 1 else "the model does not batch"
        return cap, "two batches fill the budget" if cap > 1 else "no larger batch fits"

    def _delay(self, curve: Curve, cap: int, single: int, instances: int) -> tuple[float, str]:
        """How long to wait. `single`: rows of the usual request."""
        rate, last_us = self._rows_per_us, self.decision.delay_us if self.decision else 0.0
        waits = last_us > 0
        busy = min(1.0, rate * curve.expected_us(single) / single / instances)
        if busy <= (QUIET if waits else BUSY):
            return 0.0, f"no waiting: without it the instances are {busy:.0%} busy"
        left_us = self._headroom * self.slo_us - 2 * curve.upper_us(cap)
        if left_us <= (LEAST_SPARE if waits else SPARE) * self.slo_us:
            return 0.0, "no waiting: two batches leave no time for it"
        unasked = _rows_without_waiting(curve, cap, single, rate / instances)
        waited = min(cap, round(rate * left_us))
        gain = LEAST_GAIN if waits else GAIN
        if waited <= unasked or _row_us(curve, waited) > gain * _row_us(curve, unasked):
            return 0.0, "no waiting: larger batches cost as much a row"
        # not all that is left: the next period leaves a little less, or more
        delay_us = min(left_us * (1 - STEADY), cap / rate)
        if waits and last_us <= left_us and abs(last_us - delay_us) <= STEADY * last_us:
            delay_us = last_us
        return delay_us, "waiting until batches should be full"


def _rows_without_waiting(curve: Curve, cap: int, single: int, rows_per_us: float) -> int:
    """Of the batches of an instance that takes all there is whenever it is free: as many as come while they run."""
    larger = range(single, cap)
    return next((rows for rows in larger if rows_per_us * curve.expected_us(rows) <= rows), cap)


def _row_us(curve: Curve, rows: int) -> float:
    return curve.expected_us(rows) / rows


def _p99(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    return ordered[int(0.99 * (len(ordered) - 1))]
