"""A decoupled Triton model that tells a text again and again, each request from a thread of its own.

Parameters: `count` responses (3); `size`: the text is filled up to so many bytes; `log`: a file that gets how many
responses were sent, or `cancelled`; `wait_for`: after the first response wait until that file exists; `fail_at`: that
response is an error; `die_at`: end the process instead of that response; `flag_last`: the last response says that it is
the last one, instead of an empty one after it.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """TEXT in, any number of TOLD and N out."""

    def execute(self, requests: list[Any]) -> None:
        """Return at once."""
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)[0]
            told = json.loads(request.parameters() or "{}")
            arguments = (request.get_response_sender(), bytes(text), told)
            threading.Thread(target=tell, args=arguments, daemon=True).start()


def tell(sender: Any, text: bytes, told: dict[str, Any]) -> None:
    """One request."""
    count = told.get("count", 3)
    text = text.ljust(told.get("size", 0), b".")
    flag_last = told.get("flag_last", False)
    for index in range(count):
        if index == 1:
            wait_for(told.get("wait_for"), sender)
        if sender.is_cancelled():
            log(told, "cancelled")
            break
        if index == told.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        flags = FINAL if flag_last and index == count - 1 else 0
        sender.send(answer(text, index, told), flags)
        log(told, str(index + 1))
    else:
        if flag_last and count:
            return
    sender.send(flags=FINAL)


def answer(text: bytes, index: int, told: dict[str, Any]) -> Any:
    """One response."""
    if index == told.get("fail_at"):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("the teller stumbled"))
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("TOLD", np.array([text], np.object_)),
            pb_utils.Tensor("N", np.array([index], np.int32)),
        ],
        parameters={"step": index},
    )


def log(told: dict[str, Any], line: str) -> None:
    """Where the test looks."""
    if "log" in told:
        path = Path(told["log"])
        path.with_suffix(".new").write_text(line)
        path.with_suffix(".new").rename(path)


def wait_for(path: str | None, sender: Any) -> None:
    """Until the file exists, or nobody wants to hear more; for long, but not for ever, so that a broken test ends."""
    deadline = time.monotonic() + 100
    while path is not None and not Path(path).exists() and time.monotonic() < deadline:
        if sender.is_cancelled():
            return
        time.sleep(0.001)
