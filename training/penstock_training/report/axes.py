"""Scales of charts, and round numbers to mark them with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LOG_FROM: Final = 50
"""Values that differ by more than this factor are shown on a logarithmic scale."""
_ROUND: Final = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values lie between two ends of a drawing."""

    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where the value is drawn; what lies beyond is drawn at the end."""
        low, high = self._warped(self.low), self._warped(self.high)
        share = (self._warped(value) - low) / (high - low)
        return self.start + min(max(share, 0), 1) * (self.end - self.start)

    def _warped(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self, most: int = 6) -> list[float]:
        """Round values in it."""
        return (
            _log_ticks(self.low, self.high, most) if self.log else ticks(self.low, self.high, most)
        )


def scale_of(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
    """One that all finite values fit into, with some air. `log`: where they differ much."""
    found = [value for value in values if math.isfinite(value)]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if log and low > 0 and high / low > LOG_FROM:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    air = (high - low) * 0.04
    # what can't be negative is not shown as if it could
    return Scale(max(low - air, 0.0) if low >= 0 else low - air, high + air, start, end)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round values between two others, evenly spaced."""
    rough = (high - low) / most
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in _ROUND if power * each >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        found = [d * 10.0**e for e in exponents for d in digits if low <= d * 10.0**e <= high]
        if len(found) <= most + 1:
            return found
    return found[:: math.ceil(len(found) / most)]


def shown(value: float) -> str:
    """A number for a person, short."""
    if math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    if abs(value) >= 1e5 or 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"
