"""One process of a run: `train` reads from its start to its end.

torchrun has `process.py` call `main`, in as many processes as the run has; Ray calls it in its workers. Its folder is
the run's, where the launcher has put the configuration.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

import torch

from penstock.cores import available_cores
from penstock.errors import PenstockError
from penstock_training import companions, seeds
from penstock_training.buffers import RunningBuffers
from penstock_training.checkpoint import Checkpoints, restore, restore_model
from penstock_training.config import TrainConfig, bound_values
from penstock_training.finished import FinishedRun
from penstock_training.learner import Learner
from penstock_training.loop import Loop
from penstock_training.optimizer import make_optimizer
from penstock_training.parallel import share
from penstock_training.plan import make_plan, settled_micro_batch
from penstock_training.precision import Precision
from penstock_training.progress import display_for, figures
from penstock_training.recipe import Recipe, Splits
from penstock_training.recipe_loading import load_recipe, told
from penstock_training.reporter import Reporter, Silent, Speaker
from penstock_training.run_folder import Outcome, Run, RunFolder
from penstock_training.state import State
from penstock_training.stopping import StopSignal
from penstock_training.tracking import RunFacts, Tracker
from penstock_training.world import World, is_loss_of_others, join, reason

EXIT_FAILED: Final = 1
LAST_WORDS_S: Final = 3.0
"""How long a process that has lost the others waits to hear why, before it says so itself."""


def train(folder: RunFolder, stop_wanted: Callable[[], bool], out: TextIO | None = None) -> None:
    """Meet the others; open rows and model; go on where an earlier start has left off; train; finish."""
    run = folder.read()
    world = join(run.config.run)
    config = _settled(folder, run, world)
    recipe, splits = _opened(config, run.source, folder)
    if world.is_first:
        companions.check_gates(config, recipe, splits, run.source)
    learner = _learner(config, recipe, len(splits.train), world)
    state = _taken_up(folder, learner)

    with _reporting(folder, learner, splits, state, out or sys.stderr) as (reporter, tracker):
        depends_on = dict(bound_values(run.given))
        checkpoints = Checkpoints(
            folder.checkpoints, config.checkpoints, depends_on, world, reporter.saved
        )
        loop = Loop(learner, splits, checkpoints, reporter, stop_wanted, state)
        done = loop.run()
        if world.is_first:
            became = _finish(folder, learner, splits, loop.state, tracker) if done else ""
            _end(folder, reporter, loop.state, done, became)


def _settled(folder: RunFolder, run: Run, world: World) -> TrainConfig:
    """The configuration with what only a start can know: rank 0 looks, and notes it for later starts."""
    training = settled_micro_batch(run.config.training, world.size)
    config = run.config.model_copy(update={"training": training})
    if world.is_first:
        lake = companions.lake_of(config, folder.lake)
        tables = {name: lake.pin(table) for name, table in config.data.tables.items()}
        data = config.data.model_copy(update={"tables": tables})
        config = config.model_copy(update={"data": data})
        folder.write(replace(run, config=config))
    settled: TrainConfig = world.told(config)
    return settled


def _opened(config: TrainConfig, source: Path, folder: RunFolder) -> tuple[Recipe, Splits]:
    """The recipe and its rows, the same in all processes."""
    if config.training.deterministic:
        seeds.be_deterministic()
    seeds.seed_all(config.training.seed, "recipe")
    recipe = load_recipe(config, source)
    return recipe, recipe.datasets(companions.lake_of(config, folder.lake))


def _learner(config: TrainConfig, recipe: Recipe, rows: int, world: World) -> Learner:
    """The model, and all that makes it learn."""
    plan = make_plan(config.training, rows, world.rank, world.size)
    seeds.seed_all(config.training.seed, "model")
    shared = share(config.training, recipe, recipe.model(), world)
    return Learner(
        config,
        world,
        plan,
        recipe,
        shared,
        make_optimizer(config.optimizer, shared.model),
        Precision(config.training, world.device),
        RunningBuffers(shared.model, plan.accumulation),
    )


def _taken_up(folder: RunFolder, learner: Learner) -> State:
    """What the newest checkpoint has, whatever number of processes wrote it; the beginning if there is none."""
    world = learner.world
    mark = world.told(folder.checkpoints.newest() if world.is_first else None)
    if mark is None:
        return State()
    state = restore(mark, learner.shared.model, learner.optimizer, world)
    learner.precision.restore(state.scaler)
    return state


@contextmanager
def _reporting(
    folder: RunFolder, learner: Learner, splits: Splits, state: State, out: TextIO
) -> Iterator[tuple[Reporter, Tracker]]:
    """Rank 0 tells terminal, `metrics.jsonl` and tracker what happens, and that it failed."""
    tracker = companions.tracker_of(learner.config, learner.world)
    if not learner.world.is_first:
        yield Silent(), tracker
        return
    facts = _facts(folder, learner, splits, state)
    display = display_for(learner.config, out)
    speaker = Speaker(learner.config, facts, folder.metrics, tracker, display)
    try:
        yield speaker, tracker
    except PenstockError as error:
        # whoever reads the outcome shows the text
        speaker.finish("failed", "")
        raise error


def _facts(folder: RunFolder, learner: Learner, splits: Splits, state: State) -> RunFacts:
    plan, world = learner.plan, learner.world
    trained = (p.numel() for p in learner.shared.model.parameters() if p.requires_grad)
    return RunFacts(
        folder=folder.path,
        world_size=world.size,
        device=world.device_name,
        parallel=learner.shared.kind,
        micro_batch_size=plan.micro_batch_size,
        accumulation=plan.accumulation,
        parameters=sum(trained),
        rows={
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        total_steps=plan.total_steps,
        resumed_from_step=state.step or None,
        restarts=world.restarts,
    )


def _finish(
    folder: RunFolder, learner: Learner, splits: Splits, state: State, tracker: Tracker
) -> str:
    """The best weights, whole and in this process, go to whoever evaluates, exports and registers them. Returns what
    came of it."""
    assert state.best.step is not None
    torch.set_num_threads(available_cores())
    model = learner.recipe.model()
    restore_model(folder.checkpoints.at(state.best.step), model)
    return companions.finish(
        FinishedRun(
            learner.config,
            folder.path,
            learner.recipe,
            splits,
            model.eval(),
            state.best.step,
            state.best.values,
            tracker,
        )
    )


def _end(folder: RunFolder, reporter: Reporter, state: State, done: bool, became: str) -> None:
    if done:
        text = (
            f"step {state.step}, the best is step {state.best.step}: {figures(state.best.values)}"
        )
        text += f"; {became}" if became else ""
        outcome = Outcome("finished", state.step, text)
    else:
        outcome = Outcome(
            "stopped", state.step, f"after step {state.step}; --resume goes on with it"
        )
    reporter.finish(outcome.status, outcome.text)
    folder.end(outcome)


def main(
    path: Path, signals: StopSignal, out: TextIO, *, last_words_s: float = LAST_WORDS_S
) -> int:
    """Says in `out` what is worth knowing. Returns the exit code: 1 has the engine start all processes anew, as often
    as it may."""
    folder = RunFolder(path)
    if folder.outcome() is not None:
        # it has ended, and is started anew only because a process has ended with 1
        return 0
    try:
        train(folder, lambda: signals.received or folder.stop_wanted(), out)
    except PenstockError as error:
        folder.fail(str(error))
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001
        if is_loss_of_others(error):
            if _is_told(folder, signals, last_words_s):
                return EXIT_FAILED
            rank = os.environ.get("RANK", "0")
            out.write(f"process {rank} has lost the others: {reason(error)}\n")
        else:
            _crash(folder, error, out)
        return EXIT_FAILED
    return 0


def _is_told(folder: RunFolder, signals: StopSignal, patience_s: float) -> bool:
    """Whether somebody who knows more says why the others are gone: the one that failed, or the launcher, which ends
    this process then. What only follows from that is not worth a word."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if signals.received or folder.outcome() is not None:
            return True
        time.sleep(0.05)
    return False


def _crash(folder: RunFolder, error: Exception, out: TextIO) -> None:
    """An error that nobody foresaw is worth another try, but not when it was the same the last time."""
    traceback.print_exception(error, file=out)
    if folder.crashed_before(told(error)):
        folder.fail(f"the same error twice: {told(error)}")
