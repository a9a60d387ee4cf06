"""The schedule of the open-loop client."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from penstock_loadtest.resilience.open_loop import CHUNK, arrivals


def test_the_same_seed_gives_the_same_times() -> None:
    first, second, other = (list(islice(arrivals(100, seed), 3 * CHUNK)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_arrivals_are_a_poisson_process() -> None:
    times = np.array(list(islice(arrivals(per_second=200, seed=1), 50_000)))
    gaps = np.diff(times, prepend=0.0)
    assert all(a < b for a, b in pairwise(times))
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03)
    counts = np.bincount((times[times < 200] // 1).astype(int))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.35)
