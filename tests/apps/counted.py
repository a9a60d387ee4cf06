"""Doubles X, and notes each execution in a file of the model's folder: rows of each of its requests.

Where there is a pipe `gate` in that folder, each execution waits until somebody has written to it.
"""

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """One row in, twice the row out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Keep where the notes go."""
        self.folder = Path(args["model_repository"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        arrays = [pb_utils.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        with (self.folder / "executions").open("a") as file:
            file.write(" ".join(str(len(array)) for array in arrays) + "\n")
        gate = self.folder / "gate"
        if gate.exists():
            gate.read_bytes()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", 2 * a)]) for a in arrays]
