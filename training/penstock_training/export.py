"""From a trained model to an ONNX file that does the same, and the proof that it does."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penstock_training.errors import RegistrationError
from penstock_training.recipe import Batch, Dataset, Recipe

BATCH: Final = "batch"
"""Name of the first dimension of all inputs and outputs."""
ROWS: Final = 256
"""Samples that are compared at once."""
ODD: Final = (1, 3)
"""Further sizes of batches that are tried: an export that has one size burnt in is found out."""
MAX_PROTO_BYTES: Final = 2**31 - 1

Array = NDArray[Any]
Arrays = Mapping[str, Array]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the ONNX file is from the trained model, over all samples that were tried."""

    samples: int
    largest: float
    """Largest difference of two values; infinite: one has NaN or infinity where the other has not."""
    relative: float
    """The same, as a share of the largest value of that output."""
    by_output: Mapping[str, float]
    """`largest` of each output."""


def export_onnx(recipe: Recipe, serving: nn.Module, opset: int, path: Path) -> None:
    """Write the file, which appears as a whole. Raises RegistrationError."""
    example = _example(recipe)
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                serving,
                tuple(example.values()),
                input_names=list(example),
                output_names=list(recipe.outputs),
                opset_version=opset,
                dynamic_shapes=tuple({0: torch.export.Dim(BATCH)} for _ in example),
                dynamo=True,
                verbose=False,
                optimize=True,
            )
    except Exception as error:
        text = f"torch can't export the model to ONNX: {_cause(error)}"
        raise RegistrationError(text) from error
    if program is None:
        raise RegistrationError("torch has exported nothing")
    _write(_cleaned(program.model_proto), path)


def add_metadata(path: Path, properties: Mapping[str, str]) -> None:
    """Write properties into the file: it says where it comes from wherever it goes."""
    proto = onnx.load(path, load_external_data=False)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(properties))
    _write(proto, path)


def check_signature(path: Path, recipe: Recipe) -> None:
    """Names are the recipe's, and the batch is as large as it likes. Raises RegistrationError."""
    graph = onnx.load(path, load_external_data=False).graph
    for what, values, names in (
        ("input", graph.input, recipe.inputs),
        ("output", graph.output, recipe.outputs),
    ):
        found = tuple(value.name for value in values)
        if found != tuple(names):
            raise RegistrationError(f"the export has the {what}s {found}; expected {tuple(names)}")
        for value in values:
            dims = value.type.tensor_type.shape.dim
            if not dims or not dims[0].dim_param:
                raise RegistrationError(
                    f"the first dimension of the exported {what} {value.name!a} is not the batch: the model "
                    "computes with a fixed number of samples"
                )


def session(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU. Raises RegistrationError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # its errors have no base class of their own
        raise RegistrationError(f"ONNX Runtime can't load the model: {_cause(error)}") from error


def run(found: onnxruntime.InferenceSession, feeds: Arrays) -> dict[str, Array]:
    """Outputs by name. Raises RegistrationError."""
    try:
        outputs = found.run(None, dict(feeds))
    except Exception as error:
        # as above
        raise RegistrationError(f"ONNX Runtime can't run the model: {_cause(error)}") from error
    names = (output.name for output in found.get_outputs())
    return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}


def compare(recipe: Recipe, serving: nn.Module, path: Path, dataset: Dataset) -> Difference:
    """Run both on all samples of a dataset. Raises RegistrationError."""
    served = session(path)
    largest: dict[str, float] = dict.fromkeys(recipe.outputs, 0.0)
    magnitude: dict[str, float] = dict.fromkeys(recipe.outputs, 0.0)
    count = 0
    for batch in _batches(dataset):
        feeds = feeds_of(recipe, batch)
        expected = torch_outputs(recipe, serving, batch)
        found = run(served, feeds)
        count += len(next(iter(feeds.values())))
        for name in recipe.outputs:
            error, size = _distance(name, found[name], expected[name])
            largest[name] = max(largest[name], error)
            magnitude[name] = max(magnitude[name], size)
    relative = max(largest[name] / (magnitude[name] or 1.0) for name in largest)
    return Difference(count, max(largest.values()), relative, largest)


def batches(dataset: Dataset, rows: int = ROWS) -> Iterator[Batch]:
    """All samples, in order."""
    for start in range(0, len(dataset), rows):
        yield dataset.fetch(torch.arange(start, min(start + rows, len(dataset))))


def feeds_of(recipe: Recipe, batch: Batch) -> dict[str, Array]:
    """The model's inputs, as arrays."""
    return {name: batch[name].detach().cpu().numpy() for name in recipe.inputs}


def torch_outputs(recipe: Recipe, serving: nn.Module, batch: Batch) -> dict[str, Array]:
    """What the trained model says. Raises RegistrationError where it does not say what the recipe promises."""
    try:
        with torch.no_grad():
            outputs = serving(*(batch[name] for name in recipe.inputs))
    except Exception as error:
        # a recipe's own code
        text = f"the recipe's serving_model fails on test rows: {_cause(error)}"
        raise RegistrationError(text) from error
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    if len(outputs) != len(recipe.outputs):
        raise RegistrationError(
            f"the recipe's serving_model gives {len(outputs)} outputs; expected {', '.join(recipe.outputs)}"
        )
    return {
        name: output.float().numpy() if output.dtype == torch.bfloat16 else output.numpy()
        for name, output in zip(recipe.outputs, outputs, strict=True)
    }


def _batches(dataset: Dataset) -> Iterator[Batch]:
    yield from batches(dataset)
    for rows in ODD:
        if len(dataset) >= rows:
            yield dataset.fetch(torch.arange(rows))


def _example(recipe: Recipe) -> dict[str, Tensor]:
    batch = recipe.example_input()
    if missing := [name for name in recipe.inputs if name not in batch]:
        raise RegistrationError(f"the recipe's example_input lacks {', '.join(missing)}")
    found = {name: batch[name] for name in recipe.inputs}
    if any(len(value) < 2 for value in found.values()):
        # torch takes a size of one for something else than a batch
        found = {name: torch.cat([value, value]) for name, value in found.items()}
    return found


def _distance(name: str, found: Array, expected: Array) -> tuple[float, float]:
    """The largest difference, and the largest value."""
    if found.shape != expected.shape:
        raise RegistrationError(
            f"the output {name!a} of the ONNX file has the shape {found.shape}; "
            f"the trained model gives {expected.shape}"
        )
    if not np.issubdtype(expected.dtype, np.floating):
        differs = bool(np.any(found != expected))
        return float(differs), 1.0
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(theirs)
    if not np.array_equal(np.isfinite(ours), finite):
        return float("inf"), 1.0
    if not finite.any():
        return 0.0, 0.0
    return float(np.abs(ours - theirs)[finite].max()), float(np.abs(theirs[finite]).max())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """What one part of torch has to say about another, and about packages that nobody needs."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _cleaned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter notes of each node: paths and source lines of the machine it ran on."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in nodes:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    return proto


def _write(proto: onnx.ModelProto, path: Path) -> None:
    if proto.ByteSize() > MAX_PROTO_BYTES:
        raise RegistrationError("the model is over 2 GiB: more than one ONNX file holds")
    draft = path.with_name(f".{path.name}")
    onnx.save_model(proto, draft)
    os.replace(draft, path)


def _cause(error: BaseException) -> str:
    """The innermost reason, in one line: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:500] or type(error).__name__
