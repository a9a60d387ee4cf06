"""The module that Triton's Python models import, under its own name, as `pb_utils`.

`python_backend` puts a copy of it into `sys.modules` of a worker, with what `bound_to` gives. What Penstock does not do
raises TritonModelException when it is called, and only then.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from penstock.backends.base import OtherModels
from penstock.backends.byte_arrays import is_text, to_byte_array
from penstock.backends.triton_calls import control
from penstock.backends.triton_metrics import Metric, MetricFamily
from penstock.backends.triton_model_config import ModelConfig
from penstock.backends.triton_objects import (
    TRITON_TYPE_NUMBERS,
    Logger,
    Tensor,
    TritonError,
    TritonErrorCode,
    TritonModelException,
)
from penstock.backends.triton_requests import (
    FLAG_SEQUENCE_END,
    FLAG_SEQUENCE_START,
    RELEASE_ALL,
    InferenceRequest,
    InferenceTrace,
    PreferredMemory,
)
from penstock.backends.triton_requests import bound_to as bound_requests
from penstock.backends.triton_responses import COMPLETE_FINAL, InferenceResponse
from penstock.errors import PenstockError
from penstock.types import NUMPY_DTYPES, Array

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_CPU_PINNED",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITON_STRING_TO_NUMPY",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceTrace",
    "Logger",
    "Metric",
    "MetricFamily",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonErrorCode",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "using_decoupled_model_transaction_policy",
]

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START: Final = FLAG_SEQUENCE_START
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END: Final = FLAG_SEQUENCE_END
TRITONSERVER_RESPONSE_COMPLETE_FINAL: Final = COMPLETE_FINAL
TRITONSERVER_REQUEST_RELEASE_ALL: Final = RELEASE_ALL
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE: Final = 2
TRITONSERVER_MEMORY_CPU: Final = 0
TRITONSERVER_MEMORY_CPU_PINNED: Final = 1
TRITONSERVER_MEMORY_GPU: Final = 2

_TYPES: Final[Mapping[str, type]] = {
    name: np.object_ if name == "BYTES" else dtype.type for name, dtype in NUMPY_DTYPES.items()
}

TRITON_STRING_TO_NUMPY: Final[Mapping[str, type]] = MappingProxyType(
    {("TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"): t for name, t in _TYPES.items()}
)
"""`TYPE_FP32` … → NumPy scalar type; TYPE_STRING → `np.object_`."""

_NUMBER_TO_NUMPY: Final = {TRITON_TYPE_NUMBERS[name]: type_ for name, type_ in _TYPES.items()}
_NUMPY_TO_NUMBER: Final = {np.dtype(type_): number for number, type_ in _NUMBER_TO_NUMPY.items()}


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name, or None."""
    inference_request._note_reading()
    for tensor in inference_request._tensors:
        if tensor._name == name:
            return tensor
    return None


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, or None."""
    for tensor in inference_response._tensors:
        if tensor._name == name:
            return tensor
    return None


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """The configuration of the input of that name, or None."""
    return _by_name(model_config.get("input"), name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """The configuration of the output of that name, or None."""
    return _by_name(model_config.get("output"), name)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether the configuration asks for a decoupled model."""
    policy = model_config.get("model_transaction_policy") or {}
    return bool(policy.get("decoupled", False))


def triton_to_numpy_type(data_type: int) -> type | None:
    """NumPy scalar type of a TRITONSERVER_DataType, None where there is none."""
    return _NUMBER_TO_NUMPY.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """TRITONSERVER_DataType of a NumPy dtype or scalar type, None where there is none."""
    dtype = np.dtype(data_type)
    return TRITON_TYPE_NUMBERS["BYTES"] if dtype.kind in "SU" else _NUMPY_TO_NUMBER.get(dtype)


def triton_string_to_numpy(triton_type_string: str) -> type:
    """NumPy scalar type of `TYPE_FP32` …; KeyError where there is none."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def serialize_byte_tensor(input_tensor: Array) -> Any:
    """The elements as `<u32 length><bytes>` in C order; `()` of an empty tensor, None of one that is not BYTES."""
    if input_tensor.size == 0:
        return ()
    if not is_text(input_tensor):
        return None
    elements = to_byte_array(input_tensor).reshape(-1).tolist()
    return b"".join(part for text in elements for part in (struct.pack("<I", len(text)), text))


def deserialize_bytes_tensor(encoded_tensor: bytes) -> Array:
    """Inverse of `serialize_byte_tensor`: a 1-D object array. Raises ValueError when a length runs over the end."""
    elements: list[bytes] = []
    offset = 0
    while offset < len(encoded_tensor):
        start = offset + 4
        offset = start + int.from_bytes(encoded_tensor[offset:start], "little")
        if offset > len(encoded_tensor):
            raise ValueError(f"element {len(elements)} runs over the end of the encoded tensor")
        elements.append(bytes(encoded_tensor[start:offset]))
    decoded = np.empty(len(elements), dtype=np.object_)
    decoded[:] = elements
    return decoded


def _by_name(tensors: Any, name: str) -> Any:
    return next((tensor for tensor in tensors or () if tensor["name"] == name), None)


def bound_to(others: OtherModels | None) -> dict[str, Any]:
    """The names of this module whose meaning depends on the worker that has it."""

    def reach() -> OtherModels:
        if others is None:
            raise TritonModelException("other models can't be reached from here")
        return others

    def is_model_ready(model_name: str, model_version: str = "") -> bool:
        """Whether the model can take requests now."""
        try:
            reach().check_ready(model_name, model_version)
        except PenstockError:
            return False
        return True

    def load_model(
        model_name: str, config: str = "", files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load a model, as the model repository extension does. Raises TritonModelException."""
        control(lambda: reach().load(model_name, config, files or {}))

    def unload_model(model_name: str, unload_dependents: bool = False) -> None:
        """Unload a model. Raises TritonModelException."""
        control(lambda: reach().unload(model_name, unload_dependents=unload_dependents))

    return {
        "InferenceRequest": bound_requests(others),
        "is_model_ready": is_model_ready,
        "load_model": load_model,
        "unload_model": unload_model,
    }
