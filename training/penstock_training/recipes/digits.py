"""Reads handwritten digits: a small convolutional network, trained on images that are turned, shifted and zoomed.

`penstock-train table digits lake/digits` makes the table. What is registered fits the example `model_repo/digits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from penstock.config_section import Section
from penstock_training.data.columns import Column
from penstock_training.data.rows import rows_of
from penstock_training.recipe import Batch, Lake, Recipe, Splits
from penstock_training.recipes.splits import splits_of

SIDE: Final = 8
"""Pixels."""
IMAGE: Final = Column("image", "number", (1, SIDE, SIDE), limits=(0, 1), tensor="IMAGE")
LABEL: Final = Column("label", "whole", limits=(0, 9))

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class DigitsOptions(Section):
    """`[recipe.options]`"""

    dropout: Share = 0.3
    """Share of features that are left out before each of the two last layers."""
    label_smoothing: Share = 0.05
    """Probability that is taken from the right class and given to all."""
    turn_degrees: NotNegative = 12.0
    """An image is turned by so much at most, to either side."""
    shift: NotNegative = 0.2
    """And shifted: 0.2 of half the image are 0.8 pixels."""
    zoom: Share = 0.12
    """And made larger or smaller by such a share."""


class Digits(nn.Module):
    """[n, 1, 8, 8] in 0..1 (ink is 1) → [n, 10] logits."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64 * 2 * 2, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class DigitsRecipe(Recipe):
    """scikit-learn's digits, or any table of 8 by 8 images like it."""

    Options: ClassVar[type[Section]] = DigitsOptions
    inputs = (IMAGE.key,)
    outputs = ("SCORES",)
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    options: DigitsOptions

    def model(self) -> nn.Module:
        return Digits(self.options.dropout)

    def datasets(self, lake: Lake) -> Splits:
        settings, batch = self.config.data, self.config.training.batch_size
        return splits_of(
            self.config,
            lake,
            "digits",
            lambda table: rows_of(table, [IMAGE, LABEL], settings, batch),
        )

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        return functional.cross_entropy(
            outputs, batch["label"], label_smoothing=self.options.label_smoothing, reduction="none"
        )

    def metrics(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        return {"accuracy": (outputs.argmax(dim=1) == batch["label"]).float()}

    def augment(self, batch: Batch) -> Batch:
        return {**batch, IMAGE.key: changed(batch[IMAGE.key], self.options)}

    def serving_model(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model, nn.Softmax(dim=1))

    def example_input(self) -> Batch:
        return {IMAGE.key: torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))}


def changed(images: Tensor, options: DigitsOptions) -> Tensor:
    """Every image turned, shifted and zoomed a little, each by its own amount."""

    def chance(limit: float) -> Tensor:
        # drawn on the CPU: the same on every device
        return torch.empty(len(images)).uniform_(-limit, limit).to(images.device)

    turn = torch.deg2rad(chance(options.turn_degrees))
    zoom = 1 + chance(options.zoom)
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    row_x = torch.stack([cos, -sin, chance(options.shift)], dim=1)
    row_y = torch.stack([sin, cos, chance(options.shift)], dim=1)
    grid = functional.affine_grid(
        torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]
