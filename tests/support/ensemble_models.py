"""Ensembles for the end-to-end tests, and the models of their steps."""

from __future__ import annotations

import shutil
from pathlib import Path

from ensemble_configs import ensemble, pbtxt, step, tensor
from penstock.model_config import ConfigDict
from served_models import PUPPET, write_model
from stateful_models import write_tally

MODEL_REPO = Path(__file__).parent.parent.parent / "model_repo"
BATCHED = "max_batch_size: 8\ndynamic_batching { }"
X = {"input": [tensor("X", dims=[-1])]}
FLOATS = [-1]

READER = ensemble(
    step("pixels", "SHADES=SHADES", "IMAGE=image"),
    step("digits", "IMAGE=image", "SCORES=SCORES"),
    step("winner", "SCORES=SCORES", "NAME=DIGIT"),
    name="reader",
    input=[tensor("SHADES", "TYPE_UINT8", [8, 8])],
    output=[tensor("SCORES", dims=[10]), tensor("DIGIT", "TYPE_STRING")],
)
"""A pipeline: Python, ONNX, Python."""

BRANCHES = ensemble(
    step("left", "X=X", "Y=LEFT"),
    step("right", "X=X", "Y=RIGHT"),
    name="branches",
    **X,
    output=[tensor("LEFT", dims=FLOATS), tensor("RIGHT", dims=FLOATS)],
)
"""Two puppets side by side."""

CHAIN = ensemble(
    step("doubled", "X=X", "Y=twice"),
    step("puppet", "X=twice", "Y=Y TOLD=TOLD"),
    name="chain",
    **X,
    max_batch_size=4,
    output=[tensor("Y", dims=FLOATS), tensor("TOLD", "TYPE_STRING")],
)

OUTER = ensemble(
    step("chain", "X=X", "Y=twice"),
    step("doubled", "X=twice", "Y=Y"),
    name="outer",
    **X,
    max_batch_size=4,
    output=[tensor("Y", dims=FLOATS)],
)
"""An ensemble of an ensemble."""

SUMS = ensemble(
    step("tally", "X=X", "SUM=SUM"),
    name="sums",
    max_batch_size=4,
    input=[tensor("X")],
    output=[tensor("SUM")],
)
"""Of a stateful model."""

LOST = ensemble(step("absent", "X=IN", "X=OUT"), name="lost")
"""Its model is not there."""


def write_ensemble(folder: Path, config: ConfigDict) -> None:
    """As a repository has it: its version's folder is empty."""
    path = folder / config["name"]
    (path / "1").mkdir(parents=True)
    (path / "config.pbtxt").write_text(pbtxt(config))


def write_ensembles(folder: Path) -> None:
    """All of these."""
    for name in ("left", "right", "puppet"):
        write_model(folder / name, "puppet", f"{BATCHED}\n{PUPPET}")
    write_model(folder / "doubled", "doubled", None)
    shutil.copytree(MODEL_REPO / "digits", folder / "digits")
    write_model(
        folder / "pixels",
        "pixels",
        BATCHED + '\ninput [ { name: "SHADES" data_type: TYPE_UINT8 dims: [ 8, 8 ] } ]'
        '\noutput [ { name: "IMAGE" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] } ]',
    )
    write_model(
        folder / "winner",
        "winner",
        BATCHED + '\ninput [ { name: "SCORES" data_type: TYPE_FP32 dims: [ 10 ] } ]'
        '\noutput [ { name: "NAME" data_type: TYPE_STRING dims: [ 1 ] } ]',
    )
    write_tally(folder / "tally", "direct { }")
    for config in (READER, BRANCHES, CHAIN, OUTER, SUMS, LOST):
        write_ensemble(folder, config)
