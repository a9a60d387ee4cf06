"""When a request would begin to run: what decides on arrival whether it can be on time."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Final, Protocol

PROBE_SHARE: Final = 0.1
SHORTEST_PROBE_PERIOD_US: Final = 100_000
"""An idle model that seems to be too slow for every deadline takes a request now and then all the same, for this share
of its time at most, to find out whether it still is: else it would never learn that it isn't."""

MISS_SHARE: Final = 0.02
"""Of the requests that are admitted, those that may turn out to be late: none would mean an idle model."""

MARGIN_STEP: Final = 0.005
LEAST_MARGIN: Final = 0.1
"""Answers have a way to go yet when they leave here, and a longer queue serves nobody better: without this, at twice
the load that a model can take, half of the answers came within the last twentieth of their time."""

MOST_MARGIN: Final = 1.0


class Curve(Protocol):
    """What batches take."""

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        ...

    def expected_us(self, rows: int) -> float:
        """The usual time."""
        ...

    def upper_us(self, rows: int) -> float:
        """The time that most keep."""
        ...


def expected_start_us(
    now_us: float,
    rows_ahead: float,
    free_at_us: Sequence[float],
    batch_rows: float,
    curve: Curve,
) -> float:
    """When a request behind so many rows would begin to run.

    `free_at_us`: for each instance, when it is done with what it has. `batch_rows`: what a long queue goes out in. What
    is ahead is taken in such batches, one after the other by whichever instance is free first.
    """
    if not free_at_us:
        return now_us
    batches_ahead = floor(rows_ahead / batch_rows)
    if not batches_ahead:
        return max(now_us, min(free_at_us))
    rounds, others = divmod(batches_ahead, len(free_at_us))
    order = sorted(max(now_us, free_us) for free_us in free_at_us)
    return order[others] + rounds * curve.expected_us(round(batch_rows))


class Prober:
    """Lets a request through now and then."""

    def __init__(self) -> None:
        self._next_us = 0.0

    def may_try(self, now_us: float, cost_us: float) -> bool:
        """Whether this one is it, which will probably take so long."""
        if now_us < self._next_us:
            return False
        self.took(now_us, cost_us)
        return True

    def took(self, began_us: float, cost_us: float) -> None:
        """What the last one really cost: the next one comes soon where that was little, to have it confirmed."""
        self._next_us = began_us + max(SHORTEST_PROBE_PERIOD_US, cost_us / PROBE_SHARE)


class Margin:
    """How much longer than expected requests have to wait, learnt from how many of them are late.

    Noise, outliers, and requests that come later with an earlier deadline all prolong a wait that was right when it was
    reckoned. The steps are such that it rests where `MISS_SHARE` of the admitted requests are late.
    """

    def __init__(self) -> None:
        self.share = LEAST_MARGIN
        """Of the expected wait, on top of it."""

    def missed(self) -> None:
        """A request that had been admitted was late."""
        self.share = min(MOST_MARGIN, self.share + MARGIN_STEP)

    def kept(self) -> None:
        """One was on time."""
        self.share = max(LEAST_MARGIN, self.share - MARGIN_STEP * MISS_SHARE / (1 - MISS_SHARE))
