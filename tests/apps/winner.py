"""A Triton model that names the class with the highest score."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """SCORES in, NAME out."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        return [self._name(request) for request in requests]

    @staticmethod
    def _name(request: Any) -> Any:
        scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()
        names = np.array([[str(best).encode()] for best in scores.argmax(1)], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("NAME", names)])
