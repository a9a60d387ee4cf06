"""A Triton model that gives back what its images were made to."""

from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """IMAGE in, PLANES out."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        inputs = [pb_utils.get_input_tensor_by_name(each, "IMAGE").as_numpy() for each in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("PLANES", each)]) for each in inputs]
