"""Weights, optimizer and state of a run, written by all processes together and read by any number of them."""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from penstock_training.checkpoint_folder import CheckpointFolder, Mark
from penstock_training.config import CheckpointSettings
from penstock_training.errors import CheckpointError
from penstock_training.state import State
from penstock_training.world import World, new_gloo_group


@dataclass(frozen=True)
class _Writing:
    """A checkpoint that a thread writes while the training goes on."""

    state: State
    result: Future[Any]


class Checkpoints:
    """Saves and restores. All processes call the same methods in the same order."""

    def __init__(
        self,
        folder: CheckpointFolder,
        settings: CheckpointSettings,
        config: Mapping[str, Any],
        world: World,
        on_saved: Callable[[Path, int], None],
    ) -> None:
        self._folder, self._settings, self._config = folder, settings, config
        self._world, self._on_saved = world, on_saved
        self._writing: _Writing | None = None
        _be_content_alone()
        # what a thread says to the others must not get between what the training says
        separate = settings.asynchronous and world.size > 1
        self._aside = new_gloo_group() if separate else world.control
        if world.is_first:
            folder.sweep()
            folder.path.mkdir(parents=True, exist_ok=True)

    def newest_step(self) -> int | None:
        """Of those that are complete."""
        newest = self._folder.newest()
        return None if newest is None else newest.step

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
        """Raises CheckpointError in all processes where it could not be written; older ones stay as they are."""
        self.wait()
        tensors = _tensors(model, optimizer)
        writer = FileSystemWriter(self._folder.part(state.step))
        if self._settings.asynchronous:
            result = async_save(tensors, storage_writer=writer, process_group=self._aside)
            assert isinstance(result, Future)
            self._writing = _Writing(state, result)
            return
        error = _error_of(lambda: save(tensors, storage_writer=writer, process_group=self._aside))
        self._finish(state, error)

    def poll(self) -> None:
        """Gives a checkpoint its name that was written meanwhile."""
        if self._writing is not None and self._world.told(self._writing.result.done()):
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        if (writing := self._writing) is not None:
            self._writing = None
            self._finish(writing.state, _error_of(writing.result.result))

    def _finish(self, state: State, error: BaseException | None) -> None:
        """All have written, or failed."""
        failed = next((text for text in self._world.all_of(_told(error)) if text), "")
        if not failed and self._world.is_first:
            failed = _told(_error_of(lambda: self._seal(state)))
        if failed := self._world.told(failed):
            if self._world.is_first:
                shutil.rmtree(self._folder.part(state.step), ignore_errors=True)
            raise self._unwritten(state.step, failed)

    def _seal(self, state: State) -> None:
        sealed = self._folder.seal(state, self._config, self._world.size)
        self._folder.prune(self._settings.keep, state.best.step)
        self._on_saved(sealed, state.step)

    def _unwritten(self, step: int, reason: str) -> CheckpointError:
        free = shutil.disk_usage(self._folder.path).free
        newest = self.newest_step()
        kept = "there is no older one" if newest is None else f"the one of step {newest} is kept"
        return CheckpointError(
            f"{self._folder.path}: the checkpoint of step {step} can't be written: {reason} "
            f"({free / 2**20:,.0f} MiB are free); {kept}"
        )


def restore(mark: Mark, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> State:
    """Model and optimizer are as they were, in whatever parts this number of processes has them."""
    tensors = _tensors(model, optimizer)
    _load(mark, tensors, world.control)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=tensors["model"],
        optim_state_dict=tensors["optimizer"],
    )
    return mark.state


def restore_model(mark: Mark, model: nn.Module) -> None:
    """The whole model in this process alone, on the CPU."""
    tensors = {"model": model.state_dict()}
    _load(mark, tensors, None, alone=True)
    model.load_state_dict(tensors["model"])


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, optimizing = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": optimizing}


def _load(
    mark: Mark, tensors: dict[str, Any], group: dist.ProcessGroup | None, *, alone: bool = False
) -> None:
    _be_content_alone()
    reader = FileSystemReader(mark.folder)
    try:
        load(tensors, storage_reader=reader, process_group=group, no_dist=alone)
    except (CheckpointException, RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{mark.folder} does not fit this recipe's model and optimizer: {_told(error)}"
        ) from error


def _be_content_alone() -> None:
    """torch warns of each checkpoint that a single process reads or writes."""
    warnings.filterwarnings(
        "ignore", message="torch.distributed is disabled, unavailable or uninit"
    )


def _error_of(action: Callable[[], Any]) -> BaseException | None:
    try:
        action()
    except (CheckpointException, RuntimeError, OSError) as error:
        return error
    return None


def _told(error: BaseException | None) -> str:
    """The cause, in a line: torch's own errors carry those of all processes, with their traces."""
    if error is None:
        return ""
    causes = list(_causes(error))
    full = next((c for c in causes if isinstance(c, OSError) and c.errno == errno.ENOSPC), None)
    first = full or causes[-1]
    if isinstance(first, OSError):
        return first.strerror or str(first)
    return " ".join(str(first).split("\n")[0].split()) or type(first).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, CheckpointException):
        for inner, _ in error.failures.values():
            yield from _causes(inner)
    if (cause := error.__cause__ or error.__context__) is not None:
        yield from _causes(cause)
