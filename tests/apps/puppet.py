"""A Triton model that does what each request's parameters tell it. `served_models.py` writes it into repositories.

`started`: make that file. `wait_for`: answer only when that file exists. `error`: answer with that error, of that
`code`. `raise`: fail the whole batch. `die`: end the process. `allocate`: that many bytes. Otherwise Y is X, and TOLD
is the request as JSON, and `run` in it, which of this process's it is: clients may hear of answers in another order.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """One row in, the same row out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Keep what the server said."""
        self.instance = args["model_instance_name"]
        self.answered = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        told = [json.loads(request.parameters() or "{}") for request in requests]
        for parameters in told:
            if "started" in parameters:
                Path(parameters["started"]).touch()
            if "raise" in parameters:
                raise ValueError(parameters["raise"])
            if "allocate" in parameters:
                np.ones(parameters["allocate"], np.uint8)
            if "die" in parameters:
                os.kill(os.getpid(), signal.SIGKILL)
            wait_for(parameters.get("wait_for"))
        return [self._answer(*pair, len(requests)) for pair in zip(requests, told, strict=True)]

    def _answer(self, request: Any, parameters: dict[str, Any], batch: int) -> Any:
        if "error" in parameters:
            code = getattr(pb_utils.TritonError, parameters.get("code", "INTERNAL"))
            error = pb_utils.TritonError(parameters["error"], code)
            return pb_utils.InferenceResponse(error=error)
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        self.answered += 1
        told = {
            "id": request.request_id(),
            "parameters": parameters,
            "requests": batch,
            "instance": self.instance,
            "pid": os.getpid(),
            "run": self.answered,
        }
        line = np.full((len(x), 1), json.dumps(told, sort_keys=True).encode(), np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x), pb_utils.Tensor("TOLD", line)])


def wait_for(path: str | None) -> None:
    """Until the file exists; for long, but not for ever, so that a broken test ends."""
    deadline = time.monotonic() + 100
    while path is not None and not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
