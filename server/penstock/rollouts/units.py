"""Requests of one id stay with one version, so they tell of their client too: each client is heard only so often.

Which clients' ids a version gets is chance, once. A client that always sends long texts makes its version look slow all
the time; to count it again and again would be to count one throw of the dice many times.
"""

from __future__ import annotations

from typing import Final

from penstock.rollouts.split import WHOLE

BITS: Final = 1 << 16
FULL: Final = BITS // 2
STRIKES: Final = 2
"""Bad answers to requests of one id that count."""
MAX_STRUCK: Final = 1024


class SeenUnits:
    """Which units were met before. Forgets all when it has met many; takes some new ones for old ones, by chance."""

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits or bytes(BITS // 8))
        self._count = int.from_bytes(self._bits, "big").bit_count()

    def first(self, unit: int) -> bool:
        """Whether it is met for the first time. 0 always is."""
        if not unit:
            return True
        # other digits than those that say which version it goes to
        place = unit // WHOLE % BITS
        byte, mask = place >> 3, 1 << (place & 7)
        if self._bits[byte] & mask:
            return False
        self._bits[byte] |= mask
        self._count += 1
        if self._count > FULL:
            self._bits[:] = bytes(BITS // 8)
            self._count = 0
        return True

    def saved(self) -> bytes:
        """What a later one is made of."""
        return bytes(self._bits) if self._count else b""


class Strikes:
    """How many bad answers each unit has had."""

    def __init__(self, counts: dict[int, int]) -> None:
        self._counts = counts

    def counts(self, unit: int) -> bool:
        """Whether one more is to be counted. For 0 it always is."""
        if not unit:
            return True
        had = self._counts.pop(unit, 0)
        if had >= STRIKES:
            self._counts[unit] = had
            return False
        if len(self._counts) >= MAX_STRUCK:
            del self._counts[next(iter(self._counts))]
        self._counts[unit] = had + 1
        return True
