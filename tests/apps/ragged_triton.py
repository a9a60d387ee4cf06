"""Triton's class over ragged rows: each request is seen by itself, in its own shape."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """The sum of each row, and all elements doubled."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        assert x.ndim == 2, "as the client sent it"
        outputs = {"SUM": x.sum(axis=1, keepdims=True, dtype=np.float32), "DOUBLED": 2 * x}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*output) for output in outputs.items()])
