"""Which requests of a model may be joined though their shapes differ: those with ragged inputs, and padded ones."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import numpy as np

from penstock import model_config
from penstock.backends.ragged import ragged_names
from penstock.errors import InvalidRequest
from penstock.model_config import ConfigDict, Tensor
from penstock.padding_config import PaddedInput, Padding, dimension_of, padding_of
from penstock.types import ITEM_BYTES, NUMPY_DTYPES, TensorSpec
from penstock.workers.uneven_plan import BITS, MaskPlan, PaddedPlan, UnevenPlan


@dataclass(frozen=True, slots=True)
class PaddingRule:
    """Of one input."""

    given: PaddedInput
    axis: int
    """With the batch dimension."""
    dtype: np.dtype[Any]
    """Of the elements' bits."""
    fill: int
    is_source: bool
    mask: Tensor | None
    others_are_free: bool
    """Further dimensions have any size."""

    def plan(self, shape: tuple[int, ...]) -> PaddedPlan:
        """For an input of that shape. Raises InvalidRequest for one that would take a lot of memory for no bytes."""
        length = shape[self.axis]
        if length == 0 and self.others_are_free:
            raise InvalidRequest(
                f"input '{self.given.name}' has shape [{','.join(map(str, shape))}]; dimension"
                f" {self.axis}, which is padded, must have at least one element"
            )
        row = list(shape[1:])
        row[self.axis - 1] = self.given.size(length)
        return PaddedPlan(self.axis, length, tuple(row), self.dtype, self.fill, self.is_source)

    def mask_plan(self, padded: PaddedPlan) -> MaskPlan | None:
        """None where the model takes no mask."""
        if self.mask is None:
            return None
        size = padded.shape[padded.axis - 1]
        shape = tuple(size if dim < 0 else dim for dim in self.mask.dims)
        return MaskPlan(self.mask.name, self.mask.datatype, self.given.name, shape)


class UnevenRules:
    """Of one model."""

    def __init__(self, ragged: frozenset[str], padding: Mapping[str, PaddingRule]) -> None:
        self._ragged = ragged
        self._padding = padding

    def plan(self, tensors: Sequence[TensorSpec], rows: int) -> tuple[Hashable, UnevenPlan]:
        """What is equal for requests that can be joined, and how this one is. `tensors`: in the model's order."""
        padded: dict[str, PaddedPlan] = {}
        masks: list[MaskPlan] = []
        key: list[Hashable] = []
        for tensor in tensors:
            rule = self._padding.get(tensor.name)
            tail: Hashable = tensor.shape[1:]
            if rule is not None:
                plan = padded[tensor.name] = rule.plan(tensor.shape)
                mask = rule.mask_plan(plan)
                masks += [] if mask is None else [mask]
                tail = plan.shape
            elif tensor.name in self._ragged:
                tail = None
            key.append((tensor.name, tail))
        made = [prod(plan.shape) * plan.dtype.itemsize for plan in padded.values()]
        made += [prod(mask.shape) * ITEM_BYTES[mask.datatype] for mask in masks]
        return tuple(key), UnevenPlan(self._ragged, padded, tuple(masks), rows * sum(made))


def uneven_rules(config: ConfigDict) -> UnevenRules | None:
    """The rules of a complete configuration that was checked; None where there are none."""
    inputs = {tensor.name: tensor for tensor in model_config.parse(config).input}
    ragged = ragged_names(config)
    padding = padding_of(config)
    if not ragged and not padding.inputs:
        return None
    return UnevenRules(ragged, {p.name: _rule(p, padding, inputs) for p in padding.inputs})


def fill_bits(datatype: str, value: float) -> int:
    """The bits of an element of that value. Raises ValueError where the datatype does not have it."""
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind in "iub":
        info = np.iinfo(dtype) if dtype.kind in "iu" else None
        lowest, highest = (0, 1) if info is None else (int(info.min), int(info.max))
        if not (lowest <= value <= highest and value == int(value)):
            raise ValueError(
                f"expected an integer from {lowest} to {highest}, which {datatype} has"
            )
        value = int(value)
    with np.errstate(over="ignore"):
        element = np.array([value]).astype(dtype)
    if isfinite(value) and not np.isfinite(element.astype(np.float64)).all():
        raise ValueError(f"expected a number that {datatype} has")
    return int(element.view(BITS[dtype.itemsize])[0])


def _rule(given: PaddedInput, padding: Padding, inputs: Mapping[str, Tensor]) -> PaddingRule:
    tensor = inputs[given.name]
    dimension = dimension_of(tensor.dims, given.dimension)
    assert dimension is not None, "the configuration was checked"
    return PaddingRule(
        given,
        dimension + 1,
        BITS[ITEM_BYTES[tensor.datatype]],
        fill_bits(tensor.datatype, given.value),
        any(output.source == given.name for output in padding.outputs),
        inputs[given.mask] if given.mask else None,
        sum(size < 0 for size in tensor.dims) > 1,
    )
