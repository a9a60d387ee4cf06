"""The version that is served now, run for real on the rows that the new one is judged by."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from penstock.errors import PenstockError
from penstock.model_digest import folder_digest
from penstock_training import served_predictor
from penstock_training.errors import TrainingError
from penstock_training.export import Arrays, feeds_of, run, session
from penstock_training.gates import Champion
from penstock_training.held_out import evaluate
from penstock_training.recipe import Batch, Dataset, Recipe
from penstock_training.register import MODEL_DIGEST
from penstock_training.register_config import ChampionGate
from penstock_training.registry import Registry

log = logging.getLogger(__name__)


def champion_of(
    registry: Registry, gate: ChampionGate, recipe: Recipe, dataset: Dataset, folder: Path
) -> Champion | None:
    """None: the alias names no version. `folder` is used for its files, and removed. Raises what MLflow raises."""
    found = registry.by_alias(gate.alias)
    if found is None:
        return None
    version = int(found.version)
    try:
        version_dir = folder / str(version)
        registry.fetch_version(version, version_dir)
        _check_digest(version_dir, found.tags.get(MODEL_DIGEST, ""))
        predict = _predict_of(recipe, version_dir, allow_code=gate.allow_code)
        metrics = dict(evaluate(recipe, predict, dataset).metrics)
    except PenstockError as error:
        log.warning("the champion, version %d, can't be evaluated: %s", version, error)
        return Champion(version, {}, str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Champion(version, metrics)


def _check_digest(version_dir: Path, digest: str) -> None:
    if digest and folder_digest(version_dir) != digest:
        raise TrainingError(f"its files are not those that were registered as {digest}")


def _predict_of(
    recipe: Recipe, version_dir: Path, *, allow_code: bool
) -> Callable[[Batch], Arrays]:
    """ONNX files are run as the new version's is, all else as servers do."""
    file = served_predictor.onnx_file_of(version_dir)
    if file is not None:
        return predictor(recipe, file)
    return served_predictor.predictor(recipe, version_dir, allow_code=allow_code)


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
