"""One optimizer step: forward and backward of each micro-batch, then the update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    """What this process has seen of a step: its part of the batch's means."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True)
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

    def learn(self, step: int, micro_batches: Iterable[MicroBatch], with_metrics: bool) -> Learned:
        """Step number `step`, counted from 0."""
        parts = [self._forward_backward(step, micro, with_metrics) for micro in micro_batches]
        self._update(step)
        if len(parts) == 1:
            return parts[0]
        loss = torch.stack([part.loss for part in parts]).sum()
        names = parts[0].metrics
        return Learned(loss, {n: torch.stack([p.metrics[n] for p in parts]).sum() for n in names})

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        share = schedule.factor(self.config.schedule, step, self.plan.total_steps)
        return self.config.optimizer.learning_rate * share

    def _forward_backward(self, step: int, micro: MicroBatch, with_metrics: bool) -> Learned:
        seed_torch(self.world.device, self.config.training.seed, "step", step, micro.number)
        self.buffers.begin_micro_batch(micro.first)
        with self.shared.exchange(micro.last):
            with self.precision.autocast():
                batch = self.recipe.augment(micro.tensors)
                outputs = self.recipe.forward(self.shared.learning, batch)
                losses = per_sample("loss", self.recipe.loss(outputs, batch), batch)
            # the exchange takes the mean over processes, and the batch is that of all of them
            loss = losses.float().sum() / self.plan.batch_size
            self.precision.backward(loss * self.world.size)
        self.buffers.end_micro_batch(micro.last)
        metrics = self._metrics(outputs, batch) if with_metrics else {}
        return Learned(loss.detach(), metrics)

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
