"""The sizes that batches are run in: those that the configuration prefers, and rows of zeros up to one."""

from __future__ import annotations

import numpy as np

from penstock.model_config import ConfigDict
from penstock.types import Array


def preferred_sizes(config: ConfigDict) -> tuple[int, ...]:
    """Preferred batch sizes that are possible, ascending; those of sequences too."""
    given: set[int] = set((config.get("dynamic_batching") or {}).get("preferred_batch_size") or ())
    oldest = (config.get("sequence_batching") or {}).get("oldest") or {}
    given.update(oldest.get("preferred_batch_size") or ())
    return tuple(sorted(size for size in given if 0 < size <= config["max_batch_size"]))


def padded(array: Array, rows: int) -> Array:
    """With rows of zeros below, up to `rows`."""
    missing = rows - array.shape[0]
    if missing <= 0:
        return array
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
