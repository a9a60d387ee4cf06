"""A Triton model whose every batch takes 20 ms, however many rows it has. Y is X."""

import time
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """X in, Y out, later."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        time.sleep(0.02)
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return answers
