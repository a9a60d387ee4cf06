"""A token bucket, exact: what was taken flows off at the bucket's rate, and never more than its burst may be there.

It is kept as the time at which all that was taken will have flowed off (the "theoretical arrival time" of ATM's generic
cell rate algorithm), for that is one number which nothing has to refill. Times and rates are whole numbers, so that no
rounding adds up over the years.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Final

NS_PER_S: Final = 1_000_000_000
FINEST: Final = 1_000_000
"""Rates and bursts are multiples of a fraction with no greater denominator."""


class TokenBucket:
    """It has no clock: `now_ns` is an argument, and must not run backwards."""

    __slots__ = ("burst", "drained", "rate", "units_per_burst", "units_per_ns", "units_per_token")

    def __init__(self, rate: float, burst: float) -> None:
        """`rate`: tokens a second. `burst`: how many there are after a rest."""
        self.rate = rate
        self.burst = burst
        exact, size = _exact(rate), _exact(burst)
        # one unit: what flows off in a nanosecond, divided by a number that makes whole numbers of all three
        self.units_per_ns = exact.numerator * size.denominator
        self.units_per_token = NS_PER_S * exact.denominator * size.denominator
        self.units_per_burst = NS_PER_S * exact.denominator * size.numerator
        self.drained = 0
        """When all that was taken will have flowed off, in units. `QuotaPlan.admit` does the sums of `missing_ns` and
        `take` by itself."""

    def missing_ns(self, tokens: int, now_ns: int) -> float:
        """In how many nanoseconds there are so many tokens; 0: now, infinite: never."""
        taken = tokens * self.units_per_token
        if taken > self.units_per_burst:
            return inf
        now = now_ns * self.units_per_ns
        over = max(self.drained, now) + taken - now - self.units_per_burst
        return 0 if over <= 0 else -(-over // self.units_per_ns)

    def take(self, tokens: int, now_ns: int) -> None:
        """Take the tokens, whether they are there or not."""
        now = now_ns * self.units_per_ns
        self.drained = max(self.drained, now) + tokens * self.units_per_token

    def remaining(self, now_ns: int) -> float:
        """How many tokens there are. Below 0: what was taken before it could be, or before the burst shrank."""
        return self.burst - self.taken(now_ns)

    def taken(self, now_ns: int) -> float:
        """How many tokens have not flowed off yet."""
        return max(0, self.drained - now_ns * self.units_per_ns) / self.units_per_token

    def empty_ns(self, now_ns: int) -> int:
        """In how many nanoseconds the burst is whole again."""
        return -(-max(0, self.drained - now_ns * self.units_per_ns) // self.units_per_ns)

    def change(self, rate: float, burst: float, now_ns: int) -> None:
        """Another rate and burst from now on. What was taken stays taken: a change is no refill."""
        left = max(0, self.drained - now_ns * self.units_per_ns)
        before = self.units_per_token
        fresh = TokenBucket(rate, burst)
        self.rate, self.burst = rate, burst
        self.units_per_ns = fresh.units_per_ns
        self.units_per_token = fresh.units_per_token
        self.units_per_burst = fresh.units_per_burst
        # rounded up: no change gives anything away
        self.drained = now_ns * self.units_per_ns - (-left * self.units_per_token // before)


def _exact(value: float) -> Fraction:
    """The value as a fraction of small numbers: 0.1 is a tenth, as whoever wrote it meant it."""
    return Fraction(value).limit_denominator(FINEST) or Fraction(1, FINEST)
