"""Servers: started on free ports, awaited, and ended with all their children."""

from __future__ import annotations

import select
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_loadtest import cpu, servers
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.servers import Penstock, Ports, Triton, free_ports, pidfds, running

READY = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"],
    start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v2/health/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Script:
    """A server that is a few lines of Python; its argument is the HTTP port."""

    code: str
    name: str = "script"

    def command(self, repository: Path, ports: Ports) -> list[str]:
        return [sys.executable, "-c", self.code, str(ports.http)]


def ended(process: int) -> bool:
    """Whether the process of this pidfd has ended."""
    return bool(select.select([process], [], [], 0)[0])


def test_a_server_is_ready_inside_and_gone_with_its_children_after(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with running(Script(READY), tmp_path, tmp_path / "log") as server:
            family = pidfds(cpu.members(server.pid), stack)
            assert [ended(process) for process in family] == [False, False]
            assert server.http_url == f"http://127.0.0.1:{server.ports.http}"
        assert [ended(process) for process in family] == [True, True]


def test_the_server_ends_where_the_benchmark_fails(tmp_path: Path) -> None:
    family: list[int] = []
    with ExitStack() as stack:
        with (
            pytest.raises(ZeroDivisionError),
            running(Script(READY), tmp_path, tmp_path / "log") as server,
        ):
            family += pidfds(cpu.members(server.pid), stack)
            raise ZeroDivisionError
        assert [ended(process) for process in family] == [True, True]


def test_a_server_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    script = Script("import sys; sys.exit('no such model')")
    with (
        pytest.raises(BenchmarkError, match=r"script ended with 1 before.*\nno such model"),
        running(script, tmp_path, tmp_path / "log"),
    ):
        pass


def test_a_server_that_is_never_ready_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "READY_TIMEOUT_S", 0.1)
    with (
        pytest.raises(BenchmarkError, match="script not ready"),
        running(Script("import signal; signal.pause()"), tmp_path, tmp_path / "log"),
    ):
        pass


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    triton = Triton(tmp_path / "nowhere")
    with (
        pytest.raises(BenchmarkError, match=r"can't start .*nowhere/triton.sh: No such file"),
        running(triton, tmp_path, tmp_path / "log"),
    ):
        pass


def test_ports_differ() -> None:
    ports = free_ports()
    assert len({ports.http, ports.grpc, ports.metrics}) == 3


def test_commands(tmp_path: Path) -> None:
    ports = Ports(1, 2, 3)
    penstock = Penstock(("penstock",), ("--front", "grpcio"))
    assert " ".join(penstock.command(Path("repo"), ports)) == (
        "penstock serve repo --http-port 1 --grpc-port 2 --metrics-port 3 --front grpcio"
    )
    assert Triton(tmp_path).command(Path("repo"), ports) == [
        str(tmp_path / "triton.sh"),
        "repo",
        *"123",
        "--",
    ]
