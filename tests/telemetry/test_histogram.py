"""The histogram against NumPy's, however its values arrive."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.histogram import BATCH_SIZE_BOUNDS, DURATION_BOUNDS_NS, Histogram

durations_ns = st.one_of(
    st.integers(0, 100_000_000_000),
    st.sampled_from(DURATION_BOUNDS_NS),
    st.sampled_from(DURATION_BOUNDS_NS).map(lambda bound: bound + 1),
)
batches = st.lists(st.lists(durations_ns, max_size=40), max_size=10)


def numpy_cumulative(values: list[int], bounds: tuple[float, ...]) -> list[int]:
    """NumPy's bins are closed on the left and ours on the right, so both are mirrored."""
    edges = -np.array([np.inf, *reversed(bounds), -np.inf])
    counts, _ = np.histogram(-np.array(values, dtype=float), edges)
    return [int(count) for count in np.cumsum(counts[::-1])]


@given(batches)
def test_it_counts_as_numpy_does(values_by_batch: list[list[int]]) -> None:
    histogram = Histogram(DURATION_BOUNDS_NS)
    for values in values_by_batch:
        histogram.observe_many(values)

    everything = list(itertools.chain.from_iterable(values_by_batch))
    assert histogram.cumulative() == numpy_cumulative(everything, DURATION_BOUNDS_NS)
    assert histogram.count == len(everything)
    assert histogram.sum == sum(everything)


@given(st.lists(durations_ns, max_size=40))
def test_a_batch_counts_as_its_values_one_by_one(values: list[int]) -> None:
    at_once, one_by_one = Histogram(DURATION_BOUNDS_NS), Histogram(DURATION_BOUNDS_NS)
    at_once.observe_many(values)
    for value in values:
        one_by_one.observe(value)

    assert at_once.cumulative() == one_by_one.cumulative()
    assert (at_once.count, at_once.sum) == (one_by_one.count, one_by_one.sum)


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (1, 2, 3, 5):
        histogram.observe(value)

    assert histogram.cumulative() == [1, 2, 3, 4]


def test_the_ladders() -> None:
    assert (DURATION_BOUNDS_NS[0], DURATION_BOUNDS_NS[-1]) == (100_000, 60_000_000_000)
    assert (BATCH_SIZE_BOUNDS[0], BATCH_SIZE_BOUNDS[-1]) == (1, 1024)
    for bounds in (DURATION_BOUNDS_NS, BATCH_SIZE_BOUNDS):
        assert list(bounds) == sorted(set(bounds))
