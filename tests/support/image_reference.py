"""What images are made to, in float64: a matrix for the lines, one for the columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock_kernels.images import ImageRecipe

Array = np.ndarray[Any, Any]


def matrix(size: int, resized: int, at: int, count: int, antialias: bool) -> Array:
    """[count, size]: which part of each pixel a resized one is."""
    scale = size / resized
    reach = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(at, at + count) + 0.5) * scale - 0.5
    if antialias:
        weights = np.maximum(1 - np.abs(np.arange(size) - centres[:, None]) / reach, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights
    low = np.clip(np.floor(centres).astype(int), 0, size - 1)
    high, part = np.minimum(low + 1, size - 1), np.clip(centres, 0, size - 1) - low
    weights = np.zeros((count, size))
    np.add.at(weights, (np.arange(count), low), 1 - part)
    np.add.at(weights, (np.arange(count), high), part)
    return weights


def reference(image: Array, recipe: ImageRecipe) -> Array:
    """[H, W, C] → [C, height, width]."""
    height, width, top, left = recipe.place(*image.shape[:2])
    rows = matrix(image.shape[0], height, top, recipe.height, recipe.antialias)
    columns = matrix(image.shape[1], width, left, recipe.width, recipe.antialias)
    resized = np.einsum("yi,ijc,xj->cyx", rows, image.astype(np.float64), columns, optimize=True)
    mean, std = (
        np.broadcast_to(v, recipe.channels)[:, None, None] for v in (recipe.mean, recipe.std)
    )
    normalised: Array = (resized / 255 - mean) / std
    return normalised
