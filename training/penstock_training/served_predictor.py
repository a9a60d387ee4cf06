"""A version of any flavour of MLflow's, run on a recipe's batches by the backend that servers run it by.

What a recipe calls its inputs and outputs, a model that was made elsewhere may call otherwise. Names decide; where both
have one input only, or a classifier's `probabilities` are all that can be meant, these are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from penstock.backends.base import Batch as ServedBatch
from penstock.backends.base import LoadedModel, LoadSpec, Outputs, RequestInfo
from penstock.backends.mlflow_model_file import has_model_file, read_model_file
from penstock.backends.registry import MODEL_FILES, backend_for, load
from penstock.errors import PenstockError
from penstock.model_config import ConfigDict
from penstock.trust.pickles import find_pickle
from penstock.types import NUMPY_DTYPES
from penstock_training.errors import TrainingError
from penstock_training.export import Array, Arrays, feeds_of
from penstock_training.recipe import Batch, Recipe

ALLOW_CODE: Final = "register.gates.champion.allow_code"
PROBABILITIES: Final = "probabilities"
"""What servers call those of a classifier of scikit-learn, or of XGBoost."""
MOST_NAMES: Final = 5
"""A table has a tensor for each of its columns."""

Predict = Callable[[Batch], Arrays]


def onnx_file_of(version_dir: Path) -> Path | None:
    """The file of a version that ONNX Runtime serves. None: another backend does. Raises PenstockError."""
    if backend_for({"name": ""}, version_dir) != "onnxruntime":
        return None
    if not has_model_file(version_dir):
        return version_dir / MODEL_FILES["onnxruntime"]
    return read_model_file(version_dir).inside("onnx", "data")


def predictor(recipe: Recipe, version_dir: Path, *, allow_code: bool) -> Predict:
    """Runs the version, whose folder is called as its number is. Raises PenstockError."""
    if (backend := backend_for({"name": ""}, version_dir)) != "mlflow":
        raise TrainingError(
            f"it is a model of the backend {backend}; models that MLflow has saved, and ONNX files, are evaluated here"
        )
    if not allow_code:
        _check_no_code(version_dir)
    return _Predictor(recipe, _loaded(version_dir))


def _check_no_code(version_dir: Path) -> None:
    """What servers would run of it only where they are told to is not run here either."""
    wanted = f"set {ALLOW_CODE} = true if you trust whoever has registered it"
    for path in sorted(each for each in version_dir.rglob("*") if each.is_file()):
        name = str(path.relative_to(version_dir))
        with path.open("rb") as file:
            if why := find_pickle(file, name):
                raise TrainingError(f"reading its {name!a} may run any code ({why}): {wanted}")
    if (flavor := read_model_file(version_dir).flavor({})) == "python_function":
        raise TrainingError(f"it is a {flavor}, which is code: {wanted}")


def _loaded(version_dir: Path) -> LoadedModel:
    spec = LoadSpec(
        model_name=version_dir.parent.name,
        version=int(version_dir.name),
        model_dir=version_dir.parent,
        config={"name": version_dir.parent.name},
        instance_name="champion",
        device="cpu",
        threads=torch.get_num_threads(),
    )
    try:
        return load(spec)
    except PenstockError:
        raise
    except Exception as error:
        # of the model's own code
        raise TrainingError(f"it can't be loaded: {type(error).__name__}: {error}") from error


class _Predictor:
    """A batch of the recipe → its outputs."""

    def __init__(self, recipe: Recipe, model: LoadedModel) -> None:
        config = model.config
        inputs = [tensor["name"] for tensor in config["input"]]
        outputs = [tensor["name"] for tensor in config["output"]]
        if not config["max_batch_size"]:
            raise TrainingError(
                "it takes one sample at a time; a model that takes batches is expected"
            )
        self._recipe = recipe
        self._model = model
        self._config = config
        self._inputs = _matched(recipe.inputs, inputs)
        self._outputs = _matched(recipe.outputs, outputs)
        if not self._outputs and recipe.class_names and len(recipe.outputs) == 1:
            wanted = PROBABILITIES if PROBABILITIES in outputs else ""
            self._outputs = {recipe.outputs[0]: wanted} if wanted else {}
        if not self._inputs or not self._outputs:
            raise TrainingError(
                f"it takes {_listed(inputs)} and gives {_listed(outputs)}; "
                f"the recipe's models take {_listed(recipe.inputs)} and give {_listed(recipe.outputs)}"
            )
        self._labels = next(iter(outputs)) if PROBABILITIES in self._outputs.values() else ""

    def __call__(self, batch: Batch) -> Arrays:
        feeds = feeds_of(self._recipe, batch)
        tensors = {tensor["name"]: tensor for tensor in self._config["input"]}
        inputs = {
            theirs: _as_taken(feeds[ours], theirs, tensors[theirs])
            for ours, theirs in self._inputs.items()
        }
        found = self._run(inputs, len(next(iter(inputs.values()))))
        if self._labels and self._labels != PROBABILITIES:
            _check_order(found[self._labels], found[PROBABILITIES], self._recipe.class_names)
        return {ours: found[theirs] for ours, theirs in self._outputs.items()}

    def _run(self, inputs: Mapping[str, Array], rows: int) -> Outputs:
        try:
            answer = self._model.execute(ServedBatch(inputs, [RequestInfo(rows)]))
        except PenstockError as error:
            raise TrainingError(f"it does not run: {error}") from error
        found = answer if isinstance(answer, Mapping) else answer[0]
        if isinstance(found, PenstockError):
            raise TrainingError(f"it does not run: {found}") from found
        return found


def _matched(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """The recipe's names → the model's. Empty: they don't fit."""
    if set(ours) <= set(theirs):
        return {name: name for name in ours}
    return {ours[0]: theirs[0]} if len(ours) == len(theirs) == 1 else {}


