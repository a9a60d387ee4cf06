"""Whose turn it is."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from penstock.capture.sampler import Sampler


def test_all_and_none() -> None:
    every, none = Sampler(1), Sampler(0)
    assert all(every.take() for _ in range(100))
    assert not any(none.take() for _ in range(100_000))


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.003])
def test_the_share_is_kept(rate: float) -> None:
    sampler = Sampler(rate, random.Random(1).random)
    count = 400_000
    taken = sum(sampler.take() for _ in range(count))
    # five standard deviations
    assert abs(taken - count * rate) < 5 * (count * rate * (1 - rate)) ** 0.5


def test_each_is_taken_by_a_chance_of_its_own() -> None:
    """Neither every tenth, nor after a gap that tells of the next one."""
    sampler = Sampler(0.1, random.Random(2).random)
    taken = [at for at in range(200_000) if sampler.take()]
    gaps = [after - before for before, after in pairwise(taken)]
    # of a geometric distribution
    assert 0.085 < sum(gap == 1 for gap in gaps) / len(gaps) < 0.115
    assert 0.3 < sum(gap > 10 for gap in gaps) / len(gaps) < 0.4


def test_the_smallest_rate_is_no_error() -> None:
    assert not any(Sampler(5e-324).take() for _ in range(100))
