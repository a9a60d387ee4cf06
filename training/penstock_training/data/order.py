"""In which order an epoch reads rows: by seed and epoch alone, whatever the number of processes.

The loop mixes all rows of an epoch, unless a dataset has an order of its own. `lane_order` is one: it mixes less, and
lets each process read only its part of a table. A batch is made of lanes that lie in it one after the other, each of
which goes through row groups of its own. A process that takes a contiguous part of each batch takes the same lanes each
time, and so never touches the row groups of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def generator(seed: int, epoch: int) -> np.random.Generator:
    """Chance of one epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))


def lane_order(
    sizes: Sequence[int], batch: int, lanes: int, window: int, seed: int, epoch: int
) -> Rows:
    """All rows of row groups of these sizes. `window` row groups of a lane are mixed with one another. Rows that are
    left when the first lane is at its end come last, mixed."""
    chance = generator(seed, epoch)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    streams = [
        _stream(groups, starts, window, chance)
        for groups in _dealt(sizes, lanes, chance.permutation(len(sizes)))
    ]
    part = batch // lanes
    batches = min(len(stream) for stream in streams) // part
    head = np.stack([stream[: batches * part].reshape(batches, part) for stream in streams], axis=1)
    rest = np.concatenate([stream[batches * part :] for stream in streams])
    return np.concatenate([head.reshape(-1), chance.permutation(rest)])


def _dealt(sizes: Sequence[int], lanes: int, groups: NDArray[np.int64]) -> list[list[int]]:
    """Each row group goes to the lane that has the fewest rows."""
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    rows = [0] * lanes
    for group in map(int, groups):
        lane = rows.index(min(rows))
        dealt[lane].append(group)
        rows[lane] += sizes[group]
    return dealt


def _stream(
    groups: list[int], starts: NDArray[np.int64], window: int, chance: np.random.Generator
) -> Rows:
    """The rows of one lane."""
    windows = [groups[first : first + window] for first in range(0, len(groups), window)]
    parts = [
        chance.permutation(np.concatenate([np.arange(starts[g], starts[g + 1]) for g in each]))
        for each in windows
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])
