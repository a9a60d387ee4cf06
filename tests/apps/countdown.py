"""A generator: counts FROM down to 1, a response each; raises at 13. Below 0 it has no end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import penstock
from penstock import Spec
from penstock.types import Array


@penstock.model(
    inputs={"FROM": Spec("INT32", 1)}, outputs={"N": Spec("INT32", 1)}, max_batch_size=4
)
class Countdown:
    def __call__(self, FROM: Array) -> Iterator[dict[str, Array]]:
        number = int(FROM[0, 0])
        while number != 0:
            if number == 13:
                raise ValueError("13 is not counted")
            yield {"N": np.full(FROM.shape, number, np.int32)}
            number -= 1
