"""Tensors between NumPy and OpenVINO: types, views in place of copies, and what its CPU plugin computes in 32 bits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from penstock.errors import LoadFailed, ModelFailed
from penstock.types import NUMPY_DTYPES, Array

DATA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "boolean": "TYPE_BOOL",
        "u8": "TYPE_UINT8",
        "u16": "TYPE_UINT16",
        "u32": "TYPE_UINT32",
        "u64": "TYPE_UINT64",
        "i8": "TYPE_INT8",
        "i16": "TYPE_INT16",
        "i32": "TYPE_INT32",
        "i64": "TYPE_INT64",
        "f16": "TYPE_FP16",
        "f32": "TYPE_FP32",
        "f64": "TYPE_FP64",
        "bf16": "TYPE_BF16",
    }
)
"""OpenVINO's name of an element type → Triton's. Strings are not among them: its Python package frees their memory
twice."""

WIDE: Final = frozenset({"TYPE_INT64", "TYPE_UINT64", "TYPE_UINT32"})
"""Integers that the CPU plugin computes as 32-bit ones with a sign."""

_LIMITS: Final = np.iinfo(np.int32)
_BF16: Final = NUMPY_DTYPES["BF16"]


def data_type(name: str, element_type: str) -> str:
    """Triton's name for the type of tensor `name`. Raises LoadFailed for those that can't be served."""
    if element_type not in DATA_TYPES:
        known = ", ".join(DATA_TYPES)
        raise LoadFailed(
            f"{name!r} of the model is {element_type}, which the openvino backend does not serve:"
            f" expected one of {known}"
        )
    return DATA_TYPES[element_type]


def check_range(name: str, array: Array) -> None:
    """Raises ModelFailed where an integer would be computed as another one."""
    if not array.size:
        return
    for found in (int(array.min()), int(array.max())):
        if not _LIMITS.min <= found <= _LIMITS.max:
            raise ModelFailed(
                f"input {name!r} holds {found}: OpenVINO computes {array.dtype} in 32 bits on CPUs,"
                f" expected {_LIMITS.min} to {_LIMITS.max}"
            )


def shareable(array: Array) -> Array:
    """The array, or a copy where OpenVINO can't share its memory: it takes none that has holes, or is read-only, though
    it only reads."""
    if array.flags.c_contiguous and array.flags.writeable:
        return array
    return np.array(array, order="C")


def to_openvino(ov: Any, array: Array) -> Any:
    """A tensor of the memory of an array that is `shareable`. It does not keep the array: the caller has to."""
    if array.dtype == _BF16:
        return ov.Tensor(array.view(np.uint16), list(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def from_openvino(tensor: Any, data_type: str) -> Array:
    """A view of the tensor's memory, which the next run overwrites."""
    array: Array = tensor.data
    if data_type == "TYPE_BF16":
        return array.view(_BF16)
    return array
