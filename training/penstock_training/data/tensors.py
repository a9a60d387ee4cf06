"""Columns of Arrow as tensors: without a copy where type and layout allow it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from penstock_training.data.columns import Column, flat_values

_TYPES = {"number": (pa.float32(), torch.float32), "whole": (pa.int64(), torch.int64)}


def tensors_of(data: pa.Table, columns: Sequence[Column], where: str) -> dict[str, Tensor]:
    """A tensor for each column that can be one, [rows, *shape]. Nobody may write into them: they may be Arrow's."""
    return {
        column.key: _tensor(data[column.name], column, where)
        for column in columns
        if column.kind != "text"
    }


def texts_of(data: pa.Table, column: Column, where: str) -> list[str]:
    """The values of a column of text."""
    texts: list[str] = flat_values(data[column.name], column, where).to_pylist()
    return texts


def _tensor(data: pa.ChunkedArray, column: Column, where: str) -> Tensor:
    arrow_type, dtype = _TYPES[column.kind]
    values = flat_values(data, column, where)
    if not len(values):
        return torch.empty((0, *column.shape), dtype=dtype)
    # DLPack hands Arrow's memory on, and keeps it alive
    flat = from_dlpack(values.cast(arrow_type))
    return flat.reshape(len(data), *column.shape)
