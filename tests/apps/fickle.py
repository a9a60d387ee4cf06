"""A Triton model that is as good as its version's `fault.json` says. Y is X times 2 and 1 more; a batch takes a while.

`errors` and `nan`: of so large a share of the requests, by what they ask; `slower`: so many times as slow.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

TAKES_S = 0.002


class TritonPythonModel:
    """X in, Y out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what is wrong with it."""
        file = Path(args["model_repository"]) / args["model_version"] / "fault.json"
        self.fault = json.loads(file.read_text()) if file.exists() else {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        time.sleep(TAKES_S * self.fault.get("slower", 1))
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        # from 0 to 1, and another one for each X
        chance = float(np.abs(np.sin(x.ravel()[0] * 12.9898) * 43758.5453)) % 1
        if chance < self.fault.get("errors", 0):
            return pb_utils.InferenceResponse([], pb_utils.TritonError("it does not want to"))
        y = x * 2 + 1 + np.float32(self.fault.get("off", 0))
        if chance < self.fault.get("nan", 0):
            y = y * np.float32("nan")
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", y)])
