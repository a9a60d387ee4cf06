"""Which samples each step takes, and which process computes them: by numbers alone, so that nothing of it is kept.

A batch of `batch_size` rows is the same for any number of processes. It is cut into micro-batches, which go through the
model one at a time; each process takes some that lie next to each other. More processes take fewer micro-batches each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.errors import ConfigError
from penstock_training.config import TrainingSettings
from penstock_training.errors import DataError
from penstock_training.recipe import Dataset, OrderedDataset
from penstock_training.seeds import seed_of


@dataclass(frozen=True)
class Plan:
    """The steps of a run, seen from one process."""

    rows: int
    epochs: int
    batch_size: int
    micro_batch_size: int
    rank: int
    world_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Rows that don't fill a batch are left out: other ones in each epoch."""
        return self.rows // self.batch_size

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def accumulation(self) -> int:
        """Micro-batches of one process for one step."""
        return self.batch_size // (self.micro_batch_size * self.world_size)

    def micro_batches(self, order: Tensor, step_in_epoch: int) -> Iterator[tuple[int, Tensor]]:
        """(number within the batch, rows) of those that this process computes."""
        first, size = self.rank * self.accumulation, self.micro_batch_size
        start = step_in_epoch * self.batch_size + first * size
        for number in range(first, first + self.accumulation):
            yield number, order[start : start + size]
            start += size


def make_plan(settings: TrainingSettings, rows: int, rank: int, world_size: int) -> Plan:
    """Raises ConfigError, DataError where there is nothing to do for one of the processes."""
    batch = settings.batch_size
    if rows < world_size:
        raise DataError(
            f"the recipe has {rows} training rows, fewer than the {world_size} processes"
        )
    if rows < batch:
        raise DataError(
            f"the recipe has {rows} training rows, fewer than training.batch_size ({batch})"
        )
    micro = micro_batch_size(batch, settings.micro_batch_size, world_size)
    return Plan(rows, settings.epochs, batch, micro, rank, world_size)


def settled_micro_batch(settings: TrainingSettings, world_size: int) -> TrainingSettings:
    """With the size that a first start of so many processes has, unless one was given."""
    size = settings.micro_batch_size or micro_batch_size(settings.batch_size, 0, world_size)
    return settings.model_copy(update={"micro_batch_size": size})


def micro_batch_size(batch: int, wanted: int, world_size: int) -> int:
    """The wanted size, or the nearest smaller one that gives each process the same number of micro-batches."""
    if batch % world_size:
        counts = [n for n in range(1, batch + 1) if batch % n == 0]
        near = sorted(sorted(counts, key=lambda n: abs(n - world_size))[:3])
        raise ConfigError(
            f"training.batch_size ({batch}) can't be divided among {world_size} processes; "
            f"it can among {', '.join(map(str, near))}"
        )
    return math.gcd(wanted, batch // world_size) if wanted else batch // world_size


def epoch_order(dataset: Dataset, seed: int, epoch: int) -> Tensor:
    """The rows in the order of an epoch, counted from 0: the dataset's own order if it has one."""
    if isinstance(dataset, OrderedDataset):
        return dataset.order(seed, epoch)
    chance = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return torch.randperm(len(dataset), generator=chance)
