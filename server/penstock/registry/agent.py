"""`python -m penstock.registry.agent`: the process that talks to MLflow, which no other has to import or wait for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock.config import Settings
from penstock.errors import ConfigError, Unavailable
from penstock.logs import configure_logging
from penstock.redaction import redacted
from penstock.registry.bringing import Bringing
from penstock.registry.cache import Cache
from penstock.registry.counter import Counter
from penstock.registry.desk import Desk
from penstock.registry.entries import RepositoryEntry, find_entries
from penstock.registry.messages import SOCKET
from penstock.registry.source import Registry
from penstock.registry.view import View
from penstock.registry_config import RegistrySettings
from penstock.secrets.source import SecretSource
from penstock.workers.gateway_environment import SETTINGS_FILE

log = logging.getLogger(__name__)

LAST_WORDS_S: Final = 2.0
"""How long the agent may take at the end to say that nothing is served any more."""
QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def main() -> int:
    """Serve one gateway after the other until SIGTERM."""
    settings = Settings.read(Path(os.environ[SETTINGS_FILE]))
    configure_logging(settings.log_settings, sys.stderr, worker="registry")
    # Ctrl-C reaches the whole foreground group; the supervisor says when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(QUIET)
    os.environ.update(patience(settings.registry.timeout_secs))
    try:
        asyncio.run(_run(settings))
    except (OSError, ConfigError) as error:
        log.error("the registry agent can't go on: %s", error)  # noqa: TRY400
        return 1
    return 0


async def _run(settings: Settings) -> None:
    registry, run_dir = settings.registry, settings.run_dir or Path()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    with contextlib.closing(SecretSource(settings.secrets)) as secrets:
        uri, problem = _uri(registry, secrets)
        cache = Cache(registry.cache_path, uri)
        bringing = Bringing(cache, View(registry.view_of(run_dir)), int(registry.cache_size))
        desk = Desk(
            registry.refs,
            _finder(settings),
            _connector(registry, secrets, uri, problem),
            bringing,
            uri=redacted(uri),
            poll_s=registry.poll_secs,
        )
        counter = Counter(
            desk, bringing.view, server_id(settings) if registry.report_deployment else ""
        )
        async with await asyncio.start_unix_server(counter.serve, run_dir / SOCKET):
            working = [asyncio.ensure_future(desk.run()), asyncio.ensure_future(counter.run())]
            ending = asyncio.ensure_future(stopping.wait())
            await asyncio.wait([*working, ending], return_when=asyncio.FIRST_COMPLETED)
            failed = [e for task in working if task.done() and (e := task.exception()) is not None]
            for error in failed:
                log.error("the registry agent can't go on", exc_info=error)
            if not failed:
                await counter.say_stopped(LAST_WORDS_S)
            # threads may wait for the network still, and nothing that they do is lost
            logging.shutdown()
            os._exit(1 if failed else 0)


def server_id(settings: Settings) -> str:
    """What this server is called in tags."""
    return settings.registry.server_id or f"{socket.gethostname()}:{settings.http_port}"


def _uri(registry: RegistrySettings, secrets: SecretSource) -> tuple[str, str]:
    """The registry's URI, and why it is not known."""
    if registry.uri_secret is None:
        return registry.default_uri, ""
    try:
        return secrets.get(registry.uri_secret).text().strip(), ""
    except ConfigError as error:
        # what was fetched by it goes on, but where that is nobody knows without it
        return str(registry.uri_secret), str(error)


def _finder(settings: Settings) -> Callable[[], list[RepositoryEntry]]:
    """Entries of repositories: in mode none, as they are at the start."""
    first: list[list[RepositoryEntry]] = []

    def find() -> list[RepositoryEntry]:
        if settings.model_control_mode == "none" and first:
            return first[0]
        first[:] = [find_entries(settings.model_repository)]
        return first[0]

    return find


def _connector(
    registry: RegistrySettings, secrets: SecretSource, uri: str, problem: str
) -> Callable[[], Registry]:
    """Imports MLflow when it is first called."""

    def connect() -> Registry:
        if problem:
            raise Unavailable(problem)
        _show_credentials(registry, secrets)
        import mlflow

        from penstock.registry.mlflow_registry import MlflowRegistry

        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return MlflowRegistry(
            uri, registry.artifact_folders, lambda: _show_credentials(registry, secrets)
        )

    return connect


def _show_credentials(registry: RegistrySettings, secrets: SecretSource) -> None:
    """MLflow looks for them in the environment, each time. Raises ConfigError."""
    given = {
        "MLFLOW_TRACKING_TOKEN": registry.token,
        "MLFLOW_TRACKING_USERNAME": registry.username,
        "MLFLOW_TRACKING_PASSWORD": registry.password,
    }
    for name, reference in given.items():
        if reference is not None:
            os.environ[name] = secrets.get(reference).text().strip()
    if registry.ca_file is not None:
        os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(registry.ca_file)


def patience(timeout_s: float) -> dict[str, str]:
    """MLflow's own is minutes, several times over."""
    seconds = str(max(math.ceil(timeout_s), 1))
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": seconds,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
