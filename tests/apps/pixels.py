"""A Triton model that makes a digit's image of its pixels: shades from 0 to 16 become ink from 0 to 1."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """SHADES in, IMAGE out."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        return [self._image(request) for request in requests]

    @staticmethod
    def _image(request: Any) -> Any:
        shades = pb_utils.get_input_tensor_by_name(request, "SHADES").as_numpy()
        image = shades[:, np.newaxis].astype(np.float32) / 16
        return pb_utils.InferenceResponse([pb_utils.Tensor("IMAGE", image)])
