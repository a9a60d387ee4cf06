"""Running averages of a model (BatchNorm's): one update a step, by the mean over all of the batch's micro-batches.

Left alone, each micro-batch would update them in its turn, and each process its own: they would depend on the number of
processes. Here every micro-batch starts from the values before the step, and the process keeps the mean of what they
gave. An average is linear in what it averages, so that the mean over all processes is as if one had seen everything; it
is only taken when somebody looks: before an evaluation and a checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock_training.world import World


class RunningBuffers:
    """The buffers of a model: averages, and whole numbers, which count steps."""

    def __init__(self, model: nn.Module, accumulation: int) -> None:
        self._all = list(model.buffers())
        self._averages = [buffer for buffer in self._all if buffer.is_floating_point()]
        self._accumulates = accumulation > 1 and bool(self._all)
        self._share = 1 / accumulation
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []

    def begin_micro_batch(self, first: bool) -> None:
        """Each sees what was there before the step."""
        if not self._accumulates:
            return
        if first:
            self._before = [buffer.clone() for buffer in self._all]
            self._sums = [torch.zeros_like(buffer) for buffer in self._averages]
        else:
            torch._foreach_copy_(self._all, self._before)  # pyright: ignore[reportPrivateImportUsage]

    def end_micro_batch(self, last: bool) -> None:
        """Keeps what it gave; after the last of them the mean."""
        if not self._accumulates or not self._averages:
            return
        torch._foreach_add_(self._sums, self._averages)  # pyright: ignore[reportPrivateImportUsage]
        if last:
            torch._foreach_mul_(self._sums, self._share)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_copy_(self._averages, self._sums)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def average(self, world: World) -> None:
        """The mean over all processes, in each of them."""
        if world.size == 1 or not self._averages:
            return
        flat = torch.cat([buffer.reshape(-1).float() for buffer in self._averages])
        world.sum(flat).div_(world.size)
        parts = torch.split(flat, [buffer.numel() for buffer in self._averages])
        for buffer, part in zip(self._averages, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
