"""What is on its way to MLflow: a thread sends it in order, and tries again for as long as the registry is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.errors import PenstockError
from penstock_training.metric_journal import MetricJournal
from penstock_training.mlflow_link import code_of, is_final, pauses, told
from penstock_training.mlflow_run import MAX_BATCH, MlflowRun

PERIOD_S: Final = 1.0
"""Metrics are gathered for so long, then sent together."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """Something other than metrics to tell. It may be begun several times."""

    what: str
    run: Callable[[], None]


class Outbox:
    """One run's."""

    def __init__(self, run: MlflowRun, journal: MetricJournal, name: str) -> None:
        """`name`: what people know the registry by."""
        self._run: Final = run
        self._journal: Final = journal
        self._name: Final = name
        self._tasks: Final[deque[Task]] = deque()
        self._wake: Final = threading.Event()
        self._ending: Final = threading.Event()
        self._drained: Final = threading.Event()
        self._given_up: Final = threading.Event()
        self._reason = ""
        self._thread: Final = threading.Thread(target=self._send_all, name="mlflow", daemon=True)

    @property
    def reason(self) -> str:
        """Why nothing can be sent; empty: it can, or nobody knows yet."""
        return self._reason

    def start(self, first: Task) -> None:
        """Begin. Nothing is sent before the first task is done."""
        self._tasks.append(first)
        self._thread.start()

    def put(self, task: Task) -> None:
        """It is done when its turn comes: metrics that were noted before are sent before."""
        self._tasks.append(task)
        self._wake.set()

    def drain(self, seconds: float) -> bool:
        """Wait until all is sent, and end. Returns False where it is not in time: what is left stays where it is."""
        self._ending.set()
        self._wake.set()
        if self._drained.wait(seconds):
            self._thread.join()
            return True
        # the run's folder may be another process's soon
        self._given_up.set()
        self._wake.set()
        return False

    def _send_all(self) -> None:
        waits = pauses()
        while not self._given_up.is_set():
            ending = self._ending.is_set()
            try:
                self._send()
            except Exception as error:
                if not _may_pass(error):
                    self._reason = told(error)
                    log.exception("nothing is sent to %s any more", self._name)
                    return
                self._away(error)
                self._rest(next(waits))
                continue
            self._back()
            waits = pauses()
            if ending:
                self._drained.set()
                return
            self._rest(PERIOD_S)

    def _send(self) -> None:
        """All that there is. Raises what MLflow raises while it is away."""
        while True:
            task = self._tasks[0] if self._tasks else None
            if self._run.run_id:
                self._send_metrics()
            if task is None:
                return
            self._do(task)
            self._tasks.popleft()

    def _send_metrics(self) -> None:
        while self._journal.unsent_bytes:
            entries, place = self._journal.unsent(MAX_BATCH)
            if not entries:
                return
            # done with before the next turn
            self._do(Task("note metrics", lambda: self._run.log(entries)))  # noqa: B023
            self._journal.advance(place)

    def _do(self, task: Task) -> None:
        """What MLflow will never take is said, and left out."""
        try:
            task.run()
        except Exception as error:
            if not is_final(error):
                raise
            log.error("%s refuses to %s: %s", self._name, task.what, told(error))  # noqa: TRY400

    def _rest(self, seconds: float) -> None:
        """Unless somebody waits."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _away(self, error: Exception) -> None:
        if not self._reason:
            log.warning(
                "%s is away: the training goes on, and its metrics are kept until it is back (%s)",
                *(self._name, told(error)),
            )
        self._reason = told(error)

    def _back(self) -> None:
        if self._reason:
            log.info("%s is back, and has all metrics", self._name)
        self._reason = ""


def _may_pass(error: Exception) -> bool:
    """Whether it is the registry's, or the network's, trouble."""
    return bool(code_of(error)) or isinstance(error, (OSError, PenstockError))
