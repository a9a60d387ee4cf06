"""The supervisor's own life: start, watch, restart with back-off, and stop by signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import penstock
from penstock.config import Settings
from penstock.errors import ConfigError, LoadFailed, NotFound, Unavailable
from penstock.gateway.tls_files import TlsFiles
from penstock.secrets.source import SecretSource
from penstock.secrets_config import variables_of
from penstock.supervisor.banner import Announcer
from penstock.supervisor.capture_process import capturing
from penstock.supervisor.front import CommandFactory, choose_front
from penstock.supervisor.gateway_life import GatewayLife
from penstock.supervisor.liveness import ProbeTiming
from penstock.supervisor.ports import resolve_ports
from penstock.supervisor.registry_agent import RegistryAgent, has_registry, registry_view
from penstock.supervisor.renewal import renewing
from penstock.supervisor.run_dir import run_dir
from penstock.supervisor.stopping import stop_gateway
from penstock.supervisor.tls_keeper import TlsKeeper
from penstock.supervisor.worker_processes import WorkerProcesses
from penstock.trust.memory import memory_folder
from penstock.trust.signers import check_rules
from penstock.workers.supervisor_messages import Report, TlsState

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
WORKER_GRACE_S: Final = 5.0
OPEN_FILES: Final = 65_536
"""Wanted: a connection is a descriptor."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """The supervisor's patience."""

    probe: ProbeTiming = field(default_factory=ProbeTiming)
    first_delay_s: float = 0.1
    """Before the start after a second quick crash in a row; doubles with each further one. After the first: none."""
    longest_delay_s: float = 5.0
    quick_s: float = 60.0
    """A gateway that ends earlier than this has crashed quickly."""
    quick_crashes: int = 5
    """So many in a row end the server."""


