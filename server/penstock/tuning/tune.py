"""One tuning of one model from start to end, on a server of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError, LoadFailed
from penstock.tuning.calls import Calls
from penstock.tuning.candidate import Candidate
from penstock.tuning.machine import ServerMachine, copy_of
from penstock.tuning.model import TunedModel
from penstock.tuning.private_server import private_folder, private_server
from penstock.tuning.samples import sample_inputs
from penstock.tuning.search import FINAL_TURNS, HALVED_AFTER, TURNS, Found, Goal, Search

MEASURING: Final = 0.7
"""Of the time; the rest goes into loading."""
SHORTEST_S: Final = 0.15
LONGEST_S: Final = 5.0
OVERTIME_S: Final = 30.0
"""Loading takes its time, however short the search is to be."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tuning is asked for."""

    goal: Goal
    p99_ms: float | None
    seconds: float
    concurrency: int
    cores: int
    shapes: Mapping[str, tuple[int, ...]]


async def tune(
    model: TunedModel,
    wanted: Wanted,
    on_step: Callable[[str, Sequence[Candidate]], None],
    on_slice: Callable[[], None],
) -> tuple[TunedModel, Found]:
    """The model with its complete configuration, and what was found. Raises PenstockError with one line for a
    person."""
    with private_folder() as folder:
        repository = folder / "models"
        repository.mkdir()
        async with private_server(repository, folder, wanted.cores) as port:
            calls = Calls(port)
            try:
                model = await completed(model, repository, calls)
                row = sample_inputs(model.complete, model.folder, wanted.shapes)
                space = model.space(wanted.cores)
                started = time.monotonic()
                search = Search(
                    ServerMachine(
                        repository=repository,
                        calls=calls,
                        model=model,
                        row=row,
                        concurrency=wanted.concurrency,
                        slice_s=slice_s(wanted.seconds, model, wanted.cores),
                        on_slice=on_slice,
                    ),
                    space,
                    wanted.goal,
                    wanted.p99_ms,
                    time_left=lambda: time.monotonic() - started < wanted.seconds,
                    overdue=lambda: time.monotonic() - started > longest_s(wanted.seconds),
                    on_step=on_step,
                )
                return model, await search.run(model.now)
            finally:
                await calls.close()


async def completed(model: TunedModel, repository: Path, calls: Calls) -> TunedModel:
    """With the configuration that the model's files fill in. Raises ConfigError where it can't be loaded."""
    name = f"{model.folder.name}--0"
    # nothing differs from what it says but its name
    as_it_is = replace(model, complete={"max_batch_size": 0, **model.complete})
    copy_of(as_it_is, as_it_is.now, repository / name)
    if model.text is None:
        (repository / name / model.filename).write_text(f'backend: "{model.complete["backend"]}"')
    try:
        await calls.load(name)
    except LoadFailed as error:
        raise ConfigError(f"{model.folder.name!r} can't be loaded as it is: {error}") from error
    config = await calls.config(name)
    await calls.unload(name)
    return replace(model, complete={**config, "name": model.folder.name})


def slice_s(seconds: float, model: TunedModel, cores: int) -> float:
    """How long each measurement may take, so that all fit."""
    space = model.space(cores)
    slices = 2 * FINAL_TURNS
    for step in space.steps():
        count = len(list(space.around(step, model.now)))
        if count:
            slices += HALVED_AFTER * (count + 1) + (TURNS - HALVED_AFTER) * (-(-count // 2) + 1)
    return min(max(seconds * MEASURING / slices, SHORTEST_S), LONGEST_S)


def longest_s(seconds: float) -> float:
    """After which a search that may take `seconds` ends where it is: its requests take longer than could be planned."""
    return 2 * seconds + OVERTIME_S
