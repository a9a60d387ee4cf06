"""Our own class over ragged rows: X has the elements of all requests, LENGTHS says where each row ends."""

import numpy as np

import penstock
from penstock import Spec


@penstock.model(
    inputs={"X": Spec("FP32"), "LENGTHS": Spec("INT32")},
    outputs={"SUM": Spec("FP32", 1), "DOUBLED": Spec("FP32")},
    max_batch_size=8,
)
class Sums:
    """The sum of each row, and all elements doubled."""

    def __call__(self, X: np.ndarray, LENGTHS: np.ndarray) -> dict[str, np.ndarray]:
        """Rows may be empty, which `np.add.reduceat` can't take."""
        until = np.concatenate((np.zeros(1, np.float32), np.cumsum(X, dtype=np.float32)))
        ends = np.cumsum(LENGTHS)
        return {"SUM": (until[ends] - until[ends - LENGTHS])[:, np.newaxis], "DOUBLED": 2 * X}
