"""What kernels run on in tests: the CPU with some threads, or a GPU, with arrays in its own memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_dtypes import bfloat16, float8_e4m3fn, float8_e5m2

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Runner

BITS = {
    np.dtype(bfloat16): np.int16,
    np.dtype(float8_e4m3fn): np.uint8,
    np.dtype(float8_e5m2): np.uint8,
}
"""Formats that torch doesn't take from NumPy."""


class Machine:
    """A CPU: arrays are NumPy's, and operations make their results' memory."""

    def __init__(self, on: Runner) -> None:
        self.on = on

    def put(self, array: Any) -> Any:
        """The array, in the machine's memory."""
        return array

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """For `out`."""
        return None

    def get(self, array: Any, dtype: Any) -> np.ndarray[Any, Any]:
        """A result as NumPy's."""
        assert array.dtype == dtype
        return np.asarray(array)

    def close(self) -> None:
        self.on.close()


class Gpu(Machine):
    """The first GPU: arrays are torch's. FP8 are their bits."""

    def __init__(self) -> None:
        import torch

        from penstock_kernels.cuda.runner import Cuda

        self._torch = torch
        super().__init__(Cuda(0))

    def put(self, array: Any) -> Any:
        array = np.asarray(array)
        if array.dtype not in BITS:
            return self._torch.from_numpy(np.array(array)).cuda()
        made = self._torch.from_numpy(array.view(BITS[array.dtype]).copy()).cuda()
        return made.view(self._torch.bfloat16) if array.dtype == bfloat16 else made

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.put(np.empty(shape, dtype))

    def get(self, array: Any, dtype: Any) -> np.ndarray[Any, Any]:
        self.on.wait()  # type: ignore[union-attr]
        dtype = np.dtype(dtype)
        if dtype == bfloat16:
            array = array.view(self._torch.int16)
        result: np.ndarray[Any, Any] = array.cpu().numpy()
        return result.view(dtype) if dtype in BITS else result


def machine_of(name: str) -> Machine:
    """`gpu`, or how many threads of the CPU."""
    return Gpu() if name == "gpu" else Machine(Cpu(int(name)))
