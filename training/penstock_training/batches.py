"""The micro-batches of one process, in their order, on its device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from penstock_training.plan import Plan, epoch_order
from penstock_training.recipe import Batch, Dataset

T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the model at once."""

    number: int
    """Within the batch of all processes."""
    first: bool
    """Of this process, in this step."""
    last: bool
    tensors: Batch


class Batches:
    """Reads what the plan says, ahead of its use if wanted."""

    def __init__(
        self, dataset: Dataset, plan: Plan, seed: int, prefetch: int, device: torch.device
    ) -> None:
        self._dataset, self._plan, self._seed = dataset, plan, seed
        self._prefetch, self._device = prefetch, device

    def steps(self, first: int) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """(step, its micro-batches) from step `first`, counted from 0, to the last of the run. All micro-batches of a
        step are taken before the next one."""
        fetched = self._fetched(first)
        for step in range(first, self._plan.total_steps):
            yield step, self._of_step(fetched)

    def _of_step(self, fetched: Iterator[tuple[int, Batch]]) -> Iterator[MicroBatch]:
        count = self._plan.accumulation
        for place in range(count):
            number, batch = next(fetched)
            yield MicroBatch(number, place == 0, place == count - 1, to_device(batch, self._device))

    def _fetched(self, first: int) -> Iterator[tuple[int, Batch]]:
        tasks = (partial(self._fetch, number, rows) for number, rows in self._numbered(first))
        return read_ahead(tasks, self._prefetch)

    def _numbered(self, first: int) -> Iterator[tuple[int, Tensor]]:
        """(number within its batch, rows) of all micro-batches."""
        per_epoch = self._plan.steps_per_epoch
        for epoch in range(first // per_epoch, self._plan.epochs):
            order = epoch_order(self._dataset, self._seed, epoch)
            start = first - epoch * per_epoch if first > epoch * per_epoch else 0
            for step_in_epoch in range(start, per_epoch):
                yield from self._plan.micro_batches(order, step_in_epoch)

    def _fetch(self, number: int, rows: Tensor) -> tuple[int, Batch]:
        batch = self._dataset.fetch(rows)
        if self._device.type == "cuda" and self._prefetch:
            # a copy to the GPU that nobody waits for needs memory that stays where it is
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return number, batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same tensors there."""
    if device.type == "cpu":
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def read_ahead(tasks: Iterable[Callable[[], T]], depth: int) -> Iterator[T]:
    """What the tasks give, in their order. A thread is up to `depth` of them ahead."""
    if depth == 0:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
