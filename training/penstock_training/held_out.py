"""What a served model says of rows that the training has not seen, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_training.errors import RecipeError
from penstock_training.export import Arrays, batches
from penstock_training.recipe import Batch, Dataset, Recipe
from penstock_training.report.statistics import Evaluation

Predict = Callable[[Batch], Arrays]
"""Outputs by name, of a batch."""


@dataclass(frozen=True)
class HeldOut:
    """How good a model is on rows that it has not seen."""

    samples: int
    metrics: Mapping[str, float]
    evaluation: Evaluation | None
    """Of a classifier."""


def evaluate(recipe: Recipe, predict: Predict, dataset: Dataset) -> HeldOut:
    """Run the model on all rows. Raises RecipeError where there are none, or outputs are not as the recipe promises."""
    if not len(dataset):
        raise RecipeError("the recipe gives no test rows: nothing can be said of the model")
    totals: dict[str, float] = {}
    labels: list[NDArray[Any]] = []
    scores: list[NDArray[Any]] = []
    for batch in batches(dataset):
        outputs = predict(batch)
        for name, values in _counted(recipe, outputs, batch).items():
            totals[name] = totals.get(name, 0.0) + float(values.double().sum())
        if recipe.class_names:
            labels.append(recipe.labels(batch).numpy())
            scores.append(outputs[recipe.outputs[0]])
    metrics = {name: total / len(dataset) for name, total in totals.items()}
    if not recipe.class_names:
        return HeldOut(len(dataset), metrics, None)
    found = _evaluation(recipe, np.concatenate(labels), np.concatenate(scores))
    return HeldOut(len(dataset), {**metrics, **found.metrics}, found)


def _counted(recipe: Recipe, outputs: Arrays, batch: Batch) -> Mapping[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in outputs.items()}
    return recipe.served_metrics(tensors, batch)


def _evaluation(recipe: Recipe, labels: NDArray[Any], scores: NDArray[Any]) -> Evaluation:
    name, classes = recipe.outputs[0], len(recipe.class_names)
    if scores.shape != (len(labels), classes):
        raise RecipeError(
            f"the output {name!a} has the shape {scores.shape}; expected probabilities of {classes} classes for each "
            f"of {len(labels)} samples"
        )
    probabilities = scores.astype(np.float64)
    off = np.abs(probabilities.sum(axis=1) - 1).max()
    if not off < 1e-2 or probabilities.min() < -1e-6:
        raise RecipeError(
            f"the output {name!a} holds no probabilities: expected numbers from 0 that add up to 1 for each sample; "
            "does serving_model lack a softmax?"
        )
    try:
        return Evaluation(labels.astype(np.int64), probabilities, recipe.class_names)
    except ValueError as error:
        raise RecipeError(f"the test rows can't be evaluated: {error}") from error
