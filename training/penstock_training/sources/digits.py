"""scikit-learn's handwritten digits as a table: 1,797 images of 8 by 8 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 7
TEST, VALIDATION = 0.25, 0.15
"""A quarter is held out before anything else (`model_repo/digits/samples`); of the rest, these are for choosing by."""


def table() -> pa.Table:
    """image: 64 numbers, row by row, ink 1 and paper 0. label: 0 to 9. split: train, validation, test."""
    digits: Any = load_digits()
    images = (digits.images / 16).astype(np.float32).reshape(-1, 64)
    labels = digits.target.astype(np.int64)
    split = _splits(labels)
    order = np.argsort(split, kind="stable")
    return pa.table(
        {
            "image": pa.array(list(images[order]), pa.list_(pa.float32())),
            "label": labels[order],
            "split": split[order],
        }
    )


def _splits(labels: NDArray[Any]) -> NDArray[Any]:
    """Stratified, the same each time."""
    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=TEST, stratify=labels, random_state=SEED)
    _, validation = train_test_split(
        rest, test_size=VALIDATION, stratify=labels[rest], random_state=SEED
    )
    split = np.full(len(labels), "train", dtype=object)
    split[validation], split[test] = "validation", "test"
    return split
