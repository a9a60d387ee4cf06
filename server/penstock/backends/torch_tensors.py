"""Tensors between NumPy and PyTorch: without a copy where both know the datatype, also BF16, which NumPy doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from penstock.types import NUMPY_DTYPES, Array

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "UINT8": torch.uint8,
        "UINT16": torch.uint16,
        "UINT32": torch.uint32,
        "UINT64": torch.uint64,
        "INT8": torch.int8,
        "INT16": torch.int16,
        "INT32": torch.int32,
        "INT64": torch.int64,
        "FP16": torch.float16,
        "FP32": torch.float32,
        "FP64": torch.float64,
        "BF16": torch.bfloat16,
    }
)
"""Protocol datatype → torch's. BYTES has none."""

DATATYPES: Final[Mapping[torch.dtype, str]] = MappingProxyType(
    {dtype: name for name, dtype in DTYPES.items()}
)

_BF16: Final = NUMPY_DTYPES["BF16"]


def to_tensor(array: Array) -> torch.Tensor:
    """A tensor of the array's own memory; of a copy where that must not be written to, or lies askew."""
    if not array.flags.writeable or not array.flags.aligned:
        array = array.copy()
    if array.dtype == _BF16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: torch.Tensor) -> Array:
    """An array of the tensor's own memory where it lies in the machine's, else of a copy there."""
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.detach().cpu().contiguous().view(torch.uint16).numpy()
        return bits.view(_BF16)
    array: Array = tensor.numpy(force=True)
    return array


def to_arrays(value: Any) -> Any:
    """Tensors as arrays, also those in tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return to_array(value)
    if isinstance(value, Mapping):
        return {name: to_arrays(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(to_arrays(each) for each in value)
    return value
