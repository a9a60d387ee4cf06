"""A model in Penstock's own form that says it does not run as it was asked for, on a GPU that is small and made up."""

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import Spec

ROWS = 2


@penstock.model(
    inputs={"X": Spec("FP32", 1)},
    outputs={"Y": Spec("FP32", 1), "ROWS": Spec("INT32", 1)},
    max_batch_size=8,
    max_queue_delay_us=100_000,
)
class Makeshift:
    """Y = 2 X. ROWS is how many rows ran together."""

    fallback = "there is no plan of it, so NumPy runs it"

    def __call__(self, X: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        """Raises as CUDA does where there are more than it holds."""
        if len(X) > ROWS:
            raise RuntimeError("CUDA error: out of memory")
        return {"Y": 2 * X, "ROWS": np.full((len(X), 1), len(X), np.int32)}
