"""Sends the elements of IN one by one, each after its DELAY in milliseconds, as Triton's example of that name does.

With the request parameter `in_threads` all requests of a batch are answered by threads, after `execute` has returned.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            parameters = json.loads(request.parameters())
            sender = request.get_response_sender()
            given = [
                pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)
                for name in ("IN", "DELAY")
            ]
            if parameters.get("in_threads"):
                threading.Thread(target=self._repeat, args=(sender, *given)).start()
            else:
                self._repeat(sender, *given)

    def _repeat(self, sender: Any, values: Any, delays: Any) -> None:
        for index, (value, delay) in enumerate(zip(values, delays, strict=True)):
            time.sleep(delay / 1000)
            if sender.is_cancelled():
                break
            tensors = [
                pb_utils.Tensor("OUT", np.array([value], np.int32)),
                pb_utils.Tensor("IDX", np.array([index], np.uint32)),
            ]
            sender.send(pb_utils.InferenceResponse(tensors, parameters={"index": index}))
        sender.send(flags=FINAL)
