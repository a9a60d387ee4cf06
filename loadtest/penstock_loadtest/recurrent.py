"""A recurrent network over tokens, of the size of a small classifier: embeddings, a GRU, and a mean under the mask.

Its time goes into one step after the other, which costs nearly the same for one text as for many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WORDS: Final = 20000
UNITS: Final = 128
GATES: Final = 3


def write_recurrent(path: Path) -> None:
    """Write the network as ONNX, with random weights that are always the same."""
    generator = np.random.default_rng(1)
    weights = {
        "words": generator.normal(size=(WORDS, UNITS)),
        "input_weights": generator.normal(size=(1, GATES * UNITS, UNITS)) / UNITS**0.5,
        "state_weights": generator.normal(size=(1, GATES * UNITS, UNITS)) / UNITS**0.5,
    }
    initializers = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    initializers += [numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (0, 1, 2)]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["by_step"], perm=[1, 0, 2]),
        helper.make_node(
            "GRU", ["by_step", "input_weights", "state_weights"], ["states"], hidden_size=UNITS
        ),
        helper.make_node("Squeeze", ["states", "axis1"], ["of_steps"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["weights"], ["weights_by_step"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["weights_by_step", "axis2"], ["wide"]),
        helper.make_node("Mul", ["of_steps", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis0"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "axis0"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["embedding"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", UNITS])]
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
