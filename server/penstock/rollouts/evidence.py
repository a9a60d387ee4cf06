"""Evidence that may be looked at after every request: e-processes, made by betting against the candidate.

Whoever bets on a fair game does not get rich: if each gain is 0 or less in expectation, whatever came before, then
wealth that began at 1 ever reaches 1/a with a chance of a at most (Ville's inequality). So a guard bets on the
candidate being worse than allowed, and rolls back when it has become so rich that luck can't be the reason. It may look
after every window, for ever, and the chance of a false alarm stays what it is. A mean of several such bettors is one
again: some bet high and some low, on rare and on frequent faults, and each begins anew all the time, so that a
candidate that was good for long and becomes worse is found too.
"""

from __future__ import annotations

from math import log2
from typing import Final

import msgspec


class Evidence(msgspec.Struct):
    """The wealth of several bettors that began with 1 together."""

    wealth: list[float]
    """Of each, in play."""
    reserve: float = 1.0
    """Not in play yet: a part of it is put in at each turn, less and less, and never all."""
    turns: int = 0
    """Since the reserve was last opened wide."""

    @classmethod
    def of(cls, bettors: int) -> Evidence:
        """So many, with nothing in play."""
        return cls([0.0] * bettors)

    @property
    def total(self) -> float:
        """How much there is."""
        return self.reserve + sum(self.wealth)

    def expect_change(self) -> None:
        """Something is about to change that may make the candidate worse: more is put in at the next turns."""
        self.turns = 0

    def bring_in(self) -> float:
        """What each bettor gets out of the reserve before the next turn, which does not depend on its outcome."""
        left = self.reserve * log2(self.turns + 2) / log2(self.turns + 3)
        share = (self.reserve - left) / len(self.wealth)
        self.reserve = left
        self.turns += 1
        return share


class Bet(msgspec.Struct, frozen=True):
    """One bettor's way: it bets that the candidate's share of bad answers is greater, by up to `most` in a window."""

    most: float
    """A difference beyond this counts as this, on either side: who bets on little must not fear a disaster."""
    stake: float
    """Part of its wealth that it can lose in a window."""


STAKES: Final = (0.2, 0.6, 0.95)


def bets(allowed: float, differences: tuple[float, ...]) -> tuple[Bet, ...]:
    """On a difference of more than `allowed`; those too close to it would have little to win."""
    useful = [most for most in differences if most >= 4 * allowed] or [1.0]
    return tuple(Bet(most, stake) for most in useful for stake in STAKES)


def settle(
    evidence: Evidence, made: tuple[Bet, ...], allowed: float, stable: float, candidate: float
) -> None:
    """A window is over in which so great shares of the versions' answers were bad.

    As many requests of either version are compared, so for equal versions the difference is as likely to have one sign
    as the other, however the requests of a window depend on each other, and so is what is left of it when it is cut. If
    the candidate is worse by what is allowed or less, the gain is 0 or less.
    """
    new = evidence.bring_in()
    wealth = evidence.wealth
    excess = candidate - stable - allowed
    for index, bet in enumerate(made):
        gain = min(max(excess / bet.most, -1.0), 1.0)
        wealth[index] = (wealth[index] + new) * (1 + bet.stake * gain)


RATES: Final = (0.75, 0.9, 0.99)
"""Of failures that bettors on a broken candidate think of."""


def settle_failure(evidence: Evidence, ceiling: float, failed: bool) -> None:
    """One request of the candidate, of which a share of `ceiling` may fail, whatever came before."""
    new = evidence.bring_in()
    wealth = evidence.wealth
    for index, rate in enumerate(RATES):
        # a ratio of likelihoods; rates at or under the ceiling would be no bet at all
        rate = ceiling + (1 - ceiling) * rate
        factor = rate / ceiling if failed else (1 - rate) / (1 - ceiling)
        wealth[index] = (wealth[index] + new) * factor
