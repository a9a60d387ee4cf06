"""A recipe that trains in a moment: which of four corners a point is nearest to. With dropout, a norm and augmentation,
so that nothing that depends on chance or on the number of processes stays unseen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penstock.config_section import Section
from penstock_training.recipe import Batch, Lake, Recipe, Splits


class Points:
    """Rows in memory."""

    def __init__(self, tensors: Batch) -> None:
        self._tensors = tensors

    def __len__(self) -> int:
        return len(self._tensors["label"])

    def fetch(self, rows: Tensor) -> Batch:
        return {name: tensor[rows] for name, tensor in self._tensors.items()}


class TinyOptions(Section):
    """Knobs, and ways to fail."""

    rows: int = 256
    hidden: int = 16
    dropout: float = 0.1
    norm: bool = True
    noise: float = 0.05
    kill_rank: int | None = None
    """This process kills itself before it learns from micro-batch number `kill_at`, once."""
    kill_at: int = 0
    nan_at: int | None = None
    """The loss is NaN from this micro-batch of a process on."""
    raise_at: int | None = None
    """`loss` raises from this micro-batch of a process on."""
    step_s: float = 0
    """How long each micro-batch takes, at least."""


class Corners(Recipe):
    Options = TinyOptions
    inputs = ("POINT",)
    outputs = ("SCORES",)
    class_names = ("south-west", "south-east", "north-west", "north-east")
    options: TinyOptions

    def __init__(self, config: Any, options: Any) -> None:
        super().__init__(config, options)
        self._seen = 0

    def model(self) -> nn.Module:
        hidden = self.options.hidden
        return nn.Sequential(
            # a bias before a norm has no gradient but rounding errors, of which AdamW makes whole steps
            nn.Linear(2, hidden, bias=not self.options.norm),
            nn.BatchNorm1d(hidden) if self.options.norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(self.options.dropout),
            nn.Linear(hidden, 4),
        )

    def datasets(self, lake: Lake) -> Splits:
        chance = torch.Generator().manual_seed(5)
        points = torch.rand(self.options.rows + 150, 2, generator=chance) * 2 - 1
        labels = (points[:, 0] > 0).long() + 2 * (points[:, 1] > 0).long()
        rows = {"POINT": points, "label": labels}
        first, second = self.options.rows, self.options.rows + 77

        def part(start: int, end: int) -> Points:
            return Points({name: tensor[start:end] for name, tensor in rows.items()})

        return Splits(part(0, first), part(first, second), part(second, len(points)))

    def augment(self, batch: Batch) -> Batch:
        self._misbehave()
        points = batch["POINT"]
        return {**batch, "POINT": points + self.options.noise * torch.randn_like(points)}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        losses = nn.functional.cross_entropy(outputs, batch["label"], reduction="none")
        if self.options.nan_at is not None and self._seen > self.options.nan_at:
            return losses * float("nan")
        return losses

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"accuracy": (outputs.argmax(dim=1) == batch["label"]).float()}

    def example_input(self) -> Batch:
        return {"POINT": torch.zeros(2, 2)}

    def _misbehave(self) -> None:
        options, rank = self.options, int(os.environ.get("RANK", "0"))
        if options.raise_at is not None and self._seen >= options.raise_at:
            raise ValueError("this recipe is broken")
        if options.kill_rank == rank and self._seen == options.kill_at:
            self._kill_once()
        self._seen += 1
        if options.step_s:
            time.sleep(options.step_s)

    def _kill_once(self) -> None:
        done: Path = self.config.run.folder / "killed"
        if not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
