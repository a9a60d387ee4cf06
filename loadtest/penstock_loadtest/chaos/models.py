"""The models of a chaos run: each makes Y = 2 X + 1, exactly, so that any answer can be checked."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx.parser

POISON: Final = -666.0
"""A first value that makes a worker of the model `frail` kill itself."""

SOURCE: Final = """
    import json, os, signal, time
    from pathlib import Path

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def initialize(self, args):
            parameters = json.loads(args["model_config"])["parameters"]
            self.sleep_s = float(parameters["sleep_ms"]["string_value"]) / 1000
            self.mortal = args["model_name"] == "frail"
            self.generation = int((Path(__file__).parent / "generation").read_text())

        def execute(self, requests):
            inputs = [pb_utils.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
            time.sleep(self.sleep_s)
            if self.mortal and any(x.flat[0] == -666 for x in inputs):
                os.kill(os.getpid(), signal.SIGKILL)
            return [pb_utils.InferenceResponse(self.answer(x)) for x in inputs]

        def answer(self, x):
            generation = np.full((len(x), 1), self.generation, np.int32)
            return [pb_utils.Tensor("Y", x * 2 + 1), pb_utils.Tensor("GENERATION", generation)]
"""

CONFIG: Final = """
    backend: "python"
    max_batch_size: {rows}
    input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
    output [
      {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }},
      {{ name: "GENERATION" data_type: TYPE_INT32 dims: [ 1 ] }}
    ]
    instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
    dynamic_batching {{ {batching} }}
    parameters {{ key: "sleep_ms" value {{ string_value: "{sleep_ms}" }} }}
"""

GRAPH: Final = """
    <ir_version: 8, opset_import: ["": 17]>
    graph (float[batch, n] X) => (float[batch, n] Y) {
        two = Constant <value = float {2.0}> ()
        one = Constant <value = float {1.0}> ()
        doubled = Mul (X, two)
        Y = Add (doubled, one)
    }
"""

GRAPH_CONFIG: Final = """
    backend: "onnxruntime"
    max_batch_size: 16
    input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
    dynamic_batching { }
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A model as the clients must know it."""

    name: str
    instances: int
    max_rows: int
    reloaded: bool = False
    """Its counters begin anew with each load."""


AFFINE: Final = Target("affine", 2, 8)
"""The common case: two instances, batches of up to 8 rows, 2 ms each."""
GRAPH_MODEL: Final = Target("graph", 1, 16)
"""ONNX Runtime."""
ORDERED: Final = Target("ordered", 2, 4)
"""Answers leave in the order of arrival, though two instances work."""
BOUNDED: Final = Target("bounded", 1, 4)
"""20 ms a batch, and a queue of 16."""
RELOADED: Final = Target("reloaded", 2, 8, reloaded=True)
"""Loaded anew all the time; GENERATION tells which load answered."""
FRAIL: Final = Target("frail", 2, 8)
"""A poisoned request kills its worker."""
SHAKY: Final = Target("shaky", 1, 8)
"""Asked by clients whose connections are cut, or that stop to read."""

TARGETS: Final = (AFFINE, GRAPH_MODEL, ORDERED, BOUNDED, RELOADED, FRAIL, SHAKY)


def write_models(folder: Path) -> None:
    """Write all of TARGETS into a repository."""
    _write_python(folder, AFFINE, 2, "")
    _write_python(folder, ORDERED, 3, "preserve_ordering: true")
    _write_python(folder, BOUNDED, 20, "default_queue_policy { max_queue_size: 16 }")
    _write_python(folder, RELOADED, 1, "max_queue_delay_microseconds: 500")
    _write_python(folder, FRAIL, 2, "max_queue_delay_microseconds: 2000")
    _write_python(folder, SHAKY, 2, "")
    _write_graph(folder)


def write_generation(folder: Path, model: str, generation: int) -> None:
    """What the model's next load is to answer as GENERATION. Workers that start meanwhile read the old or the new."""
    path = folder / model / "1" / "generation"
    new = path.with_suffix(".new")
    new.write_text(str(generation))
    new.rename(path)


def _write_python(folder: Path, target: Target, sleep_ms: float, batching: str) -> None:
    files = folder / target.name / "1"
    files.mkdir(parents=True)
    (files / "model.py").write_text(textwrap.dedent(SOURCE))
    config = CONFIG.format(
        rows=target.max_rows, instances=target.instances, batching=batching, sleep_ms=sleep_ms
    )
    (files.parent / "config.pbtxt").write_text(textwrap.dedent(config))
    write_generation(folder, target.name, 0)


def _write_graph(folder: Path) -> None:
    files = folder / GRAPH_MODEL.name / "1"
    files.mkdir(parents=True)
    model: Any = onnx.parser.parse_model(textwrap.dedent(GRAPH))
    (files / "model.onnx").write_bytes(model.SerializeToString())
    (files.parent / "config.pbtxt").write_text(textwrap.dedent(GRAPH_CONFIG))
