"""What the processes tell each other while they train: losses, and whether somebody wants them to stop.

Telling each other after every step would cost as much as a small step does. So they do about twice a second, after a
step that all of them know: rank 0 says each time when the next one is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from penstock_training.learner import Learned
from penstock_training.world import World

PERIOD_S: Final = 0.5
MAX_STEPS: Final = 1000


@dataclass(frozen=True)
class Beat:
    """What all of them know now."""

    losses: tuple[float, ...]
    """The batch's mean loss of each step since the last beat."""
    metrics: Mapping[int, Mapping[str, float]]
    """By step, of those that were measured."""
    stop: bool


class Pulse:
    """Gathers what is to be told. The same steps in every process."""

    def __init__(
        self,
        world: World,
        batch_size: int,
        stop_wanted: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world, self._batch_size = world, batch_size
        self._stop_wanted, self._clock = stop_wanted, clock
        self._learned: list[tuple[int, Learned]] = []
        self._until_next = 1
        self._began = clock()

    def note(self, step: int, learned: Learned) -> None:
        """A step is done; its number is kept as it is given."""
        self._learned.append((step, learned))

    @property
    def is_due(self) -> bool:
        return len(self._learned) >= self._until_next

    def beat(self) -> Beat:
        """Waits for all processes."""
        metric_values = [value for _, each in self._learned for value in each.metrics.values()]
        told = self._told(self._losses(), metric_values)
        steps = len(self._learned)
        metrics: dict[int, dict[str, float]] = {}
        rest = iter(told[steps:-2])
        for step, each in self._learned:
            if each.metrics:
                metrics[step] = {name: next(rest) for name in each.metrics}
        self._until_next = round(told[-1])
        self._learned.clear()
        self._began = self._clock()
        return Beat(tuple(told[:steps]), metrics, told[-2] > 0)

    def _losses(self) -> Tensor:
        """This process's part of each step's mean."""
        if not self._learned:
            return torch.empty(0, dtype=torch.float64, device=self._world.device)
        steps = torch.stack([torch.cat(each.losses) for _, each in self._learned])
        return steps.double().sum(1) / self._batch_size

    def _told(self, losses: Tensor, metrics: list[Tensor]) -> list[float]:
        """The sums over all processes, of these and of (who wants to stop, steps until the next beat)."""
        signs = [float(self._stop_wanted()), float(self._wait()) if self._world.is_first else 0.0]
        ending = torch.tensor(signs, dtype=torch.float64, device=self._world.device)
        means = [torch.stack(metrics).double()] if metrics else []
        found: list[float] = self._world.sum(torch.cat([losses, *means, ending])).tolist()
        return found

    def _wait(self) -> int:
        """How many steps take `PERIOD_S`, by those since the last beat."""
        took = max(self._clock() - self._began, 1e-6)
        return min(MAX_STEPS, max(1, round(PERIOD_S * len(self._learned) / took)))
