"""The classification extension: the top k classes of an output as `value:index[:label]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock.errors import InvalidRequest
from penstock.tensors import as_array, element_count, serialize_bytes
from penstock.types import Array, OutputTensor

_NOT_RANKED: Final = frozenset({"BOOL", "BYTES"})


def classify(output: OutputTensor, k: int, labels: Sequence[str], batched: bool) -> OutputTensor:
    """The BYTES tensor of the `k` (> 0) largest elements, in descending order; all of them where `k` is more.

    Shape [batch, k], ranked per item of the first dimension, where the model batches; else [k], over all elements.
    Values are printed as C++'s `std::to_string` does: six decimals for floats. Ties are in order of index, NaN last.
    Indices beyond `labels` and empty labels get none. Raises InvalidRequest for BOOL and BYTES.
    """
    if output.datatype in _NOT_RANKED:
        raise InvalidRequest(
            "class result not available for output due to unsupported type"
            f" '{output.datatype}' (output '{output.name}')"
        )
    rows = output.shape[0] if batched else 1
    classes = element_count(output.shape[1:] if batched else output.shape)
    k = min(k, classes)
    scores = as_array(output.datatype, output.shape, output.data).reshape(rows, classes)
    texts = [text for row in scores for text in _texts(row, _top(row, k), labels)]
    shape = (rows, k) if batched else (k,)
    return OutputTensor(output.name, "BYTES", shape, serialize_bytes(texts))


def _top(scores: Array, k: int) -> Array:
    """Indices of the `k` largest of scores[n], descending, ties by index, NaN last."""
    if scores.dtype.kind in "iu":
        keys = ~scores
    else:
        # NumPy partitions these with vectors, FP32 twice as fast as FP64, but not halves
        keys = -(scores if scores.dtype.char in "fd" else scores.astype(np.float32))
    if k == 0 or k == len(keys):
        return np.argsort(keys, kind="stable")[:k]
    threshold = np.partition(keys, k - 1)[k - 1]
    if np.isnan(threshold):
        # fewer than k numbers: NaN are among the top k, and compare with nothing
        return np.argsort(keys, kind="stable")[:k]
    candidates = np.flatnonzero(keys <= threshold)
    return candidates[np.argsort(keys[candidates], kind="stable")[:k]]


def _texts(scores: Array, indices: Array, labels: Sequence[str]) -> list[str]:
    values: list[Any] = scores[indices].tolist()
    form = "%f:%d" if scores.dtype.kind not in "iu" else "%d:%d"
    texts = [form % pair for pair in zip(values, indices.tolist(), strict=True)]
    if not labels:
        return texts
    named = [labels[i] if i < len(labels) else "" for i in indices.tolist()]
    return [f"{text}:{name}" if name else text for text, name in zip(texts, named, strict=True)]
