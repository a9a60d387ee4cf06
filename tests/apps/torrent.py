"""A decoupled Triton model: Y is X, twice, and then the end. A version that has a fault fails at once."""

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """Two responses a request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Look whether it is to fail."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.fails = (folder / "fault.json").read_text() != "{}"

    def execute(self, requests: list[Any]) -> None:
        """Answer in place."""
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if self.fails:
                sender.send(pb_utils.InferenceResponse([], pb_utils.TritonError("it does not")))
            else:
                for _ in range(2):
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
