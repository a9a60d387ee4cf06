"""A whole `penstock serve` in processes of its own, and the raw ways to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from penstock.config import Settings
from penstock.types import Array
from supervised import MARK, PATIENCE_S, all_gone, eventually, marked

FRONTS: Final = ("envoy", "grpcio")
REGION_PREFIX: Final = "penstock-test-"
MODELS_PREFIX: Final = f"penstock-models-{os.getuid()}-"
"""Of folders of decrypted models."""
END_OF_BANNER: Final = "Ctrl-C stops"
OTHERS: Final = ("penstock.workers.main", "penstock.registry.agent")
"""Processes beside the gateway."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole HTTP response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's text. Fails on a response that is none."""
        text = self.json["error"]
        assert isinstance(text, str)
        return text


class Served:
    """A server on free ports. `close` ends it and checks that nothing is left."""

    def __init__(
        self,
        repository: Path,
        front: str,
        *flags: str,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.front = front
        self.tls: ssl.SSLContext | None = None
        """What `request` speaks TLS with; None: plain text."""
        self.mark = uuid.uuid4().hex
        # pytest's own folders are too deep for Unix sockets
        self._folder = tempfile.TemporaryDirectory(prefix="pt-")
        self.folder = Path(self._folder.name)
        self._shm = shared_memory()
        self._models = ""
        """Its own folder of decrypted models, if it has one."""
        self._out, self._err = self.folder / "stdout", self.folder / "stderr"
        (self.folder / "run").mkdir()
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        own = [*ports, f"--front={front}", f"--run-dir={self.folder / 'run'}"]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli", "serve", str(repository), *own, *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd or self.folder,
                env={**os.environ, **(environment or {}), MARK: self.mark},
                start_new_session=True,
            )

    # ── its life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def wait_ready(self, patience_s: float = PATIENCE_S) -> Served:
        """Until the banner is complete."""
        eventually(self._banner_or_end, "no banner", patience_s)
        if END_OF_BANNER not in self.banner:
            pytest.fail(f"the server ended with {self.process.returncode}: {self.log}")
        run_dir = self.run_dir
        self._models = MODELS_PREFIX + run_dir.name
        self.settings = Settings.read(run_dir / "settings.json")
        self.http = f"127.0.0.1:{self.settings.http_port}"
        self.grpc = f"127.0.0.1:{self.settings.grpc_port}"
        return self

    def _banner_or_end(self) -> bool:
        return END_OF_BANNER in self.banner or self.process.poll() is not None

    @property
    def run_dir(self) -> Path:
        (only,) = (self.folder / "run").iterdir()
        return only

    @property
    def banner(self) -> str:
        return self._out.read_text()

    @property
    def log(self) -> str:
        return self._err.read_text()

    def processes(self, *words: str) -> list[int]:
        """Process ids of this server's whose command line has all the words."""
        return [pid for pid in marked(self.mark) if all(word in _command(pid) for word in words)]

    def workers(self, model: str) -> list[int]:
        """Process ids of a model's workers."""
        return self.processes("penstock.workers.main", f"--name {model}/")

    @property
    def gateway(self) -> int:
        """Process id of the gateway."""
        (pid,) = [
            pid
            for pid in self.processes()
            if pid != self.process.pid and not any(other in _command(pid) for other in OTHERS)
        ]
        return pid

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        """End it, by force if need be; nothing may be left."""
        try:
            if self.process.poll() is None:
                self.stop()
            self.check_gone()
        finally:
            for pid in marked(self.mark):
                os.kill(pid, signal.SIGKILL)
            self.process.wait(60)
            self._folder.cleanup()

    def check_gone(self) -> None:
        """Nothing is left: no process, nothing in /dev/shm."""
        eventually(lambda: all_gone(self.mark), f"processes are left: {self.log[-2000:]}")
        eventually(lambda: shared_memory() <= self._shm, "shared memory is left")
        assert not self._models or not Path("/dev/shm", self._models).exists(), self._models

    # ── talking to it ───────────────────────────────────────────────────────────────────────────────────────────────

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> HttpAnswer:
        """One HTTP request on a connection of its own. A dictionary is sent as JSON."""
        data = json.dumps(body) if isinstance(body, dict) else body
        port = port or self.settings.http_port
        connection = self._connection(port)
        try:
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return HttpAnswer(response.status, names, response.read())
        finally:
            connection.close()

    def _connection(self, port: int) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=self.tls)

    def get(self, path: str) -> HttpAnswer:
        """GET over HTTP."""
        return self.request("GET", path)

    def infer(self, model: str, body: bytes | str | dict[str, Any], **headers: str) -> HttpAnswer:
        """POST an inference request; header names with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", f"/v2/models/{model}/infer", body, named)

    def start_infer(
        self, model: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPConnection:
        """Send an inference request; its answer is the caller's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.http_port, timeout=60)
        path = f"/v2/models/{model}/infer"
        connection.request("POST", path, json.dumps(body), dict(headers or {}))
        return connection

    def metrics(self) -> dict[str, float]:
        """Sample as it is written in the metrics page, `name{labels}`, → value."""
        page = self.request("GET", "/metrics", port=self.settings.metrics_port)
        assert page.status == 200, page.body
        lines = (line for line in page.body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def metric(self, name: str, model: str, **labels: str) -> float:
        """The one sample of that name, model and labels."""
        wanted = [f'model="{model}"', *(f'{key}="{value}"' for key, value in labels.items())]
        (value,) = (
            value
            for sample, value in self.metrics().items()
            if re.match(rf"{name}\{{", sample) and all(label in sample for label in wanted)
        )
        return value

    def statistics(self, model: str) -> dict[str, Any]:
        """The model's row of the statistics extension."""
        (row,) = self.get(f"/v2/models/{model}/stats").json["model_stats"]
        assert isinstance(row, dict)
        return row

    def index(self) -> dict[tuple[str, str], dict[str, str]]:
        """(model, version) → line of the repository index."""
        lines = msgspec.json.decode(
            self.request("POST", "/v2/repository/index").body, type=list[dict[str, str]]
        )
        return {(line["name"], line["version"]): line for line in lines}


def json_tensor(name: str, array: Array, datatype: str = "FP32") -> dict[str, Any]:
    """An input as JSON."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def json_request(*rows: float, **fields: Any) -> dict[str, Any]:
    """A request of one row for X, and further fields."""
    return {"inputs": [json_tensor("X", np.array([rows], np.float32))], **fields}


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def shared_memory() -> set[str]:
    """Names in /dev/shm, but for those that other test runs on this machine made with `region_key`, and that servers
    keep decrypted models under."""
    names = {path.name for path in Path("/dev/shm").iterdir()}
    others = (REGION_PREFIX, MODELS_PREFIX)
    return {name for name in names if name.startswith(_own_prefix()) or not name.startswith(others)}


def region_key(name: str) -> str:
    """The key of a client's shared-memory region, which says whose it is."""
    return f"/{_own_prefix()}{name}"


def _own_prefix() -> str:
    return f"{REGION_PREFIX}{os.getpid()}-"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
