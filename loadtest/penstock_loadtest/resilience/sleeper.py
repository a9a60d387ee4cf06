"""The model under test: a batch takes the same time however many rows it has, and rows tell which process ran them."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc import service_pb2

MESSAGES: Final[Any] = service_pb2
"""Its classes are made when it is imported: type checkers see none."""
NAME: Final = "sleeper"
BATCH_ROWS: Final = 8
BATCH_S: Final = 0.02
CAPACITY: Final = BATCH_ROWS / BATCH_S
"""Rows a second, were there nothing but the model's own time. Loads are multiples of it, the same for each server."""

INPUT_FLOATS: Final = 4096
"""16 KiB a row: what waits in a queue is seen in the server's memory."""
_NUMBER: Final = struct.Struct("<f")
_ANSWER: Final = struct.Struct("<2f")
NUMBERS: Final = 1 << 24
"""Whole numbers below this are exact as FP32."""

CONFIG: Final = f"""\
name: "{NAME}"
backend: "python"
max_batch_size: {BATCH_ROWS}
input [{{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {INPUT_FLOATS} ] }}]
output [{{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 2 ] }}]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""

MODEL: Final = f"""\
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({BATCH_S})
        return [self.answer(request) for request in requests]

    def answer(self, request):
        rows = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        process = np.full((len(rows), 1), os.getpid(), np.float32)
        answer = np.hstack([rows[:, :1], process])
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", answer)])
"""


def write_sleeper(repository: Path) -> Path:
    """Write the model into a new folder `repository`; the folder. Triton and Penstock serve it as it is."""
    folder = repository / NAME
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    _model_file(repository).write_text(MODEL)
    return repository


def touch_sleeper(repository: Path) -> None:
    """Make the model newer: Triton's load of a model whose files are unchanged does nothing."""
    now_ns = time.time_ns()
    file = _model_file(repository)
    # the same text with another time is no change to a server that compares contents
    file.write_text(f"{MODEL}# {now_ns}\n")


class Requests:
    """ModelInferRequests of one row that differ in the row's first number only."""

    def __init__(self) -> None:
        message = MESSAGES.ModelInferRequest(model_name=NAME)
        tensor = message.inputs.add(name="INPUT0", datatype="FP32")
        tensor.shape.extend((1, INPUT_FLOATS))
        message.raw_input_contents.append(bytes(4 * INPUT_FLOATS))
        whole: bytes = message.SerializeToString()
        # the raw contents are the message's last field
        self._head = whole[: -4 * INPUT_FLOATS]
        self._tail = bytes(4 * (INPUT_FLOATS - 1))

    def body(self, number: int) -> bytes:
        """The request that has `number`, less than 2²⁴, as its first value."""
        return self._head + _NUMBER.pack(number) + self._tail


def read_answer(body: bytes) -> tuple[int, int]:
    """The number that the request had, and the id of the process that answered. Raises ValueError where it has none."""
    message = MESSAGES.ModelInferResponse.FromString(body)
    contents = list(message.raw_output_contents)
    if len(contents) != 1 or len(contents[0]) != _ANSWER.size:
        raise ValueError(f"expected one output of {_ANSWER.size} bytes")
    number, process = _ANSWER.unpack(contents[0])
    return int(number), int(process)


def _model_file(repository: Path) -> Path:
    return repository / NAME / "1" / "model.py"
