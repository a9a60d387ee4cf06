"""Models of the tensorrt backend: an ONNX file, of which an engine is built where TensorRT and a GPU are, and which
ONNX Runtime runs where they are not."""

from __future__ import annotations

from pathlib import Path

from model_files import write_onnx

CONFIG = """\
backend: "tensorrt"
max_batch_size: 8
"""


def write(folder: Path) -> None:
    """The model of the conformance tests: SUM = A + B and SCALED = A * 2, FP32 of 4."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    tensor = ("FP32", ["batch", 4])
    write_onnx(
        folder,
        [("Add", ["A", "B"], ["SUM"]), ("Add", ["A", "A"], ["SCALED"])],
        {"A": tensor, "B": tensor},
        {"SUM": tensor, "SCALED": tensor},
    )
