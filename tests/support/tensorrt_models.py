"""Models of the tensorrt backend: an ONNX file, of which an engine is built where TensorRT and a GPU are, and which
ONNX Runtime runs where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from model_files import write_onnx
from penstock.types import Array

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


def write_picky(folder: Path) -> None:
    """X, INT64 [1], gives the row of that number of a table of 4 rows as Y. ONNX Runtime fails for numbers far off."""
    path = write_onnx(
        folder,
        [("Squeeze", ["X", "one"], ["row"]), ("Gather", ["table", "row"], ["Y"])],
        {"X": ("INT64", ["batch", 1])},
        {"Y": ("FP32", ["batch", 4])},
    )
    model = onnx.load(path)
    table = np.repeat(np.arange(4, dtype=np.float32)[:, None], 4, axis=1)
    arrays: dict[str, Array] = {"table": table, "one": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    onnx.save(model, path)
    (folder / "config.pbtxt").write_text(CONFIG)