def _as_taken(array: Array, name: str, tensor: ConfigDict) -> Array:
    """The same values as the model takes them: in its type, and without dimensions that say nothing."""
    sizes = [int(size) for size in tensor["dims"]]
    dtype = NUMPY_DTYPES[str(tensor["data_type"]).removeprefix("TYPE_")]
    own = list(array.shape[1:])
    fits = len(sizes) == len(own) and all(
        size in (-1, have) for size, have in zip(sizes, own, strict=True)
    )
    if not fits:
        flat = len(sizes) == 1 and sizes[0] in (-1, math.prod(own))
        if not flat and [size for size in sizes if size != 1] != [
            size for size in own if size != 1
        ]:
            raise TrainingError(f"its input {name!a} has the shape {sizes}; the recipe's has {own}")
        array = array.reshape(len(array), *([math.prod(own)] if flat else sizes))
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TrainingError(f"its input {name!a} is {dtype}; the recipe's is {array.dtype}")
    return np.ascontiguousarray(array.astype(dtype, copy=False))


def _check_order(labels: Array, probabilities: Array, names: Sequence[str]) -> None:
    """A classifier has its classes in an order of its own, which its predictions tell. Raises TrainingError."""
    best = probabilities.argmax(axis=1)
    if np.issubdtype(labels.dtype, np.integer):
        agree = labels.ravel() == best
    else:
        said = [x.decode() if isinstance(x, bytes) else str(x) for x in labels.ravel()]
        agree = np.array(
            [names[place : place + 1] == (word,) for word, place in zip(said, best, strict=True)]
        )
    # not all: of some classifiers the most probable class is not always the predicted one
    if agree.mean() < 0.5:
        raise TrainingError(
            f"its classes are not the recipe's, or have another order: it predicts {labels.ravel()[0]!r} where the "
            f"most probable class of the recipe's is {names[best[0]] if best[0] < len(names) else best[0]!r}"
        )


def _listed(names: Sequence[str]) -> str:
    shown = sorted(names)[:MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
