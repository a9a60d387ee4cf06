"""`penstock-train register`: the end of a run that is trained, done again or for the first time: when the registry was
away, when something was killed, or when other gates are to hold."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from penstock.errors import ConfigError
from penstock_training import companions
from penstock_training.checkpoint import restore_model
from penstock_training.checkpoint_folder import Mark
from penstock_training.config import TrainConfig
from penstock_training.config_sources import load_config
from penstock_training.finish import finish_run
from penstock_training.finished import FinishedRun
from penstock_training.mlflow_link import connect, persistently
from penstock_training.mlflow_tracker import tracker_of
from penstock_training.recipe import Recipe, Splits
from penstock_training.recipe_loading import load_recipe
from penstock_training.register import Registered
from penstock_training.run_facts import FOLDER, HOST
from penstock_training.run_folder import Outcome, Run, RunFolder
from penstock_training.tracking import RunFacts

LOOK_UP_S = 10.0


def register_again(place: str, config: Path | None = None, uri: str = "") -> Registered | None:
    """Finish the run of that folder, or of that id in MLflow.

    `config`: whose `[tracking]` and `[register]` are to hold instead of the run's own. `uri`: the MLflow that knows the
    id, and that it is registered in; empty: where the configuration says, or MLflow's own variable for the id. Raises
    PenstockError.
    """
    given = None if config is None else load_config(config)
    if Path(place).is_dir():
        path = Path(place).absolute()
    else:
        path = folder_of(place, uri or (given.tracking.uri if given else ""))
    folder = RunFolder(path)
    run = folder.earlier()
    mark = folder.checkpoints.newest()
    if run is None or mark is None:
        raise ConfigError(f"{path}: no folder of a run that has come to a checkpoint")
    if not mark.state.done or mark.state.best.step is None:
        raise ConfigError(
            f"{path}: its training has come to step {mark.step}, and is not over: --resume goes on with it"
        )
    with folder.opened(alone=True):
        config_now = run.config if given is None else _mixed(run, given)
        return _finish(folder, run, mark, _at(config_now, uri), config or run.source)


def folder_of(run_id: str, uri: str) -> Path:
    """Where the run of that id has its folder, on this machine. Raises ConfigError, Unavailable."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError(
            f"{run_id} is no folder here; to find a run by its id in MLflow, give --uri or --config, or set "
            "MLFLOW_TRACKING_URI"
        )
    client = connect(uri)
    tags = persistently(lambda: client.get_run(run_id).data.tags, "find the run", LOOK_UP_S)
    path = Path(tags.get(FOLDER, ""))
    if not tags.get(FOLDER) or not path.is_dir():
        where = f"in {path} on {tags[HOST]}" if HOST in tags and FOLDER in tags else "nowhere known"
        raise ConfigError(
            f"the folder of run {run_id} lies {where}, and not here ({socket.gethostname()})"
        )
    return path


def _finish(
    folder: RunFolder, run: Run, mark: Mark, config: TrainConfig, source: Path
) -> Registered | None:
    """`source`: the file that `[register]` is of."""
    recipe = load_recipe(config, run.source)
    splits = recipe.datasets(companions.lake_of(config, folder.lake))
    companions.check_gates(config, recipe, splits, source)
    best = mark.state.best
    assert best.step is not None
    model = recipe.model()
    restore_model(folder.checkpoints.at(best.step), model)
    tracker = tracker_of(config)
    tracker.start(config, _facts(folder, recipe, splits, mark))
    done = FinishedRun(
        config, folder.path, recipe, splits, model.eval(), best.step, best.values, tracker
    )
    try:
        registered = finish_run(done)
    except BaseException:
        tracker.finish("failed")
        raise
    tracker.finish("finished")
    folder.begin(run)
    folder.end(Outcome("finished", mark.step, str(registered or "")))
    return registered


def _facts(folder: RunFolder, recipe: Recipe, splits: Splits, mark: Mark) -> RunFacts:
    """Of a run that has nothing left to train: MLflow keeps what it was told when it was trained."""
    return RunFacts(
        folder=folder.path,
        world_size=mark.world_size,
        device="cpu",
        parallel="none",
        micro_batch_size=recipe.config.training.micro_batch_size,
        accumulation=1,
        parameters=0,
        rows={
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        total_steps=mark.step,
        resumed_from_step=mark.step,
    )


def _at(config: TrainConfig, uri: str) -> TrainConfig:
    """With that MLflow; empty: its own."""
    if not uri:
        return config
    tracking = config.tracking.model_copy(update={"uri": uri})
    return config.model_copy(update={"tracking": tracking})


def _mixed(run: Run, given: TrainConfig) -> TrainConfig:
    """What was trained stays what it was; where it goes may change."""
    if run.given.digest() != given.digest():
        raise ConfigError(
            "the run was trained with another configuration than the one given: only [tracking] and [register] may "
            "differ"
        )
    return run.config.model_copy(
        update={"tracking": given.tracking, "register_as": given.register_as}
    )
