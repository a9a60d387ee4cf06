"""A stateful Triton model: it adds up what each sequence sends, in a dictionary by correlation id.

`started`: make that file. `wait_for`: answer only when that file exists. `error`: answer with that error. `raise`: fail
the whole batch. `die`: end the process. Otherwise SUM is the sum so far, and TOLD is what the model was told, as JSON.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

CONTROLS = ("START", "READY", "END", "CORRID")


class TritonPythonModel:
    """One number in, the sum of its sequence out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Nothing is known yet."""
        self.sums: dict[Any, float] = {}
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        return [self._answer(request, len(requests)) for request in requests]

    def _answer(self, request: Any, rows: int) -> Any:
        told = {name: _control(request, name) for name in CONTROLS}
        if told["READY"] == 0:
            # a row of a slot without a request
            return pb_utils.InferenceResponse([])
        parameters = json.loads(request.parameters() or "{}")
        _obey(parameters)
        if "error" in parameters:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(parameters["error"]))
        key = request.correlation_id()
        if request.flags() & 1:
            self.sums[key] = 0.0
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        self.sums[key] += float(x.sum())
        told |= {"id": key, "flags": request.flags(), "rows": rows, "pid": os.getpid()}
        told |= {"inputs": self.inputs, "known": len(self.sums)}
        total = np.full(x.shape, self.sums[key], np.float32)
        if request.flags() & 2:
            del self.sums[key]
        line = np.full(x.shape, json.dumps(told).encode(), np.object_)
        outputs = [pb_utils.Tensor("SUM", total), pb_utils.Tensor("TOLD", line)]
        return pb_utils.InferenceResponse(outputs)


def _control(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    (value,) = tensor.as_numpy().ravel().tolist()
    return value.decode() if isinstance(value, bytes) else value


def _obey(parameters: dict[str, Any]) -> None:
    if "started" in parameters:
        Path(parameters["started"]).touch()
    if "raise" in parameters:
        raise ValueError(parameters["raise"])
    if "die" in parameters:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for(parameters.get("wait_for"))


def wait_for(path: str | None) -> None:
    """Until the file exists; for long, but not for ever, so that a broken test ends."""
    deadline = time.monotonic() + 100
    while path is not None and not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
