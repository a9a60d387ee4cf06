"""Images that clients send, made to what a model's input takes: resized, normalised, a plane a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from penstock.backends.base import Answers, Batch, LoadedModel, LoadSpec
from penstock.errors import ConfigError, LoadFailed
from penstock.image_config import images_of
from penstock.model_config import ConfigDict, asks_decoupled
from penstock.types import NUMPY_DTYPES, Array, Uneven
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.images import ImageRecipe, preprocess, preprocess_ragged


def with_images(spec: LoadSpec, model: LoadedModel) -> LoadedModel:
    """The model itself, or, where its configuration has inputs for images, the model in a wrapper that makes them.

    Raises LoadFailed where these inputs don't take any.
    """
    try:
        images = images_of(model.config)
        steps = [_step(image.name, image.recipe, model.config) for image in images]
    except ConfigError as error:
        raise LoadFailed(str(error)) from None
    return ImageModel(model, steps, spec.threads) if steps else model


@dataclass(frozen=True, slots=True)
class ImageStep:
    """What is done for one input."""

    name: str
    recipe: ImageRecipe
    dtype: np.dtype[Any]

    def nbytes(self, rows: int) -> int:
        """Of what is made of so many images."""
        return rows * prod(self._shape) * self.dtype.itemsize

    def made(self, batch: Batch, on: Cpu, memory: Array) -> Array:
        """The model's input, in `memory`, which has exactly that size."""
        given = batch.inputs[self.name]
        ragged = batch.uneven.ragged.get(self.name) if batch.uneven is not None else None
        out: Array = memory.view(self.dtype)
        if ragged is not None:
            sizes = [(shape[1], shape[2]) for shape in ragged for _ in range(shape[0])]
            shape = (len(sizes), *self._shape)
            return preprocess_ragged(given, sizes, self.recipe, on, out.reshape(shape))
        shape = (*given.shape[:-3], *self._shape)
        return preprocess(given, self.recipe, on, out.reshape(shape))

    def rows(self, batch: Batch) -> int:
        """How many images the batch has."""
        ragged = batch.uneven.ragged.get(self.name) if batch.uneven is not None else None
        if ragged is not None:
            return sum(shape[0] for shape in ragged)
        return prod(batch.inputs[self.name].shape[:-3])

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.recipe.channels, self.recipe.height, self.recipe.width


class ImageModel:
    """A loaded model that gets planes where clients send images."""

    def __init__(self, model: LoadedModel, steps: Sequence[ImageStep], threads: int) -> None:
        self._model = model
        self.live = getattr(model, "live", False)
        self.fallback = getattr(model, "fallback", "")
        self._steps = steps
        self._on = Cpu(threads)
        # arrays of decoupled models are their own
        self._keeps = not asks_decoupled(model.config)
        self._memory = {step.name: np.empty(0, np.uint8) for step in steps}
        for step in steps:
            # compiles, which no request shall wait for
            pixel = np.zeros((1, 1, step.recipe.channels), np.uint8)
            preprocess(pixel, step.recipe, self._on, dtype=step.dtype)

    @property
    def config(self) -> ConfigDict:
        """The inner model's configuration: with what it takes itself."""
        return self._model.config

    def execute(self, batch: Batch) -> Answers:
        """Run the batch."""
        inputs = dict(batch.inputs)
        for step in self._steps:
            if step.name in inputs:
                memory = self._memory_for(step.name, step.nbytes(step.rows(batch)))
                inputs[step.name] = step.made(batch, self._on, memory)
        return self._model.execute(
            replace(batch, inputs=inputs, uneven=self._still_uneven(batch.uneven))
        )

    def close(self) -> None:
        """Close the inner model."""
        self._model.close()
        self._on.close()

    def _memory_for(self, name: str, nbytes: int) -> Array:
        """Of the last batch, where it is enough: new memory takes about as long as what is written to it."""
        memory = self._memory[name]
        if memory.size < nbytes or not self._keeps:
            memory = np.empty(nbytes, np.uint8)
            if self._keeps:
                self._memory[name] = memory
        return memory[:nbytes]

    def _still_uneven(self, uneven: Uneven | None) -> Uneven | None:
        """But for images, which have one size now."""
        if uneven is None:
            return None
        names = {step.name for step in self._steps}
        ragged = {name: shapes for name, shapes in uneven.ragged.items() if name not in names}
        return Uneven(ragged, uneven.lengths) if ragged or uneven.lengths else None


def _step(name: str, recipe: Any, config: ConfigDict) -> ImageStep:
    inputs = {tensor["name"]: tensor for tensor in config["input"]}
    if name not in inputs:
        raise ConfigError(
            f"parameters['image.{name}.resize'] names {name!r}; expected an input of the model:"
            f" {', '.join(inputs)}"
        )
    tensor = inputs[name]
    return ImageStep(
        name, recipe(tensor["dims"]), NUMPY_DTYPES[tensor["data_type"].removeprefix("TYPE_")]
    )
