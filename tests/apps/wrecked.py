"""A model that raises what CUDA's users raise, as the first element of a batch says. Y is X."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import Spec

ONCE, ALWAYS, TOO_LARGE, ITS_OWN = -1, -2, -3, -4
MARK = Path(__file__).parent / "once"


@penstock.model(inputs={"X": Spec("FP32", 1)}, outputs={"Y": Spec("FP32", 1)}, max_batch_size=4)
class Wrecked:
    """X in, Y out."""

    def __call__(self, X: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Runs on a whole batch."""
        asked = X.min()
        if asked == ONCE and not MARK.exists():
            MARK.touch()
            _raise_of_torch("an illegal memory access was encountered", 700)
        if asked == ALWAYS:
            _raise_of_onnx_runtime()
        if asked == TOO_LARGE:
            _raise_of_torch("out of memory", 2)
        if asked == ITS_OWN:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return {"Y": X}


def _raise_of_torch(text: str, code: int) -> None:
    import torch

    error: Any = torch.AcceleratorError(f"CUDA error: {text}\nCUDA kernel errors might be …")
    error.error_code = code
    raise error


def _raise_of_onnx_runtime() -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    text = "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=h ; file=f.cc ; line=9 ; expr=g()"
    raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : {text}")
