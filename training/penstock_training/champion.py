"""The version that is served now, run for real on the rows that the new one is judged by."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from penstock.model_digest import folder_digest
from penstock_training.errors import TrainingError
from penstock_training.export import Arrays, feeds_of, run, session
from penstock_training.gates import Champion
from penstock_training.held_out import evaluate
from penstock_training.package import onnx_file_of
from penstock_training.recipe import Batch, Dataset, Recipe
from penstock_training.register import MODEL_DIGEST
from penstock_training.registry import Registry

log = logging.getLogger(__name__)


def champion_of(
    registry: Registry, alias: str, recipe: Recipe, dataset: Dataset, folder: Path
) -> Champion | None:
    """None: the alias names no version. `folder` is used for its files, and removed. Raises what MLflow raises."""
    found = registry.by_alias(alias)
    if found is None:
        return None
    version = int(found.version)
    try:
        registry.fetch_version(version, folder)
        metrics = _metrics(folder, found.tags.get(MODEL_DIGEST, ""), recipe, dataset)
    except (TrainingError, yaml.YAMLError) as error:
        log.warning("the champion, version %d, can't be evaluated: %s", version, error)
        return Champion(version, {}, str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Champion(version, metrics)


def _metrics(folder: Path, digest: str, recipe: Recipe, dataset: Dataset) -> dict[str, float]:
    if digest and folder_digest(folder) != digest:
        raise TrainingError(f"its files are not those that were registered as {digest}")
    file = onnx_file_of(folder) if (folder / "MLmodel").exists() else None
    if file is None:
        raise TrainingError("it is no ONNX model, and only those are evaluated here")
    return dict(evaluate(recipe, predictor(recipe, file), dataset).metrics)


def predictor(recipe: Recipe, file: Path) -> Callable[[Batch], Arrays]:
    """Runs an ONNX file on batches of the recipe. Raises TrainingError where it takes or gives other tensors."""
    served = session(file)
    inputs = {each.name for each in served.get_inputs()}
    outputs = {each.name for each in served.get_outputs()}
    if inputs != set(recipe.inputs) or not outputs >= set(recipe.outputs):
        raise TrainingError(
            f"it takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}; "
            f"the recipe's models take {', '.join(recipe.inputs)} and give {', '.join(recipe.outputs)}"
        )
    return lambda batch: run(served, feeds_of(recipe, batch))
