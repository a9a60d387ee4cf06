"""Models of the tensorrt backend: an ONNX file, of which an engine is built where TensorRT and a GPU are, and which
ONNX Runtime runs where they are not."""

from __future__ import annotations

from pathlib import Path

from model_files import write_onnx

CONFIG = """\
backend: "tensorrt"
max_batch_size: 8
dynamic_batching { }
"""


def write(folder: Path, datatype: str = "FP32") -> None:
    """The model of the conformance tests: SUM = A + B and SCALED = A * 2, of 4 elements a row."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    write_onnx(
        folder,
        [("Add", ["A", "B"], ["SUM"]), ("Add", ["A", "A"], ["SCALED"])],
        {"A": (datatype, ["batch", 4]), "B": (datatype, ["batch", 4])},
        {"SUM": (datatype, ["batch", 4]), "SCALED": (datatype, ["batch", 4])},
    )
