"""Small real models that give back what their images were made to: PLANES."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock_kernels.images import ImageRecipe
from served_models import write_config, write_model
from uneven_models import write_onnx_text

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)

RECIPES: Final = {
    "image_onnx": ImageRecipe(3, 12, 10, MEAN, STD, shorter_side=14),
    "image_python": ImageRecipe(1, 9, 7, antialias=False),
}
"""What the models' images are made to. The second one doesn't batch."""

CROPPED: Final = {
    "resize": "crop",
    "shorter_side": "14",
    "mean": "0.485, 0.456, 0.406",
    "std": "0.229, 0.224, 0.225",
}


def image_lines(keys: Mapping[str, str]) -> str:
    """What is said of the input IMAGE, as config.pbtxt has it."""
    return "\n".join(
        f'parameters {{ key: "image.IMAGE.{key}" value {{ string_value: "{value}" }} }}'
        for key, value in keys.items()
    )


def write_image_models(folder: Path, batching: str = "") -> None:
    """All of RECIPES. `batching`: more for the config.pbtxt of the one that batches."""
    write_image_onnx(
        folder / "image_onnx", f"max_batch_size: 8\n{batching}\n{image_lines(CROPPED)}"
    )
    planes = "data_type: TYPE_FP16 dims: [ 1, {} ]"
    write_model(
        folder / "image_python",
        "planes",
        f'input [ {{ name: "IMAGE" {planes.format("-1, 7")} }} ]\n'
        f'output [ {{ name: "PLANES" {planes.format("9, 7")} }} ]\n'
        + image_lines({"resize": "stretch", "antialias": "false", "size": "9, 7"}),
    )


def write_image_onnx(model_dir: Path, config: str) -> None:
    """The model whose inputs and outputs are left to its file."""
    shape = "float[n, 3, 12, 10]"
    text = f"planes ({shape} IMAGE) => ({shape} PLANES) {{ PLANES = Identity (IMAGE) }}"
    write_onnx_text(model_dir, text)
    write_config(model_dir, f'backend: "onnxruntime"\n{config}')
