"""What a run says of itself while it goes on: to the terminal, `metrics.jsonl`, and the tracker. Rank 0 says it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from penstock_training.checkpoint_folder import write_synced
from penstock_training.config import TrainConfig
from penstock_training.progress import Display
from penstock_training.tracking import RunFacts, Status, Tracker


class Reporter(Protocol):
    """Called by the loop."""

    def at(self, step: int, losses: Sequence[float]) -> None:
        """So far it has come."""
        ...

    def learned(self, step: int, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        """A point of the curve."""
        ...

    def evaluating(self, step: int) -> None: ...

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None: ...

    def saved(self, folder: Path, step: int) -> None: ...

    def finish(self, status: Status, text: str) -> None:
        """Nothing more is said."""
        ...


class Silent:
    """All ranks but the first."""

    def at(self, step: int, losses: Sequence[float]) -> None: ...

    def learned(
        self, step: int, loss: float, rate: float, metrics: Mapping[str, float]
    ) -> None: ...

    def evaluating(self, step: int) -> None: ...

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None: ...

    def saved(self, folder: Path, step: int) -> None: ...

    def finish(self, status: Status, text: str) -> None: ...


class Speaker:
    """Rank 0."""

    def __init__(
        self,
        config: TrainConfig,
        facts: RunFacts,
        metrics: Path,
        tracker: Tracker,
        display: Display,
    ) -> None:
        self._batch_size, self._facts = config.training.batch_size, facts
        self._metrics, self._tracker, self._display = metrics, tracker, display
        self._tracker_failed = False
        self._since = time.monotonic(), facts.resumed_from_step or 0
        self._samples_per_s = 0.0
        _cut(metrics, facts.resumed_from_step or 0)
        display.start(config, facts)
        self._track(lambda: tracker.start(config, facts))

    def at(self, step: int, losses: Sequence[float]) -> None:
        now, (began, first) = time.monotonic(), self._since
        if step > first:
            self._samples_per_s = (step - first) * self._batch_size / max(now - began, 1e-9)
        self._since = now, step
        self._display.at(step, losses, self._samples_per_s)

    def learned(self, step: int, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        values = {"train/loss": loss, "train/learning_rate": rate}
        values |= {f"train/{name}": value for name, value in metrics.items()}
        if self._samples_per_s:
            values["train/samples_per_s"] = self._samples_per_s
        self._note(step, values)
        self._display.learned(step, loss, rate, metrics)

    def evaluating(self, step: int) -> None:
        self._display.evaluating(step)

    def evaluated(self, step: int, values: Mapping[str, float], best: bool) -> None:
        self._note(step, {f"validation/{name}": value for name, value in values.items()})
        self._display.evaluated(step, values, best)
        # the next steps' time is theirs alone
        self._since = time.monotonic(), step

    def saved(self, folder: Path, step: int) -> None:
        self._display.saved(step)
        self._track(lambda: self._tracker.checkpoint(folder, step))
        self._since = time.monotonic(), step

    def finish(self, status: Status, text: str) -> None:
        self._display.finish(status, text)
        self._track(lambda: self._tracker.finish(status))

    def _note(self, step: int, values: dict[str, float]) -> None:
        values["epoch"] = step * self._batch_size / max(1, self._facts.rows["train"])
        with self._metrics.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._track(lambda: self._tracker.log_metrics(step, values))

    def _track(self, action: Callable[[], None]) -> None:
        """A tracker that fails does not end the training: said once, the rest is in `metrics.jsonl`."""
        try:
            action()
        except Exception as error:  # noqa: BLE001
            if not self._tracker_failed:
                self._display.say(
                    f"tracking fails, the training goes on: {type(error).__name__}: {error}"
                )
            self._tracker_failed = True


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The curve: one point a line. A line that was cut by a kill is none."""
    points: list[dict[str, float]] = []
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return points
    for line in lines:
        try:
            points.append(json.loads(line))
        except ValueError:
            continue
    return points


def _cut(path: Path, step: int) -> None:
    """Forgets the points after `step`: they are about to be made once more."""
    kept = [point for point in read_metrics(path) if point["step"] <= step]
    write_synced(path, "".join(json.dumps(point) + "\n" for point in kept))
