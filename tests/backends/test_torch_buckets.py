"""Which batches run as which on a GPU: pure."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.backends.torch_buckets import bucket_of, bucket_sizes, padded_shape


def test_sizes_are_powers_of_two_the_preferred_ones_and_the_largest() -> None:
    assert bucket_sizes(24, [6, 12, 100, 0]) == (1, 2, 4, 6, 8, 12, 16, 24)
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(8) == (1, 2, 4, 8)
    assert bucket_sizes(0, [4]) == ()


def test_where_few_may_be_made_small_ones_are_left_out() -> None:
    assert bucket_sizes(24, [6, 12], 4) == (6, 12, 16, 24)
    assert bucket_sizes(24, [6, 12], 1) == (24,)
    assert bucket_sizes(24, [6, 12], 0) == ()


@given(
    st.integers(1, 300), st.lists(st.integers(-5, 400), max_size=20), st.integers(1, 20), st.data()
)
def test_every_batch_has_the_next_larger_size(
    largest: int, preferred: list[int], limit: int, data: st.DataObject
) -> None:
    sizes = bucket_sizes(largest, preferred, limit)
    assert list(sizes) == sorted(set(sizes)) and len(sizes) <= limit and sizes[-1] == largest
    rows = data.draw(st.integers(1, largest))
    found = bucket_of(rows, sizes)
    assert found == min(size for size in sizes if size >= rows)
    assert bucket_of(largest + 1, sizes) is None


def test_a_shape_is_of_all_inputs_with_the_buckets_rows() -> None:
    array = np.ones((2, 3), np.float16)
    assert padded_shape({"X": array, "Y": array[:, 0]}, 8) == (("X", (8, 3)), ("Y", (8,)))
