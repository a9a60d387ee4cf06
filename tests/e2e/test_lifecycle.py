"""Starts that can't be, readiness, and ends of all kinds."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from puppets import Gate
from served import Served, json_request
from served_models import PUPPET, XY, write_add_sub, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

BATCHED = f"max_batch_size: 8\ndynamic_batching {{ }}\n{PUPPET}"


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that must fail by itself."""
    return subprocess.run(
        [sys.executable, "-m", "penstock.cli", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_second_start_on_the_same_port(
    front: str, add_sub: Callable[..., Served], tmp_path: Path
) -> None:
    first = add_sub(front)
    for name, port in first.settings.ports().items():
        others = [f"--{n.replace('_', '-')}=0" for n in first.settings.ports() if n != name]
        flag = f"--{name.replace('_', '-')}"
        second = run_serve(str(tmp_path / "models"), f"--front={front}", f"{flag}={port}", *others)
        assert second.returncode == 1
        assert f"port {port} on 127.0.0.1 is in use" in second.stderr
        assert "Traceback" not in second.stderr
    assert first.get("/v2/health/ready").status == 200


def test_strict_readiness(front: str, serve: Callable[..., Served], tmp_path: Path) -> None:
    """A model that can't be loaded: not ready, 400 for Triton's clients and 503 for probes; the rest is served."""
    models = tmp_path / "models"
    write_add_sub(models / "add_sub")
    write_model(models / "broken", "mirror", f"max_batch_size: -1\n{XY}")
    served = serve(models, front, "--strict-readiness=true").wait_ready()
    assert served.get("/v2/health/live").status == 200
    assert served.get("/v2/health/ready").status == 400
    assert served.get("/readyz").status == 503
    assert served.get("/livez").status == 200
    assert served.get("/v2/models/add_sub/ready").status == 200


def test_exit_on_error(front: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_add_sub(models / "add_sub")
    write_model(models / "broken", "mirror", f"max_batch_size: -1\n{XY}")
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    ended = run_serve(str(models), f"--front={front}", "--exit-on-error", *ports)
    assert ended.returncode == 1
    assert "broken" in ended.stderr
    assert "max_batch_size is -1" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_answers_what_is_here(
    front: str, serve: Callable[..., Served], tmp_path: Path, number: signal.Signals
) -> None:
    """Requests under way are answered, then the server ends with 0."""
    write_model(tmp_path / "models" / "puppet", "puppet", BATCHED)
    served = serve(tmp_path / "models", front).wait_ready()
    with (
        grpc.insecure_channel(served.grpc) as channel,
        Gate(tmp_path, served, channel, "puppet") as held,
        contextlib.closing(served.start_infer("puppet", json_request(1, 2))) as over_http,
    ):
        queued = held.send()
        held.wait_queued(2)
        served.process.send_signal(number)
        eventually(lambda: "requests under way are finished" in served.log, "no stop")
        held.open()
        for future in (held.first, queued):
            assert future.result(30).model_name == "puppet"
        assert over_http.getresponse().status == 200
    assert served.process.wait(30) == 0


def test_a_second_ctrl_c_ends_at_once(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "puppet", "puppet", BATCHED)
    served = serve(tmp_path / "models", front).wait_ready()
    with (
        grpc.insecure_channel(served.grpc) as channel,
        Gate(tmp_path, served, channel, "puppet"),
    ):
        served.process.send_signal(signal.SIGINT)
        eventually(lambda: "SIGINT: stopping" in served.log, "no stop")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 130
    served.check_gone()
