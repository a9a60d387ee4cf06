"""From a configuration to a run that has ended: looks at what is there, starts the engine, tells how it ended."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from penstock.errors import ConfigError
from penstock_training.config import TrainConfig, bound_values
from penstock_training.errors import CheckpointError, ProcessesLost, TrainingError
from penstock_training.run_folder import Outcome, Run, RunFolder

_ENGINES: Final = {
    "torchrun": "penstock_training.engines.torchrun",
    "ray": "penstock_training.engines.ray",
}
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def launch(config: TrainConfig, source: Path, *, resume: bool) -> Outcome:
    """Trains. Raises TrainingError where it failed, ConfigError where it can't begin."""
    folder = RunFolder(config.run.folder)
    # the machines of a run share its folder
    with folder.opened(alone=config.run.nodes == 1):
        run = taken_up(config, source.absolute(), folder, resume=resume)
        folder.begin(run)
        return _ended(run, folder)


def _ended(run: Run, folder: RunFolder) -> Outcome:
    engine = importlib.import_module(_ENGINES[run.config.run.engine])
    try:
        with _signals_stop(folder):
            engine.run(run.config.run, folder)
    except ProcessesLost as error:
        # who was asked to stop may well be killed at it
        folder.stop_or_fail(str(error))
    except KeyboardInterrupt:
        folder.stop_or_fail("interrupted")
    outcome = folder.outcome()
    if outcome is None:
        raise TrainingError("all processes have ended, and none said how")
    if outcome.status == "failed":
        raise TrainingError(outcome.text)
    return outcome


def taken_up(config: TrainConfig, source: Path, folder: RunFolder, *, resume: bool) -> Run:
    """What to start: as given, or an earlier run with what of it may change."""
    newest, earlier = folder.checkpoints.newest(), folder.earlier()
    if not resume:
        if newest is not None:
            raise ConfigError(
                f"run.folder: {folder.path} has a run that has come to step {newest.step}: --resume goes on "
                "with it, another run needs another folder"
            )
        return Run(config, config, source)
    if earlier is None:
        return Run(config, config, source)
    if newest is not None and (differing := _differing(dict(newest.config), config)):
        raise CheckpointError(
            f"{newest.folder} is of another configuration: {'; '.join(differing)}. "
            "Give what it had, or another run.folder"
        )
    # tables stay at the versions, and micro-batches at the size, with which the run began
    bound = {name: getattr(earlier.config, name) for name in ("training", "data")}
    data = bound["data"].model_copy(update={"prefetch": config.data.prefetch})
    if newest is None and _differing(dict(bound_values(earlier.given)), config):
        return Run(config, config, source)
    return Run(config, config.model_copy(update={**bound, "data": data}), source)


def _differing(before: dict[str, object], config: TrainConfig) -> list[str]:
    """`optimizer.learning_rate was 0.001, is 0.01`, …"""
    now = dict(bound_values(config))
    names = [*now, *(name for name in before if name not in now)]
    return [
        f"{name} was {_shown(before, name)}, is {_shown(now, name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _shown(values: dict[str, object], name: str) -> str:
    return repr(values[name]) if name in values else "not there"


@contextmanager
def _signals_stop(folder: RunFolder) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C asks all processes to stop after a checkpoint; the second ends them."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        folder.want_stop()
        print("stops after a checkpoint; once more: at once", file=sys.stderr, flush=True)  # noqa: T201

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
