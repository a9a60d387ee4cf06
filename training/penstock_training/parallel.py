"""How several processes share a model: each has all of it (DDP), or a part (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from penstock_training.config import TrainingSettings
from penstock_training.recipe import Recipe
from penstock_training.world import World

Kind = Literal["none", "ddp", "fsdp"]
BYTES_PER_PARAMETER: Final = 16
"""A weight, its gradient, and AdamW's two memories."""


@dataclass(frozen=True)
class Shared:
    """A model on its device, and what lets it learn with the others."""

    kind: Kind
    learning: nn.Module
    """What the training calls: its backward exchanges gradients."""
    model: nn.Module
    """The recipe's own: what evaluation calls, and checkpoints hold."""

    def exchange(self, wanted: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a micro-batch: gradients are exchanged with the last one of a step only."""
        if self.kind == "none":
            return nullcontext()
        if isinstance(self.learning, DistributedDataParallel):
            return nullcontext() if wanted else self.learning.no_sync()
        if isinstance(self.learning, FSDPModule):
            self.learning.set_requires_gradient_sync(wanted)
        return nullcontext()


def share(settings: TrainingSettings, recipe: Recipe, model: nn.Module, world: World) -> Shared:
    """Puts the model on the device, and together with those of the others."""
    kind = kind_for(settings, model, world)
    if kind == "fsdp":
        # moves one part at a time: all of it might not fit
        _shard(settings, recipe.parts(model), model, world)
        return Shared(kind, model, model)
    model.to(world.device)
    if kind == "ddp":
        # buffers.py looks after the buffers
        learning = DistributedDataParallel(
            model,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        return Shared(kind, learning, model)
    return Shared(kind, model, model)


def kind_for(settings: TrainingSettings, model: nn.Module, world: World) -> Kind:
    """What `training.parallel` means here."""
    if world.size == 1:
        return "none"
    if settings.parallel != "auto":
        return settings.parallel
    if world.device.type != "cuda":
        return "ddp"
    needed = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    memory = torch.cuda.get_device_properties(world.device).total_memory
    return "fsdp" if needed > memory / 2 else "ddp"


def _shard(
    settings: TrainingSettings, parts: Iterable[nn.Module], model: nn.Module, world: World
) -> None:
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(settings.precision)
    # gradients are summed in float32 whatever they were computed in
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    for part in parts:
        fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
