"""The tracker that notes runs in MLflow. A thread of its own does all that may wait: the training never does, and a
registry that is away costs it nothing. What could not be sent lies in the run's folder until somebody can take it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from penstock.errors import ConfigError, Unavailable
from penstock.redaction import redacted
from penstock.trust.signing import write_whole
from penstock_training.config import TrainConfig
from penstock_training.errors import RegistrationError
from penstock_training.metric_journal import MetricJournal
from penstock_training.mlflow_run import MlflowRun
from penstock_training.outbox import Outbox, Task
from penstock_training.run_facts import Opening, opening
from penstock_training.signing import signer_of
from penstock_training.system_metrics import SystemMetrics
from penstock_training.tracking import NoTracker, RunFacts, Status, Tracker

FOLDER: Final = "tracking"
"""In the run's folder."""
TRAINED: Final = "registration.lock"
"""In the run's folder, from the moment when its training is over."""
STATUS: Final[Mapping[Status, str]] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}

log = logging.getLogger(__name__)


def tracker_of(config: TrainConfig) -> Tracker:
    """The one that the configuration asks for. Raises ConfigError, also where the end of the run would find out only
    after hours that nothing can be registered."""
    if config.register_as is not None:
        if not config.tracking.uri:
            raise ConfigError(
                "[register] needs tracking.uri: an MLflow server or store, such as sqlite:///mlflow.db"
            )
        signer_of(config.register_as)
    return MlflowTracker() if config.tracking.uri else NoTracker()


class MlflowTracker:
    """See `Tracker`. Beside it: `settled`, for those who register the run in MLflow."""

    def __init__(self) -> None:
        self._session: _Session | None = None

    def start(self, config: TrainConfig, facts: RunFacts) -> None:
        """Raises OSError where the run's folder can't be written."""
        self._session = _Session(config, facts)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """A line in a file. Raises OSError."""
        self._started.journal.add(step, values)

    def checkpoint(self, folder: Path, step: int) -> None:
        """A tag says where it lies; where it is to be uploaded, a copy of links is kept until it is."""
        self._started.checkpoint(folder, step)

    def finish(self, status: Status) -> None:
        """Sends what is left, for as long as the settings say, and says what stays here."""
        if self._session is not None:
            self._session.close(status)
            self._session = None

    def settled(self) -> MlflowRun:
        """The run, with all that was told until now. Raises Unavailable, RegistrationError."""
        return self._started.settled()

    @property
    def _started(self) -> _Session:
        if self._session is None:
            raise RegistrationError("the run is not tracked: its tracker could not be started")
        return self._session


class _Session:
    """From start to finish."""

    def __init__(self, config: TrainConfig, facts: RunFacts) -> None:
        self._config: Final = config
        self._facts: Final = facts
        self._settings: Final = config.tracking
        self._folder: Final = facts.folder / FOLDER
        self._name: Final = redacted(self._settings.uri)
        self._opening: Opening | None = None
        self._system: SystemMetrics | None = None
        self.journal: Final = MetricJournal(self._folder)
        self._run: Final = MlflowRun(self._settings, self._folder)
        self._outbox: Final = Outbox(self._run, self.journal, self._name)
        self._outbox.start(Task("open the run", self._open))
        if self._settings.system_metrics_secs:
            self._system = SystemMetrics(self._settings.system_metrics_secs, self._log_system)

    def checkpoint(self, folder: Path, step: int) -> None:
        place = str(folder.absolute())
        tags = {"penstock.checkpoint": place, "penstock.checkpoint.step": str(step)}
        self._outbox.put(Task("note a checkpoint", lambda: self._run.set_tags(tags)))
        if self._settings.checkpoints == "upload":
            kept = self._folder / "uploads" / f"step-{step}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, copy_function=_link)
            self._outbox.put(Task("upload a checkpoint", lambda: self._upload(kept, step)))

    def settled(self) -> MlflowRun:
        done = threading.Event()
        self._outbox.put(Task("send what is left", done.set))
        if not done.wait(self._settings.finish_secs):
            # the reason was told when it went away
            reason = "" if self._outbox.reason else ": it does not answer"
            raise Unavailable(f"{self._name} can't be reached{reason}")
        if not self._run.run_id:
            raise RegistrationError(f"{self._name} has refused the run; the log says why")
        return self._run

    def close(self, status: Status) -> None:
        if self._system is not None:
            self._system.close()
        self._outbox.put(Task("end the run", lambda: self._run.end(STATUS[status])))
        if self._outbox.drain(self._settings.finish_secs):
            return
        log.warning(
            "%s %s: what it has not got of this run, %d bytes of metrics, is kept in %s; "
            "`penstock-train register %s` sends it",
            *(self._name, "is still away" if self._outbox.reason else "does not answer"),
            *(self.journal.unsent_bytes, self._folder, self._facts.folder),
        )

    def _open(self) -> None:
        if self._opening is None:
            self._opening = self._gathered()
        self._run.open()
        self._run.describe(self._opening)

    def _gathered(self) -> Opening:
        """Code and machine as they are now, not when the registry is back; where nothing is left to train, as they were
        when it was."""
        path = self._folder / "opening.json"
        if (self._facts.folder / TRAINED).exists() and path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Opening)
        found = opening(self._config, self._facts)
        write_whole(path, msgspec.json.encode(found))
        return found

    def _log_system(self, values: Mapping[str, float]) -> None:
        step = max(map(self.journal.next_step, values), default=0)
        self.journal.add(step, values)

    def _upload(self, kept: Path, step: int) -> None:
        self._run.upload(kept, f"checkpoints/step-{step}")
        shutil.rmtree(kept)


def _link(source: str, target: str) -> None:
    """A second name costs nothing, and outlives the first."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
