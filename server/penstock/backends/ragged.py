"""Ragged batches: requests of different shapes, whose elements lie side by side, and the inputs that tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock import model_config
from penstock.backends.base import Batch, RequestInfo
from penstock.errors import ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import NUMPY_DTYPES, Array, Uneven

Shapes = npt.NDArray[np.int64]
"""A row a request: its input's shape, with the batch dimension where there is one."""

Make = Callable[[Shapes], Array]

MAX_COUNT: Final = 2**31 - 1
"""What TYPE_INT32 has."""


def batch_input_names(config: ConfigDict) -> frozenset[str]:
    """Inputs that the server makes of a batch's shapes. They are not among the configuration's inputs."""
    return frozenset(
        name for given in config.get("batch_input") or () for name in given["target_name"]
    )


def scattered_names(config: ConfigDict) -> frozenset[str]:
    """Outputs that hold the elements of all requests side by side."""
    return frozenset(
        name for given in config.get("batch_output") or () for name in given["target_name"]
    )


def ragged_names(config: ConfigDict) -> frozenset[str]:
    """Inputs whose shapes may differ within a batch; none where there are no batches."""
    if not config.get("max_batch_size"):
        return frozenset()
    return frozenset(t["name"] for t in config.get("input") or () if t.get("allow_ragged_batch"))


class BatchInputs:
    """Makes a model's batch inputs."""

    def __init__(self, config: ConfigDict) -> None:
        parsed = model_config.parse(config).batch_input
        self._made = [
            (given.target_name, given.source_input[0], KINDS[given.kind], _dtype(given.data_type))
            for given in parsed
        ]

    def added(self, batch: Batch) -> Mapping[str, Array]:
        """The batch's inputs, and these."""
        if not self._made:
            return batch.inputs
        inputs = dict(batch.inputs)
        for targets, source, make, dtype in self._made:
            array = _fitting(make(_shapes(batch, source)), dtype, source)
            for target in targets:
                inputs[target] = array
        return inputs


def request_inputs(batch: Batch) -> Iterator[dict[str, Array]]:
    """Each request's own inputs, ragged ones in the shapes that clients sent. Views of the batch's."""
    ragged = {} if batch.uneven is None else batch.uneven.ragged
    ends = {name: np.cumsum(_counts(shapes)).tolist() for name, shapes in ragged.items()}
    row = 0
    for index, request in enumerate(batch.requests):
        stop = row + request.rows
        yield {
            name: _part(array, ends[name], index).reshape(ragged[name][index])
            if name in ragged
            else array[row:stop]
            for name, array in batch.inputs.items()
        }
        row = stop


def ragged_one_by_one(batch: Batch) -> Iterator[Batch]:
    """Batches of one request each."""
    uneven = batch.uneven
    assert uneven is not None, "the batch is of a model with ragged inputs"
    for index, (request, inputs) in enumerate(
        zip(batch.requests, request_inputs(batch), strict=True)
    ):
        own: dict[str, tuple[tuple[int, ...], ...]] = {
            name: (shapes[index],) for name, shapes in uneven.ragged.items()
        }
        flat = {n: array.reshape(-1) if n in own else array for n, array in inputs.items()}
        yield replace(batch, inputs=flat, requests=(request,), uneven=Uneven(own, {}))


def joined_rows(
    rows: Mapping[str, Array], ragged: frozenset[str], requests: Sequence[RequestInfo]
) -> Batch:
    """A batch of requests that each have the same row, an array without a batch dimension for each input."""
    count = len(requests)
    inputs = {name: np.repeat(array[np.newaxis], count, axis=0) for name, array in rows.items()}
    shapes = {name: ((1, *rows[name].shape),) * count for name in ragged & rows.keys()}
    for name in shapes:
        inputs[name] = inputs[name].reshape(-1)
    return Batch(inputs, requests, uneven=Uneven(shapes, {}) if shapes else None)


def _fitting(counts: Array, dtype: np.dtype[Any], source: str) -> Array:
    # an input without elements may have a dimension of any size
    if counts.size and counts.max() > MAX_COUNT:
        raise ModelFailed(
            f"input {source!r}: a batch input can't tell of {counts.max()}, only up to {MAX_COUNT}"
        )
    return counts.astype(dtype)


def _part(array: Array, ends: Sequence[int], index: int) -> Array:
    return array[ends[index - 1] if index else 0 : ends[index]]


def _shapes(batch: Batch, source: str) -> Shapes:
    """Of each request's input, which may be one that is not ragged."""
    ragged = {} if batch.uneven is None else batch.uneven.ragged
    shapes: Sequence[tuple[int, ...]] | None = ragged.get(source)
    if shapes is None:
        tail = batch.inputs[source].shape[1:]
        shapes = [(request.rows, *tail) for request in batch.requests]
    return np.array(shapes, np.int64)


def _counts(shapes: Shapes | Sequence[tuple[int, ...]]) -> Array:
    counts: Array = np.prod(np.asarray(shapes, np.int64), axis=1)
    return counts


def _accumulated_with_zero(shapes: Shapes) -> Array:
    return np.concatenate(([0], np.cumsum(_counts(shapes))))


def _max_as_shape(shapes: Shapes) -> Array:
    """Only its shape tells something; Triton leaves the elements to chance."""
    zeros: Array = np.zeros(int(_counts(shapes).max()), np.int64)
    return zeros


def _item_shapes(shapes: Shapes) -> Array:
    """A row each, not a request: [[3, 1], [3, 1], [2, 2]] of [2, 3, 1] and [1, 2, 2]."""
    items: Array = np.repeat(shapes[:, 1:], shapes[:, 0], axis=0)
    return items


KINDS: Final[Mapping[str, Make]] = MappingProxyType(
    {
        "BATCH_ELEMENT_COUNT": _counts,
        "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda shapes: np.cumsum(_counts(shapes)),
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": _accumulated_with_zero,
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": _max_as_shape,
        "BATCH_ITEM_SHAPE": _item_shapes,
        "BATCH_ITEM_SHAPE_FLATTEN": lambda shapes: _item_shapes(shapes).reshape(-1),
    }
)
"""Kind of a batch input → what it holds, as in Triton."""


def _dtype(data_type: str) -> np.dtype[Any]:
    return NUMPY_DTYPES[data_type.removeprefix("TYPE_")]
