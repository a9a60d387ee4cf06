"""A model in Penstock's own form."""

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import Spec


@penstock.model(inputs={"X": Spec("FP32", -1)}, outputs={"Y": Spec("FP32", -1)}, max_batch_size=4)
class Doubled:
    """Y = 2 X."""

    def __call__(self, X: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Runs on a whole batch."""
        return {"Y": 2 * X}
