"""Keeps a model's p99 under its objective: chooses how large batches may get and how long to wait for company.

Two limits come from the learnt service curve, one correction from what was measured:

- a request may come just after a batch began, wait for its end, and run in the next: two batches must fit into the
  budget, which bounds their rows;
- waiting pays only when the instances are busy and a larger batch costs less a row; then it lasts until the batch
  should be full at the present rate, and never longer than what the budget leaves;
- the budget is the objective times a headroom, which falls fast when the measured p99 is over the objective and rises
  slowly when it is well below it. Between these nothing changes: that is what keeps it from swinging.
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

BUSY: Final = 0.7
QUIET: Final = 0.5
"""Instances busier than the one start to wait for company, and stop below the other."""

GAIN: Final = 0.9
"""Waiting pays when a row of a full batch costs less than this share of what it costs now."""

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


class SloController:
    """One a model that has `slo_p99_ms`. All times in microseconds."""

    def __init__(self, slo_us: float, max_rows: int) -> None:
        self.slo_us = slo_us
        self._max_rows = max_rows
        self._headroom = 1.0
        self._waits = False
        self._since_us: float | None = None
        self._latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._rows = 0
        self._batches = 0
        self._busy_us = 0.0
        self.history: deque[Decision] = deque(maxlen=HISTORY)

    @property
    def decision(self) -> Decision | None:
        """The last one."""
        return self.history[-1] if self.history else None

    def observe(
        self, rows: int, busy_us: float, latencies_us: Sequence[float], now_us: float
    ) -> None:
        """A batch ran for `busy_us`; its requests were answered so long after they came."""
        if self._since_us is None:
            self._since_us = now_us
        self._rows += rows
        self._batches += 1
        self._busy_us += busy_us
        self._latencies.extend(latencies_us)

    def missed(self) -> None:
        """A request that had been taken was not answered within the objective."""
        self._latencies.append(2 * self.slo_us)

    def decide(self, curve: Curve, instances: int, now_us: float) -> Decision | None:
        """A new decision when a period is over and something changes; else None."""
        if self._since_us is None or now_us - self._since_us < PERIOD_US:
            return None
        period_us = now_us - self._since_us
        if len(self._latencies) < MIN_SAMPLES and period_us < MAX_PERIODS * PERIOD_US:
            return None
        p99_us = _p99(self._latencies) if len(self._latencies) >= MIN_SAMPLES else 0.0
        self._correct(p99_us)
        cap, why = self._rows_cap(curve)
        delay_us, why_wait = self._delay(curve, cap, instances, period_us)
        self._since_us = now_us
        self._latencies.clear()
        self._rows = self._batches = 0
        self._busy_us = 0.0
        return self._decided(
            Decision(now_us, cap, delay_us, p99_us, self._headroom, f"{why}; {why_wait}")
        )

    def _correct(self, p99_us: float) -> None:
        if p99_us > self.slo_us:
            self._headroom = max(SMALLEST_HEADROOM, self._headroom * FALL)
        elif 0 < p99_us < COMFORT * self.slo_us:
            self._headroom = min(1.0, self._headroom + RISE)

    def _rows_cap(self, curve: Curve) -> tuple[int, str]:
        """The most rows of which two batches fit into the budget."""
        budget_us = self._headroom * self.slo_us
        for rows in range(self._max_rows, 1, -1):
            if 2 * curve.upper_us(rows) <= budget_us:
                limit = "all rows fit" if rows == self._max_rows else "two batches fill the budget"
                return rows, limit
        return 1, "no larger batch fits" if self._max_rows > 1 else "the model does not batch"

    def _delay(self, curve: Curve, cap: int, instances: int, period_us: float) -> tuple[float, str]:
        busy = self._busy_us / period_us / max(instances, 1)
        self._waits = cap > 1 and busy > (QUIET if self._waits else BUSY)
        if not self._waits:
            return 0.0, f"no waiting: the instances are {busy:.0%} busy"
        usual = max(1, round(self._rows / max(self._batches, 1)))
        if usual >= cap or curve.upper_us(cap) / cap > GAIN * curve.upper_us(usual) / usual:
            return 0.0, "no waiting: larger batches cost as much a row"
        left_us = self._headroom * self.slo_us - 2 * curve.upper_us(cap)
        filled_us = cap * period_us / max(self._rows, 1)
        return max(0.0, min(left_us, filled_us)), "waiting until batches should be full"

    def _decided(self, decision: Decision) -> Decision | None:
        last = self.decision
        self.history.append(decision)
        if last is None:
            return decision
        same = last.rows_cap == decision.rows_cap
        near = abs(last.delay_us - decision.delay_us) <= 0.05 * max(last.delay_us, 1.0)
        return None if same and near else decision


def _p99(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    return ordered[int(0.99 * (len(ordered) - 1))]
