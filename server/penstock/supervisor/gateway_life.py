"""One gateway process from its start to its end, and what it hands on to the next one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock.supervisor.child import Child, describe_exit
from penstock.supervisor.control import ControlChannel
from penstock.supervisor.front import GatewayCommand
from penstock.supervisor.liveness import (
    HttpProbe,
    PingProbe,
    ProbeTiming,
    wait_until_dead,
    wait_until_live,
)
from penstock.supervisor.oom import count_oom_kills
from penstock.supervisor.worker_processes import WorkerProcesses
from penstock.workers.channel import Channel
from penstock.workers.gateway_environment import CONTROL_FD, SETTINGS_FILE
from penstock.workers.supervisor_messages import (
    GatewayFailed,
    GatewayMessage,
    Inheritance,
    Pong,
    Report,
    StartWorker,
    StopWorker,
    SupervisorMessage,
    WorkerLoaded,
)

_ENVOY_LOG_LINE: Final = re.compile(
    r"\[[^]]*\]\[\d+\]\[(?:critical|error)\]\S* (?:\[[^]]*\] )?(.*)"
)


class GatewayLife:
    """Answers the gateway's messages until `ended` says why there is none; then `close` it."""

    def __init__(
        self,
        command: GatewayCommand,
        settings_file: Path,
        workers: WorkerProcesses,
        wanted: dict[str, bool] | None,
        on_report: Callable[[Report], None],
        timing: ProbeTiming,
    ) -> None:
        """Start the process, and hand it what an earlier one left: workers, and the models it was to serve (None: no
        earlier one said). Raises OSError when it can't be started."""
        self.command = command
        self.wanted = wanted
        """The models that the next one is to serve."""
        self.failed = False
        """Whether the gateway itself said that it can't go on."""
        self.serving = asyncio.Event()
        """Set when start-up is over and the front answers."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._on_report = on_report
        self._report = Report((), (), {})
        self._first_report = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._oom_kills = count_oom_kills()
        ours, theirs = Channel.pair()
        try:
            self.process = Child.start(
                command.argv,
                {
                    **command.environment,
                    CONTROL_FD: str(theirs.fileno()),
                    SETTINGS_FILE: str(settings_file),
                },
                cwd=command.cwd,
                pass_fds=(theirs.fileno(),),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ControlChannel(ours, self._on_message)
        self._workers = workers
        self.taken_over = workers.hand_over(self._control.send)
        """How many workers it got."""
        self.send(Inheritance(workers.next_id, wanted))
        self._probe = self._make_probe()
        self.process.exited.add_done_callback(lambda exited: self._on_exit(exited.result()))
        self._watch = asyncio.ensure_future(self._watch_liveness(timing))

    def send(self, message: SupervisorMessage) -> None:
        """To the gateway; nothing happens when it is gone."""
        self._control.send(message)

    def stop_watching(self) -> None:
        """A gateway that is being stopped need not answer probes."""
        self._watch.cancel()
        if self._opening is not None:
            self._opening.cancel()

    async def close(self) -> None:
        """End the process at once if it still runs, and wait for that. Loaded workers go on."""
        self.stop_watching()
        self.process.kill()
        await self.process.exited
        self._control.read_rest()
        self._control.close()
        self._workers.orphan()

    async def _watch_liveness(self, timing: ProbeTiming) -> None:
        self._end(await wait_until_dead(self._probe, timing, self._first_report))

    def _make_probe(self) -> HttpProbe | PingProbe:
        if self.command.probe is not None:
            return HttpProbe(self.command.probe)
        return PingProbe(self.send, self.command.address, self.command.admin)

    async def _open(self) -> None:
        """The application reports before its front listens: what is announced must be true."""
        await wait_until_live(self._probe)
        self.serving.set()
        self._on_report(self._report)

    def _on_message(self, message: GatewayMessage) -> None:
        match message:
            case StartWorker():
                # what a dead one asked for, nobody would use
                if self.process.running:
                    self._workers.start(message)
            case WorkerLoaded():
                self._workers.loaded(message)
            case StopWorker():
                self._workers.stop(message)
            case Report():
                self._take_report(message)
            case Pong():
                if isinstance(self._probe, PingProbe):
                    self._probe.take(message)
            case GatewayFailed(reason=reason):
                self.failed = True
                self._end(reason)

    def _take_report(self, report: Report) -> None:
        self._report = report
        self.wanted = report.wanted
        if self.serving.is_set():
            self._on_report(report)
        elif self._opening is None:
            self._first_report.set()
            self._opening = asyncio.ensure_future(self._open())

    def _on_exit(self, status: int) -> None:
        reason = describe_exit(status, out_of_memory=count_oom_kills() > self._oom_kills)
        said = last_error(self.command.log_file)
        self._end(f"{reason}: {said}" if said else reason)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


def last_error(log_file: Path | None) -> str:
    """The message of the last error in Envoy's log, without what only Envoy's makers understand."""
    try:
        text = log_file.read_text(errors="replace") if log_file else ""
    except OSError:
        return ""
    found = [match[1] for line in text.splitlines() if (match := _ENVOY_LOG_LINE.match(line))]
    return found[-1] if found else ""
