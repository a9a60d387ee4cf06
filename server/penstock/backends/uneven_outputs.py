"""Outputs of batches whose requests have different shapes: each request gets its own part, in its own shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from penstock import model_config
from penstock.backends.base import Answers, Batch, LoadedModel, Outputs
from penstock.errors import ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.padding_config import dimension_of, padding_of
from penstock.types import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scattered:
    """An output that holds the elements of all requests side by side."""

    name: str
    source: str
    """The input that has each request's shape."""
    shape: Shape
    """With the batch dimension. Where it is -1, the size is that of the source's same dimension."""

    def shapes(self, batch: Batch) -> list[Shape]:
        """Each request's own."""
        given = batch.uneven.ragged.get(self.source) if batch.uneven is not None else None
        if given is None:
            tail = batch.inputs[self.source].shape[1:]
            given = tuple([(request.rows, *tail) for request in batch.requests])
        return [
            tuple([own[i] if size < 0 else size for i, size in enumerate(self.shape)])
            for own in given
        ]


@dataclass(frozen=True, slots=True)
class Cut:
    """An output that is as long as a padded input, and is sent as long as that was before."""

    name: str
    source: str
    axis: int
    """With the batch dimension."""

    def own(self, array: Array, length: int) -> Array:
        """Raises ModelFailed when there is less than the client sent."""
        if array.ndim <= self.axis or array.shape[self.axis] < length:
            raise ModelFailed(
                f"output {self.name!r} has shape {list(array.shape)}, expected at least {length} in"
                f" dimension {self.axis}: as many as input {self.source!r} had before it was padded"
            )
        return array[(slice(None),) * self.axis + (slice(length),)]


def with_uneven_outputs(model: LoadedModel) -> LoadedModel:
    """The model itself, or, where some outputs depend on each request's own shape, the model in a wrapper that divides
    them."""
    scattered = {each.name: each for each in _scattered(model.config)}
    cuts = list(_cuts(model.config))
    return UnevenOutputs(model, scattered, cuts) if scattered or cuts else model


class UnevenOutputs:
    """A loaded model whose answers are divided among the requests."""

    def __init__(
        self, model: LoadedModel, scattered: Mapping[str, Scattered], cuts: Sequence[Cut]
    ) -> None:
        self._model = model
        self.fallback: str = getattr(model, "fallback", "")
        self._scattered = scattered
        self._cuts = cuts

    @property
    def config(self) -> ConfigDict:
        """The inner model's configuration."""
        return self._model.config

    def execute(self, batch: Batch) -> Answers:
        """Run the batch; one answer a request. Raises ModelFailed when they can't be told apart."""
        answers = self._model.execute(batch)
        if isinstance(answers, Mapping):
            answers = self._divided(answers, batch)
        return [
            one if isinstance(one, PenstockError) else self._own(one, batch, index)
            for index, one in enumerate(answers)
        ]

    def close(self) -> None:
        """Close the inner model."""
        self._model.close()

    def _divided(self, outputs: Outputs, batch: Batch) -> list[Outputs]:
        divided: list[dict[str, Array]] = [{} for _ in batch.requests]
        rows = np.cumsum([request.rows for request in batch.requests]).tolist()
        for name, array in outputs.items():
            scattered = self._scattered.get(name)
            if scattered is None:
                ends = rows
            else:
                ends = np.cumsum([prod(shape) for shape in scattered.shapes(batch)]).tolist()
                array = _flat(scattered, array, ends[-1])
            start = 0
            for own, end in zip(divided, ends, strict=True):
                own[name] = array[start:end]
                start = end
        return list(divided)

    def _own(self, outputs: Outputs, batch: Batch, index: int) -> Outputs | PenstockError:
        """What is sent of a request's outputs, or what is wrong with them."""
        own = dict(outputs)
        lengths = {} if batch.uneven is None else batch.uneven.lengths
        try:
            for name in self._scattered.keys() & own.keys():
                scattered = self._scattered[name]
                shape = scattered.shapes(batch)[index]
                own[name] = _flat(scattered, own[name], prod(shape)).reshape(shape)
            for cut in self._cuts:
                if cut.name in own and cut.source in lengths:
                    own[cut.name] = cut.own(own[cut.name], lengths[cut.source][index])
        except ModelFailed as error:
            return error
        return own


def _flat(scattered: Scattered, array: Array, count: int) -> Array:
    if array.size != count:
        raise ModelFailed(
            f"output {scattered.name!r} has {array.size} elements, expected {count}: as"
            f" {scattered.source!r} has them, which batch_output names"
        )
    return array.reshape(-1)


def _scattered(config: ConfigDict) -> Iterator[Scattered]:
    parsed = model_config.parse(config)
    dims = {tensor.name: tensor.dims for tensor in parsed.output}
    for given in parsed.batch_output:
        for name in given.target_name:
            yield Scattered(name, given.source_input[0], (-1, *dims[name]))


def _cuts(config: ConfigDict) -> Iterator[Cut]:
    dims = {tensor["name"]: tensor["dims"] for tensor in config.get("output") or ()}
    for given in padding_of(config).outputs:
        dimension = dimension_of(dims[given.name], given.dimension) if given.name in dims else None
        # where it is None, the gateway refuses the model
        if dimension is not None:
            yield Cut(given.name, given.source, dimension + 1)
