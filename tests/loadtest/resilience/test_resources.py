"""What processes hold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.resources import gateway_of, holdings, resident_bytes
from penstock_loadtest.servers import Ports, RunningServer

LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, int]]:
    """Process id and port of a process that listens."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


def test_a_server_holds_what_its_processes_hold(listener: tuple[int, int]) -> None:
    pid, port = listener
    held = holdings(RunningServer("script", pid, Ports(0, port, 0)))
    assert held.gateway_bytes == held.total_bytes
    assert held.processes == 1
    # standard input, output and error, and the listener
    assert held.descriptors == 4


def test_memory_of_one_that_has_gone_is_none(listener: tuple[int, int]) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert resident_bytes([gone.pid]) == 0
    assert resident_bytes([gone.pid, listener[0]]) == resident_bytes([listener[0]]) > 0


def test_the_listener_is_found_among_processes(listener: tuple[int, int]) -> None:
    pid, port = listener
    assert gateway_of(port, {pid, os.getpid()}) == pid


def test_a_port_without_a_listener_is_told(listener: tuple[int, int]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        with pytest.raises(BenchmarkError, match=f"listens on port {port}"):
            gateway_of(port, {listener[0]})
