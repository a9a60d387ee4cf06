"""Tensors between NumPy and ONNX Runtime: type names, strings, and the BF16 that its NumPy interface can't take."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from penstock.errors import LoadFailed, ModelFailed
from penstock.types import NUMPY_DTYPES, Array

DATA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tensor(bool)": "TYPE_BOOL",
        "tensor(uint8)": "TYPE_UINT8",
        "tensor(uint16)": "TYPE_UINT16",
        "tensor(uint32)": "TYPE_UINT32",
        "tensor(uint64)": "TYPE_UINT64",
        "tensor(int8)": "TYPE_INT8",
        "tensor(int16)": "TYPE_INT16",
        "tensor(int32)": "TYPE_INT32",
        "tensor(int64)": "TYPE_INT64",
        "tensor(float16)": "TYPE_FP16",
        "tensor(float)": "TYPE_FP32",
        "tensor(double)": "TYPE_FP64",
        "tensor(bfloat16)": "TYPE_BF16",
        "tensor(string)": "TYPE_STRING",
    }
)
"""ONNX Runtime's name of a tensor type → Triton's."""

_BF16: Final = NUMPY_DTYPES["BF16"]
_ONNX_BFLOAT16: Final = 16


def data_type(name: str, onnx_type: str) -> str:
    """Triton's name for the type of tensor `name`. Raises LoadFailed for maps, sequences and other types."""
    if onnx_type not in DATA_TYPES:
        known = ", ".join(DATA_TYPES)
        raise LoadFailed(f"{name!r} of the ONNX model is {onnx_type}, expected one of {known}")
    return DATA_TYPES[onnx_type]


def to_strings(name: str, array: Array) -> Array:
    """BYTES as ONNX Runtime takes them: object array of `str`. Raises ModelFailed where one is not UTF-8."""
    try:
        texts = [element.decode() for element in array.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise ModelFailed(
            f"input {name!r} holds bytes that are not UTF-8, which ONNX strings must be:"
            f" {error.reason} at byte {error.start}"
        ) from error
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def to_bytes(array: Array) -> Array:
    """Inverse of `to_strings`."""
    encoded = [text.encode() for text in array.reshape(-1).tolist()]
    return np.array(encoded, dtype=np.object_).reshape(array.shape)


def run_with_bf16(
    session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]
) -> Sequence[Array]:
    """`session.run` through OrtValues, which BF16 needs. Outputs are the caller's own."""
    values = {name: _to_ort(array) for name, array in feeds.items()}
    return [_from_ort(value) for value in session.run_with_ort_values(list(outputs), values)]


def _to_ort(array: Array) -> Any:
    if array.dtype != _BF16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    # The OrtValue keeps no reference of its own to a view's base, but holds the array it is given.
    bits = np.ascontiguousarray(array).view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _from_ort(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()  # type: ignore[no-any-return]
    array: Array = np.empty(value.shape(), dtype=_BF16)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array
