"""Trains the digits model and writes what is served: 1/model.onnx, labels.txt and samples/.

    pip install torch==2.13.0 scikit-learn onnx onnxruntime pillow
    python model_repo/digits/train.py

Takes half a minute on a CPU, and gives the same weights each time on one machine. A quarter of the
images is held out before anything else: it is looked at once, at the end. Settings may be chosen by
the validation images alone.
"""

# ruff: noqa: T201 - a script prints
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

SEED = 7
EPOCHS = 120
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
MAX_TURN_DEGREES = 12.0
MAX_SHIFT = 0.2
"""Of half the image: up to 0.8 pixels."""
MAX_ZOOM = 0.12


def split(part: float, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(rest, part) of the images and of the labels: stratified, the same each time."""
    return train_test_split(images, labels, test_size=part, stratify=labels, random_state=SEED)


class Digits(nn.Module):
    """[n, 1, 8, 8] in 0..1 (ink is 1) → [n, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *self._conv(1, 32),
            *self._conv(32, 32),
            nn.MaxPool2d(2),
            *self._conv(32, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 2 * 2, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, 10),
        )

    @staticmethod
    def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def augment(images: Tensor) -> Tensor:
    """Turns, shifts and zooms every image a little, each by its own amount."""
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return torch.empty(n).uniform_(-limit, limit)

    turn = torch.deg2rad(uniform(MAX_TURN_DEGREES))
    zoom = 1 + uniform(MAX_ZOOM)
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    row_x = torch.stack([cos, -sin, uniform(MAX_SHIFT)], dim=1)
    row_y = torch.stack([sin, cos, uniform(MAX_SHIFT)], dim=1)
    grid = functional.affine_grid(
        torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def train(images: Tensor, labels: Tensor) -> Digits:
    """One pass of one-cycle AdamW."""
    model = Digits().train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            logits = model(augment(images[rows]))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Digits, images: Tensor, labels: Tensor) -> str:
    """`98.5 % (443 of 450)`."""
    right = int((model(images).argmax(dim=1) == labels).sum())
    return f"{right / len(labels):.2%} ({right} of {len(labels)})"


@torch.no_grad()
def export(model: Digits, images: Tensor) -> None:
    """Writes 1/model.onnx, softmax included, and labels.txt; compares ONNX with torch."""
    path = HERE / "1" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    scorer = nn.Sequential(model, nn.Softmax(dim=1)).eval()
    torch.onnx.export(
        scorer,
        (images[:1],),
        str(path),
        input_names=["IMAGE"],
        output_names=["SCORES"],
        dynamic_axes={"IMAGE": {0: "batch"}, "SCORES": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = torch.from_numpy(session.run(None, {"IMAGE": images.numpy()})[0])
    print(f"ONNX differs from torch by {(scores - scorer(images)).abs().max():.1e} at most")
    (HERE / "labels.txt").write_text("\n".join(NAMES) + "\n")


def write_samples(images: Tensor, labels: Tensor) -> None:
    """All held-out images as held_out.npz; the first of each digit as <name>.png, enlarged."""
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    pixels = (images * 16).to(torch.uint8).numpy()
    np.savez_compressed(folder / "held_out.npz", IMAGE=pixels, label=labels.numpy().astype("u1"))
    for digit, name in enumerate(NAMES):
        first = images[labels == digit][0, 0]
        picture = Image.fromarray((first * 255).round().to(torch.uint8).numpy())
        crisp = picture.resize((64, 64), Image.Resampling.NEAREST)
        crisp.save(folder / f"{name}.png", optimize=True)


def main() -> None:
    """Trains, reports, exports."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # how many share a sum changes its last bits, and so the weights
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    images, test_images, labels, test_labels = split(0.25, images, torch.tensor(digits.target))
    images, check_images, labels, check_labels = split(0.15, images, labels)
    model = train(images, labels)
    print(f"validation: {accuracy(model, check_images, check_labels)}")
    print(f"held-out test: {accuracy(model, test_images, test_labels)}")
    export(model, test_images)
    write_samples(test_images, test_labels)


if __name__ == "__main__":
    main()
