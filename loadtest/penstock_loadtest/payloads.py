"""One request of each model as tensors, as a gRPC frame, and as an HTTP body."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from penstock_loadtest.errors import BenchmarkError

SHAPES: Final = {"identity": (1, 16), "image": (1, 3, 224, 224)}
FEATURES: Final = 16
"""Both models answer with the first 16 floats of their input."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The one request that is sent over and over: FP32 `INPUT0`, answered with `expected` as `OUTPUT0`."""

    model: str
    values: npt.NDArray[np.float32]

    @property
    def expected(self) -> npt.NDArray[np.float32]:
        """FP32 [1, 16]."""
        return self.values.reshape(1, -1)[:, :FEATURES]


def payload_for(model: str) -> Payload:
    """Random values, the same ones every time."""
    if model not in SHAPES:
        raise BenchmarkError(f"no payload for model {model}: expected one of {sorted(SHAPES)}")
    values = np.random.default_rng(0).random(SHAPES[model], dtype=np.float32)
    return Payload(model, values)


def grpc_frame(payload: Payload) -> bytes:
    """A ModelInferRequest behind its five bytes of gRPC prefix."""
    messages: Any = service_pb2
    message = messages.ModelInferRequest(model_name=payload.model)
    tensor = message.inputs.add(name="INPUT0", datatype="FP32")
    tensor.shape.extend(payload.values.shape)
    message.raw_input_contents.append(payload.values.tobytes())
    encoded: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(encoded)) + encoded


def http_body(payload: Payload) -> tuple[bytes, int]:
    """A JSON header followed by the raw tensor, and the header's length in bytes. Asks for a binary output."""
    raw = payload.values.tobytes()
    tensor = {
        "name": "INPUT0",
        "shape": payload.values.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    output = {"name": "OUTPUT0", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return header + raw, len(header)
