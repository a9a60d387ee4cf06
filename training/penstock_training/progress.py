"""What a person sees of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from penstock_training.config import TrainConfig
from penstock_training.tracking import RunFacts, Status


class Display(Protocol):
    """Told by the reporter."""

    def start(self, config: TrainConfig, facts: RunFacts) -> None: ...

    def at(self, step: int, losses: Sequence[float], samples_per_s: float) -> None: ...

    def learned(
        self, step: int, loss: float, rate: float, metrics: Mapping[str, float]
    ) -> None: ...

    def evaluating(self, step: int) -> None: ...

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None: ...

    def saved(self, step: int) -> None: ...

    def say(self, text: str) -> None: ...

    def finish(self, status: Status, text: str) -> None: ...


def display_for(config: TrainConfig, stream: TextIO) -> Display:
    """Bars if the configuration wants them, or says nothing and there is a terminal."""
    wanted = config.progress.bars
    if stream.isatty() if wanted is None else wanted:
        return Bars(stream)
    return Lines(stream)


class Lines:
    """One line for each point of the curve, at most one a second, and one for each evaluation."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._total = 0
        self._samples_per_s = 0.0
        self._shown = float("-inf")

    def start(self, config: TrainConfig, facts: RunFacts) -> None:
        self._total = facts.total_steps
        self.say(opening_line(config, facts))

    def at(self, step: int, losses: Sequence[float], samples_per_s: float) -> None:
        self._samples_per_s = samples_per_s

    def learned(self, step: int, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._shown >= 1:
            self._shown = now
            told = figures({"loss": loss, **metrics})
            speed = f"  {self._samples_per_s:,.0f} samples/s" if self._samples_per_s else ""
            self.say(f"step {step}/{self._total}  {told}  rate {rate:.2e}{speed}")

    def evaluating(self, step: int) -> None: ...

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None:
        self.say(
            f"step {step}/{self._total}  validation: {figures(values)}{'  (best)' if best else ''}"
        )

    def saved(self, step: int) -> None: ...

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def finish(self, status: Status, text: str) -> None:
        if text:
            self.say(f"{status}: {text}")


class Bars:
    """A bar that lives, and a line for each evaluation above it."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._speed = ""

    def start(self, config: TrainConfig, facts: RunFacts) -> None:
        self.say(opening_line(config, facts))
        self._task = self._bar.add_task(
            "training", total=facts.total_steps, completed=facts.resumed_from_step or 0, told=""
        )
        self._bar.start()

    def at(self, step: int, losses: Sequence[float], samples_per_s: float) -> None:
        self._speed = f"  {samples_per_s:,.0f}/s"
        self._update(completed=step, description="training")

    def learned(self, step: int, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        self._update(told=figures({"loss": loss, **metrics}) + self._speed)

    def evaluating(self, step: int) -> None:
        self._update(completed=step, description="evaluating")

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None:
        mark = "  [green]best[/]" if best else ""
        self._console.print(f"step {step}  validation: {figures(values)}{mark}")
        self._update(description="training")

    def saved(self, step: int) -> None: ...

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def finish(self, status: Status, text: str) -> None:
        self._bar.stop()
        if text:
            self.say(f"{status}: {text}")

    def _update(self, **values: object) -> None:
        if self._task is not None:
            self._bar.update(self._task, **values)  # type: ignore[arg-type]


def opening_line(config: TrainConfig, facts: RunFacts) -> str:
    """What is about to run, in a line."""
    processes = (
        "1 process" if facts.world_size == 1 else f"{facts.world_size} processes ({facts.parallel})"
    )
    batch = f"batch {config.training.batch_size} = {facts.world_size} x {facts.accumulation} x {facts.micro_batch_size}"
    if facts.resumed_from_step is None:
        begin = f"{facts.total_steps} steps"
    else:
        begin = f"goes on after step {facts.resumed_from_step} of {facts.total_steps}"
    again = f", restart {facts.restarts}" if facts.restarts else ""
    return (
        f"{config.recipe.name}: {facts.parameters:,} weights, {facts.rows['train']:,} rows, {batch}, "
        f"{processes} on {facts.device}, {begin}{again}"
    )


def figures(values: Mapping[str, float]) -> str:
    """`loss 0.0312  accuracy 0.9871`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
