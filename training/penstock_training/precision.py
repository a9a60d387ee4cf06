"""What the model computes in: autocast around forward, and for float16 a scaled loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor

from penstock_training.config import TrainingSettings

_LOW: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Weights and optimizer stay float32. bfloat16 has float32's range; float16's is so small that gradients vanish
    unless the loss is multiplied first (GradScaler), and a step whose gradients overflow is left out."""

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        self._device = device
        self.low = _LOW.get(settings.precision)
        """None: float32."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.low is torch.float16)

    def autocast(self) -> AbstractContextManager[Any]:
        """Around forward and loss, in training and evaluation."""
        if self.low is None:
            return nullcontext()
        return torch.autocast(self._device.type, self.low)

    def backward(self, losses: Tensor, weights: Tensor) -> None:
        """Adds the gradient of their weighted sum."""
        self._scaler.scale(losses).backward(weights)  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Before gradients are looked at."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, unless float16 has overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """For the checkpoint; empty without a scaler."""
        return dict(self._scaler.state_dict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""
        if state:
            self._scaler.load_state_dict(dict(state))
