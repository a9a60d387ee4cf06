"""A Triton model that gives X back as Y, and notes `initialize` and `finalize` in the file of its parameter `notes`.

A request's parameters `started` and `wait_for`: make that file; answer only when that file exists.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """One row in, the same row out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Note it."""
        self.notes = json.loads(args["model_config"])["parameters"]["notes"]["string_value"]
        self._note("initialize")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        for request in requests:
            self._hold(json.loads(request.parameters() or "{}"))
        arrays = [pb_utils.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array)]) for array in arrays]

    def finalize(self) -> None:
        """Note it."""
        self._note("finalize")

    def _note(self, what: str) -> None:
        with Path(self.notes).open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    @staticmethod
    def _hold(parameters: dict[str, str]) -> None:
        """Half a minute at most, so that a broken test ends."""
        if "started" in parameters:
            Path(parameters["started"]).touch()
        deadline = time.monotonic() + 100
        while "wait_for" in parameters and time.monotonic() < deadline:
            if Path(parameters["wait_for"]).exists():
                break
            time.sleep(0.001)
