"""Whose turn it is to be kept: each request by chance, at the cost of counting down."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import log, log1p
from typing import Final

NEVER: Final = 1 << 62


class Sampler:
    """Takes a share of what comes. How many are left out before the next one is drawn once for all of them."""

    __slots__ = ("_chance", "_left", "_rate")

    def __init__(self, rate: float, chance: Callable[[], float] = random.random) -> None:
        """`rate`: from 0 to 1. `chance`: numbers from 0 to below 1."""
        self._rate = rate
        self._chance = chance
        self._left = self._gap()

    def take(self) -> bool:
        """Whether this one is taken."""
        self._left -= 1
        if self._left >= 0:
            return False
        self._left = self._gap()
        return True

    def _gap(self) -> int:
        """How many are left out before the next one: geometrically distributed, so that each is taken by chance of its
        own."""
        if self._rate >= 1:
            return 0
        if self._rate <= 0:
            return NEVER
        return int(min(log(1 - self._chance()) / log1p(-self._rate), NEVER))
