"""A real `mlflow server` on loopback, over SQLite and a folder of artifacts, which can be killed and started again."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from free_ports import free_port
from supervised import eventually

QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Nothing of a test leaves this machine."""
NO_JOBS: Final = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Four processes for what no test asks of it."""
START_S: Final = 90.0
"""MLflow takes its time, and makes its tables first."""


class MlflowServer:
    """Ends with `close`."""

    def __init__(self, **environment: str) -> None:
        """`environment`: further variables of the server, such as those that registry webhooks need."""
        self._folder = tempfile.TemporaryDirectory(prefix="pm-")
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store_uri = f"sqlite:///{self.folder}/mlflow.db"
        """The same runs and models without the server."""
        self._environment = {**os.environ, **QUIET, **NO_JOBS, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with all that it knew before."""
        artifacts = self.folder / "artifacts"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--backend-store-uri", self.store_uri),
            *("--artifacts-destination", artifacts.as_uri()),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # uvicorn's own children go with it
                start_new_session=True,
            )
        try:
            eventually(self._answers, "mlflow does not start", START_S)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        """Have it take connections, and answer nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stop`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, and forget all."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
