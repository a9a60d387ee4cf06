"""What an operation runs on, and the arrays that it takes there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.cpu.runner import Cpu

if TYPE_CHECKING:
    from penstock_kernels.cuda.runner import Cuda

Runner: TypeAlias = "Cpu | Cuda"

Array: TypeAlias = NDArray[Any]
"""On a `Cpu`. On a `Cuda` it is anything with DLPack or `__cuda_array_interface__`, such as torch's tensors, and `out`
has to be given: who owns the memory of a GPU makes it."""


def contiguous(x: Array) -> Array:
    """`x`, or a copy of it whose elements lie one behind the other in C order."""
    # np.ascontiguousarray makes one dimension of none
    return np.asarray(x, order="C")
