"""One optimizer step: forward and backward of each micro-batch, then the update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penstock_training import schedule
from penstock_training.batches import MicroBatch
from penstock_training.buffers import RunningBuffers
from penstock_training.config import TrainConfig
from penstock_training.errors import RecipeError
from penstock_training.optimizer import set_learning_rate
from penstock_training.parallel import Shared
from penstock_training.plan import Plan
from penstock_training.precision import Precision
from penstock_training.recipe import Batch, Recipe
from penstock_training.seeds import seed_torch
from penstock_training.world import World


@dataclass(frozen=True)
class Learned:
    """What this process has seen of a step."""

    losses: tuple[Tensor, ...]
    """Of each sample of each micro-batch. They are added up when somebody looks: small sums between large computations
    cost more than they seem to."""
    metrics: Mapping[str, Tensor]
    """Its part of the batch's means."""


@dataclass
class Learner:
    """All that a step needs."""

    config: TrainConfig
    world: World
    plan: Plan
    recipe: Recipe
    shared: Shared
    optimizer: torch.optim.Optimizer
    precision: Precision
    buffers: RunningBuffers
    weights: Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    """Of the samples of a micro-batch; the same each time."""

    def learn(self, step: int, micro_batches: Iterable[MicroBatch], with_metrics: bool) -> Learned:
        """Step number `step`, counted from 0."""
        parts = [self._forward_backward(step, micro, with_metrics) for micro in micro_batches]
        self._update(step)
        metrics: dict[str, Tensor] = {}
        for _, found in parts:
            for name, value in found.items():
                metrics[name] = metrics[name] + value if name in metrics else value
        return Learned(tuple(losses for losses, _ in parts), metrics)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        share = schedule.factor(self.config.schedule, step, self.plan.total_steps)
        return self.config.optimizer.learning_rate * share

    def _forward_backward(
        self, step: int, micro: MicroBatch, with_metrics: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(losses, metrics)"""
        seed_torch(self.world.device, self.config.training.seed, step, micro.number)
        self.buffers.begin_micro_batch(micro.first)
        with self.shared.exchange(micro.last):
            with self.precision.autocast():
                batch = self.recipe.augment(micro.tensors)
                outputs = self.recipe.forward(self.shared.learning, batch)
                losses = per_sample("loss", self.recipe.loss(outputs, batch), batch)
            self.precision.backward(losses, self._weights(losses))
        self.buffers.end_micro_batch(micro.last)
        return losses.detach(), self._metrics(outputs, batch) if with_metrics else {}

    def _weights(self, losses: Tensor) -> Tensor:
        """Of the batch's mean, of which the exchange takes the mean over processes once more."""
        if self.weights.shape != losses.shape or self.weights.dtype != losses.dtype:
            share = self.world.size / self.plan.batch_size
            self.weights = torch.full_like(losses, share, requires_grad=False)
        return self.weights

    @torch.no_grad()
    def _metrics(self, outputs: object, batch: Batch) -> Mapping[str, Tensor]:
        found = self.recipe.metrics(outputs, batch)
        return {
            name: per_sample(name, values, batch).float().sum() / self.plan.batch_size
            for name, values in found.items()
        }

    def _update(self, step: int) -> None:
        if limit := self.config.training.clip_norm:
            self.precision.unscale(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.shared.model.parameters(), limit)
        set_learning_rate(self.optimizer, self.rate(step))
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad()


def per_sample(name: str, values: Tensor, batch: Batch) -> Tensor:
    """Raises RecipeError unless there is one value for each sample."""
    samples = len(next(iter(batch.values())))
    if values.shape != (samples,):
        raise RecipeError(
            f"the recipe's {name} has the shape {list(values.shape)}; "
            f"expected one value for each of the {samples} samples, [{samples}]"
        )
    return values
