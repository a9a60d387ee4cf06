"""A real supervisor over Envoy, with `tests/apps/fake_gateway.py` inside it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.config import Settings

APPS = Path(__file__).parent.parent / "apps"
MARK = "PENSTOCK_TEST_MARK"
PATIENCE_S = 60.0
"""Ends tests that hang, and fails none that a busy machine holds up."""


class Server:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, flags: tuple[str, ...], environment: dict[str, str]) -> None:
        self.folder = folder
        self.tls: ssl.SSLContext | None = None
        """What `send` speaks TLS with; None: plain text."""
        self.mark = uuid.uuid4().hex
        self.log_file = folder / "stderr"
        self.banner: list[str] = []
        (folder / "models").mkdir()
        (folder / "run").mkdir()
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        with self.log_file.open("w") as stderr:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, str(APPS / "supervise.py")),
                    *(*ports, f"--run-dir={folder / 'run'}", *flags, str(folder / "models")),
                ],
                env={**os.environ, **environment, MARK: self.mark},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    @property
    def run_dir(self) -> Path:
        (only,) = (self.folder / "run").iterdir()
        return only

    @property
    def settings(self) -> Settings:
        return Settings.read(self.run_dir / "settings.json")

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_ready(self) -> Server:
        """Until the banner is there."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.banner.append(line.rstrip("\n"))
            if "Ctrl-C stops" in line:
                return self
        pytest.fail(f"no banner: {self.log}")

    def send(
        self, target: str, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPConnection:
        """Send a request; its answer is the caller's."""
        address = ("127.0.0.1", self.settings.http_port)
        connection = (
            http.client.HTTPConnection(*address, timeout=30)
            if self.tls is None
            else http.client.HTTPSConnection(*address, timeout=30, context=self.tls)
        )
        connection.request("GET", target, headers=headers or {})
        return connection

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON body."""
        connection = self.send(target, headers)
        try:
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        return response.status, json.loads(body) if body.startswith(b"{") else body

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Exit code."""
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def eventually(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def marked(mark: str) -> list[int]:
    """The processes that inherited the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def all_gone(mark: str) -> bool:
    """Whether no process has the mark."""
    return not marked(mark)
