"""Which batches run as which on a GPU: pure."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.backends.torch_buckets import (
    MAX_SHAPES_COUNTED,
    Captures,
    Shape,
    Way,
    bucket_of,
    bucket_sizes,
    padded_shape,
)


def shape(rows: int) -> Shape:
    return (("X", (rows, 4)),)


def capture(captures: Captures, rows: int) -> None:
    assert captures.way(shape(rows)) is Way.PLAIN
    assert captures.way(shape(rows)) is Way.CAPTURE
    captures.done(shape(rows))


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


def test_what_comes_again_is_captured() -> None:
    captures = Captures(2)
    capture(captures, 1)
    assert captures.way(shape(1)) is Way.REPLAY
    capture(captures, 2)
    assert [captures.way(shape(3)) for _ in range(3)] == [Way.PLAIN] * 3
    assert captures.way(shape(2)) is Way.REPLAY


def test_what_cannot_be_captured_is_not_tried_again() -> None:
    captures = Captures(2)
    for rows in (1, 2):
        captures.way(shape(rows))
        assert captures.way(shape(rows)) is Way.CAPTURE
        captures.failed(shape(rows))
        assert captures.way(shape(rows)) is Way.PLAIN
    # two may be captured; after two that could not be no third one is tried
    assert [captures.way(shape(3)) for _ in range(3)] == [Way.PLAIN] * 3


def test_shapes_that_come_once_are_forgotten() -> None:
    captures = Captures(4)
    captures.way(shape(0))
    for rows in range(1, MAX_SHAPES_COUNTED + 1):
        captures.way(shape(rows))
    assert captures.way(shape(0)) is Way.PLAIN
    assert captures.way(shape(0)) is Way.CAPTURE
