"""The optimizer that the configuration asks for."""

from __future__ import annotations

import torch
from torch import nn

from penstock_training.config import OptimizerSettings


def make_optimizer(settings: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is for matrices alone: biases and scales of norms have no direction to shrink in."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.learning_rate, momentum=settings.beta1, fused=True)
    betas = settings.beta1, settings.beta2
    return torch.optim.AdamW(groups, settings.learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