class Supervisor:
    """Runs one server. Create one, `await run()` once, from the main thread's event loop."""

    def __init__(
        self,
        settings: Settings,
        out: TextIO,
        gateway: CommandFactory | None = None,
        timing: Timing | None = None,
    ) -> None:
        """`out` gets the banner. `gateway` and `timing` are for tests."""
        self._settings = settings
        self._out = out
        self._factory = gateway
        self._timing = timing or Timing()
        self._stop_asked = asyncio.Event()
        self._killed = False
        self._life: GatewayLife | None = None
        self._workers = WorkerProcesses(variables_of(settings))
        self._tls: TlsKeeper | None = None
        self._registry: RegistryAgent | None = None
        self._crashed_at: float | None = None
        """Since when there is no gateway that serves."""
        self._not_loaded: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve until a signal. Returns the exit code.

        Raises ConfigError for what the command line has to change, other PenstockErrors when the
        server can't start or can't go on.
        """
        factory = self._factory or self._choose_front()
        _check_repositories(self._settings)
        check_rules(self._settings.artifacts)
        with_registry = has_registry(self._settings)
        settings = resolve_ports(self._settings)
        _raise_open_files()
        with (
            run_dir(settings.run_dir) as folder,
            memory_folder(settings.artifacts, folder),
            registry_view(settings, folder) if with_registry else contextlib.nullcontext(),
            self._signals(),
        ):
            settings = settings.model_copy(update={"run_dir": folder})
            async with renewing(settings.tls, settings.secrets), capturing(settings):
                return await self._run(settings, folder, factory)

    async def _run(self, settings: Settings, folder: Path, factory: CommandFactory) -> int:
        with contextlib.closing(SecretSource(settings.secrets)) as secrets:
            keeping = self._keep_tls(settings, folder, secrets)
            try:
                return await self._serve(settings, folder, factory)
            except asyncio.CancelledError:
                if not self._killed:
                    raise
                return EXIT_INTERRUPTED
            finally:
                if keeping is not None:
                    keeping.cancel()
                if self._life is not None:
                    await self._life.close()
                await self._workers.stop_all(0)
                if self._registry is not None:
                    await self._registry.close()

    def _keep_tls(
        self, settings: Settings, folder: Path, secrets: SecretSource
    ) -> asyncio.Task[None] | None:
        """Begin to follow the files of certificates. Raises ConfigError when they are no good."""
        if not settings.tls.enabled:
            return None
        self._tls = TlsKeeper(settings.tls, TlsFiles.of_run(folder), secrets)
        self._tls.open()
        self._tls.on_change = self._on_tls
        keeping = asyncio.create_task(self._tls.run())
        keeping.add_done_callback(_say_why)
        return keeping

    def _on_tls(self, state: TlsState) -> None:
        if self._life is not None:
            self._life.send(state)

    def _choose_front(self) -> CommandFactory:
        factory, why_not_envoy = choose_front(self._settings)
        if why_not_envoy:
            _log.warning("%s", why_not_envoy)
        return factory

    async def _serve(self, settings: Settings, folder: Path, factory: CommandFactory) -> int:
        """Start gateways one after the other until one is stopped on purpose."""
        settings_file = folder / "settings.json"
        with _writing(folder):
            settings.write(settings_file)
        if settings.registry.view_of(folder).is_dir():
            self._registry = RegistryAgent(settings, settings_file)
        with _writing(folder):
            command = factory(settings, folder)
        announcer = Announcer(settings, command.front, penstock.__version__, self._out)
        crashes = 0
        wanted: dict[str, bool] | None = None
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._life = life = GatewayLife(
                command,
                settings_file,
                self._workers,
                wanted,
                lambda report: self._on_report(announcer, report),
                self._timing.probe,
            )
            if self._tls is not None:
                life.send(self._tls.state)
            await _first(life.ended, self._not_loaded, self._stop_asked)
            if self._stop_asked.is_set() or self._not_loaded.done():
                return await self._stop(life, settings)
            await life.close()
            wanted = life.wanted
            self._crashed_at = loop.time()
            crashes = 1 if loop.time() - started > self._timing.quick_s else crashes + 1
            delay_s = self._next_delay(life, crashes, ever_served=announcer.shown)
            _log.error("the gateway ended: %s. It is started again.", life.ended.result())
            await _first(self._stop_asked, timeout_s=delay_s)
            if self._stop_asked.is_set():
                await self._workers.stop_all(WORKER_GRACE_S)
                return EXIT_OK

    def _on_report(self, announcer: Announcer, report: Report) -> None:
        if self._crashed_at is not None and self._life is not None:
            gap_s = asyncio.get_running_loop().time() - self._crashed_at
            kept = self._life.taken_over
            _log.info("the gateway serves again, %.2f s later; %d workers went on", gap_s, kept)
            self._crashed_at = None
        first = not announcer.shown
        announcer.show(report)
        bad = [m for m in report.models if m.state == "UNAVAILABLE"]
        if first and bad and self._settings.exit_on_error and not self._not_loaded.done():
            names = "; ".join(f"{m.name}/{m.version}: {m.reason}" for m in bad)
            self._not_loaded.set_result(names)

    async def _stop(self, life: GatewayLife, settings: Settings) -> int:
        clean = await stop_gateway(life, settings.exit_timeout_secs)
        await self._workers.stop_all(WORKER_GRACE_S)
        if self._not_loaded.done() and not self._stop_asked.is_set():
            raise LoadFailed(f"--exit-on-error: can't be loaded: {self._not_loaded.result()}")
        return EXIT_OK if clean else EXIT_FAILED

    def _next_delay(self, life: GatewayLife, crashes: int, *, ever_served: bool) -> float:
        """Seconds until the next start. Raises Unavailable when there should be none."""
        reason = life.ended.result()
        if life.failed:
            raise Unavailable(reason)
        if not ever_served:
            raise Unavailable(f"the gateway did not start: {reason}")
        if crashes >= self._timing.quick_crashes:
            raise Unavailable(f"the gateway ended {crashes} times in a row, at last: {reason}")
        if crashes == 1:
            return 0
        delay_s: float = self._timing.first_delay_s * 2 ** (crashes - 2)
        return min(delay_s, self._timing.longest_delay_s)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        numbers = [signal.SIGTERM, signal.SIGINT]
        # nohup has it ignored: that must stay so
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number, task)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals, task: asyncio.Task[int]) -> None:
        if not self._stop_asked.is_set():
            _log.info("%s: stopping, requests under way are finished", number.name)
            self._stop_asked.set()
        elif number == signal.SIGINT and not self._killed:
            _log.warning("stopped at once: requests under way are dropped")
            self._killed = True
            if self._life is not None:
                self._life.process.kill()
            self._workers.kill_all()
            if self._registry is not None:
                self._registry.kill()
            task.cancel()


async def _first(
    *events: asyncio.Future[str] | asyncio.Event, timeout_s: float | None = None
) -> None:
    """Wait until one of them is set or done."""
    waits = [
        e if isinstance(e, asyncio.Future) else asyncio.ensure_future(e.wait()) for e in events
    ]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for event, wait in zip(events, waits, strict=True):
            if wait is not event:
                wait.cancel()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the run needs is written to its folder. Raises Unavailable where that can't be."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise Unavailable(f"run_dir: {where} can't be written: {error.strerror}") from error


def _say_why(task: asyncio.Task[None]) -> None:
    """Serving goes on without it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("TLS: certificates are not followed any more", exc_info=error)


def _check_repositories(settings: Settings) -> None:
    if not settings.model_repository and not settings.registry.models:
        raise ConfigError(
            "no model repository was given: penstock serve FOLDER, or penstock serve models:/NAME@ALIAS"
        )
    for folder in settings.model_repository:
        try:
            next(folder.iterdir(), None)
        except FileNotFoundError:
            raise NotFound(f"model repository {folder}: there is no such folder") from None
        except OSError as error:
            raise Unavailable(f"model repository {folder}: {error.strerror}") from error


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
