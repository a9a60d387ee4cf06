"""Preferred sizes of batches, and padding up to one."""

from __future__ import annotations

import numpy as np

from penstock.backends.batch_sizes import padded, preferred_sizes


def test_sequences_have_preferred_sizes_too() -> None:
    config = {
        "max_batch_size": 8,
        "sequence_batching": {"oldest": {"preferred_batch_size": [4, 16]}},
    }
    assert preferred_sizes(config) == (4,)


def test_padding_adds_rows_of_zeros() -> None:
    array = np.ones((2, 3), np.float16)
    made = padded(array, 4)
    assert (made.dtype, made.tolist()) == (array.dtype, [[1] * 3, [1] * 3, [0] * 3, [0] * 3])
    assert padded(array, 2) is array
