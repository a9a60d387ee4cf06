"""What a roll-out sees of an answer's outputs: whether all their numbers are finite, what they say, and whether two
answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Final

import numpy as np

from penstock.model_config import Tensor
from penstock.rollouts.plan import Tolerance
from penstock.tensors import as_array
from penstock.types import NUMPY_DTYPES, OutputTensor

MAX_CLASSES: Final = 4096

_FLOATS: Final = frozenset({"FP16", "FP32", "FP64", "BF16"})
_NUMBERS: Final = frozenset(NUMPY_DTYPES) - {"BYTES"}


def has_non_finite(outputs: Sequence[OutputTensor]) -> bool:
    """Whether any number of them is NaN or infinite."""
    return any(
        not np.isfinite(as_array(output.datatype, output.shape, output.data)).all()
        for output in outputs
        if output.datatype in _FLOATS
    )


def copied(outputs: Sequence[OutputTensor]) -> list[OutputTensor]:
    """The same, valid for as long as anybody likes."""
    return [OutputTensor(o.name, o.datatype, o.shape, bytes(o.data)) for o in outputs]


def size_bytes(outputs: Sequence[OutputTensor]) -> int:
    """Of all their tensors."""
    return sum(len(output.data) for output in outputs)


def agree(
    expected: Sequence[OutputTensor], got: Sequence[OutputTensor], tolerance: Tolerance
) -> bool:
    """Whether two answers to the same request are the same, as far as that is asked for. NaN is like NaN."""
    others = {output.name: output for output in got}
    return len(others) == len(expected) and all(
        output.name in others and _agree(output, others[output.name], tolerance)
        for output in expected
    )


def _agree(one: OutputTensor, other: OutputTensor, tolerance: Tolerance) -> bool:
    if (one.datatype, one.shape) != (other.datatype, other.shape):
        return False
    if one.data == other.data:
        return True
    if one.datatype not in _FLOATS:
        return False
    expected, got = (as_array(t.datatype, t.shape, t.data).astype(np.float64) for t in (one, other))
    relative, absolute = tolerance.relative, tolerance.absolute
    return bool(np.allclose(got, expected, rtol=relative, atol=absolute, equal_nan=True))


class Summary:
    """One number that says what an answer is, so that answers to different requests can be compared: of a model whose
    output has a score for each of some classes the likeliest one, else the mean of its numbers."""

    def __init__(self, outputs: Sequence[Tensor], *, batched: bool) -> None:
        """`outputs`: the model's. Where none is of numbers, its answers say nothing."""
        numeric = [each for each in outputs if each.datatype in _NUMBERS]
        scores = [each for each in numeric if _is_scores(each)]
        self._name = (scores or numeric)[0].name if numeric else ""
        self._is_class = bool(scores)
        self._batched = batched

    def __call__(self, outputs: Sequence[OutputTensor]) -> float | None:
        """None: it says nothing, for the output is not there, is empty, or is not finite."""
        found = next((output for output in outputs if output.name == self._name), None)
        if found is None:
            return None
        array = as_array(found.datatype, found.shape, found.data)
        if not array.size:
            return None
        if self._is_class:
            # of the first row: all have a chance to be that
            return int((array[0] if self._batched else array).argmax())
        mean = float(array.mean(dtype=np.float64))
        return mean if isfinite(mean) else None


NO_SUMMARY: Final = Summary((), batched=False)


def _is_scores(tensor: Tensor) -> bool:
    """Whether it looks like a score for each of some classes."""
    dims = [dim for dim in tensor.dims if dim != 1]
    return tensor.datatype in _FLOATS and len(dims) == 1 and (dims[0] in range(2, MAX_CLASSES + 1))
