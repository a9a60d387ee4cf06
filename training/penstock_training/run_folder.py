"""A run's folder: what its processes and their launcher tell each other, and what stays of the run.

    run.json        the configuration as it runs: with the versions of the tables, and the size of micro-batches
    metrics.jsonl   the curve
    checkpoints/    what the run goes on from
    lake/           what tables without versions of their own looked like when the run began
    outcome.json    how it ended; processes that are started anew for a run that has failed leave at once
    stop            somebody wants it to stop

Imports no torch: the launcher and those that leave at once have no use for it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from penstock.errors import ConfigError
from penstock_training.checkpoint_folder import CheckpointFolder, write_synced
from penstock_training.config import TrainConfig
from penstock_training.tracking import Status


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    step: int
    text: str = ""
    """Of a failed one: why. Of the others: how good it was."""


@dataclass(frozen=True)
class Run:
    """What a start is about."""

    given: TrainConfig
    """The configuration as the file has it: what later starts are compared with."""
    config: TrainConfig
    """The same, with the versions of tables and the size of micro-batches that the run has found."""
    source: Path
    """The file."""


class RunFolder:
    """Its files, by what they are for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints")
        self.metrics = path / "metrics.jsonl"
        self.lake = path / "lake"
        self._run = path / "run.json"
        self._outcome = path / "outcome.json"
        self._crash = path / "crash.json"
        self._stop = path / "stop"

    @contextmanager
    def opened(self, *, alone: bool) -> Iterator[None]:
        """Makes it. Raises ConfigError where it can't be made, or, `alone`, while somebody else trains there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"run.folder: {self.path} can't be written: {error.strerror}"
            ) from error
        with lock:
            if alone and not _locks(lock):
                raise ConfigError(f"run.folder: another run trains in {self.path}")
            yield

    def begin(self, run: Run) -> None:
        """Before the processes start."""
        for left in (self._outcome, self._crash, self._stop):
            left.unlink(missing_ok=True)
        self.write(run)

    def write(self, run: Run) -> None:
        """What the processes read, and a later start."""
        values = {
            "source": str(run.source),
            "given": run.given.model_dump(mode="json", by_alias=True),
            "config": run.config.model_dump(mode="json", by_alias=True),
        }
        write_synced(self._run, json.dumps(values, indent=1))

    def read(self) -> Run:
        """What was written last."""
        values = json.loads(self._run.read_text())
        given = TrainConfig.model_validate(values["given"])
        config = TrainConfig.model_validate(values["config"])
        return Run(given, config, Path(values["source"]))

    def earlier(self) -> Run | None:
        """The run that began here before."""
        try:
            return self.read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{self._run}: not a run of this version: {error}") from error

    def want_stop(self) -> None:
        """Its processes notice within a second, wherever they are."""
        self._stop.touch()

    def stop_wanted(self) -> bool:
        return self._stop.exists()

    def end(self, outcome: Outcome) -> None:
        """Whoever is first has the say."""
        if not self._outcome.exists():
            write_synced(self._outcome, json.dumps(asdict(outcome)))

    def outcome(self) -> Outcome | None:
        """None: it has not ended, or nobody could say how."""
        try:
            return Outcome(**json.loads(self._outcome.read_text()))
        except (OSError, ValueError):
            return None

    def fail(self, text: str) -> None:
        """It can't go on, and starting it again would not help."""
        newest = self.checkpoints.newest()
        self.end(Outcome("failed", 0 if newest is None else newest.step, text))

    def stop_or_fail(self, text: str) -> None:
        """The processes are gone: as was wanted, or not."""
        newest = self.checkpoints.newest()
        step = 0 if newest is None else newest.step
        if self.stop_wanted():
            self.end(Outcome("stopped", step, f"after step {step}"))
        self.end(Outcome("failed", step, f"{text}; --resume goes on after step {step}"))

    def crashed_before(self, text: str) -> bool:
        """A process raises an error: was it the same the last time, with no checkpoint since?"""
        newest = self.checkpoints.newest()
        now = {"step": 0 if newest is None else newest.step, "text": text}
        try:
            before = json.loads(self._crash.read_text())
        except (OSError, ValueError):
            before = None
        write_synced(self._crash, json.dumps(now))
        return bool(before == now)


def _locks(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
