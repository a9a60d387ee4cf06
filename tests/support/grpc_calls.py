"""Requests over a bare gRPC channel: whatever bytes a test likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from penstock.types import Array

pb: Any = service_pb2
"""The messages as tritonclient has them."""

INFERENCE = "/inference.GRPCInferenceService/"
MODEL_INFER = f"{INFERENCE}ModelInfer"


def call(channel: grpc.Channel, method: str, message: Any = b"", **options: Any) -> bytes:
    """The answer's bytes to a message, or to bytes that stand for one. Raises grpc.RpcError."""
    path = method if method.startswith("/") else INFERENCE + method
    data = message if isinstance(message, bytes) else message.SerializeToString()
    answer: bytes = channel.unary_unary(path)(data, timeout=60, **options)
    return answer


def failure(channel: grpc.Channel, method: str, message: Any = b"") -> tuple[str, str]:
    """Name of the status code, and text, of a call that must fail."""
    try:
        answer = call(channel, method, message)
    except grpc.RpcError as error:
        status: Any = error
        return status.code().name, status.details()
    raise AssertionError(f"no error but {answer!r}")


def infer_request(
    model: str = "puppet",
    array: Array | None = None,
    *,
    name: str = "X",
    datatype: str = "FP32",
    shape: Sequence[int] | None = None,
    raw: Sequence[bytes] | None = None,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, bool | int | float | str] | None = None,
    **fields: Any,
) -> Any:
    """A ModelInferRequest with one input; `raw` and `shape` are what its array says unless they are given."""
    array = np.array([[1.0, 2.0]], np.float32) if array is None else array
    request: Any = pb.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(
        name=name, datatype=datatype, shape=array.shape if shape is None else list(shape)
    )
    request.raw_input_contents.extend([array.tobytes()] if raw is None else raw)
    for output in outputs:
        request.outputs.add(name=output)
    for key, value in (parameters or {}).items():
        kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        setattr(request.parameters[key], kinds[type(value)], value)
    return request


def infer(channel: grpc.Channel, request: Any, **options: Any) -> Any:
    """The ModelInferResponse. Raises grpc.RpcError."""
    return pb.ModelInferResponse.FromString(call(channel, MODEL_INFER, request, **options))
