"""Masks of padded inputs where nothing was padded: what a warm-up feeds to a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penstock import model_config
from penstock.model_config import ConfigDict
from penstock.padding_config import dimension_of, padding_of
from penstock.types import NUMPY_DTYPES, Array


def masks_of(row: Mapping[str, Array], config: ConfigDict) -> dict[str, Array]:
    """The masks of one row of inputs, without a batch dimension."""
    inputs = {tensor.name: tensor for tensor in model_config.parse(config).input}
    masks: dict[str, Array] = {}
    for given in padding_of(config).inputs:
        if given.mask in inputs and given.name in row:
            mask, source = inputs[given.mask], inputs[given.name]
            dimension = dimension_of(source.dims, given.dimension) or 0
            size = row[given.name].shape[dimension]
            shape = [size if dim < 0 else dim for dim in mask.dims]
            masks[mask.name] = np.ones(shape, NUMPY_DTYPES[mask.datatype])
    return masks
