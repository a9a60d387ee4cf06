"""A Triton model that gives each of its inputs back: X_FP32 as Y_FP32 and so on, whichever the request has."""

from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """Identity over any set of inputs."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        return [
            pb_utils.InferenceResponse([self._turned(tensor) for tensor in request.inputs()])
            for request in requests
        ]

    @staticmethod
    def _turned(tensor: Any) -> Any:
        return pb_utils.Tensor("Y" + tensor.name()[1:], tensor.as_numpy())
