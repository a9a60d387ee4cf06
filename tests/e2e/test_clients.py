"""Clients that exist run unmodified: tritonclient in all its forms, and perf_analyzer."""

from __future__ import annotations

import asyncio
import http.client
import os
import queue
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from served import Served

pytestmark = pytest.mark.e2e

PEERS = Path(os.environ.get("PEERS", Path.home() / ".cache" / "penstock-peers"))
PERF_ANALYZER = PEERS / "client" / "bin" / "perf_analyzer"
ROW = np.array([[1, 2, 3]], np.float32)


def tensor(module: Any, array: np.ndarray[Any, Any] = ROW) -> Any:
    """An InferInput of the module's."""
    return module.InferInput("X", list(array.shape), "FP32").set_data_from_numpy(array)


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio])
async def test_aio(server: Served, module: Any) -> None:
    address = server.http if module is tritonclient.http.aio else server.grpc
    async with module.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("puppet")) is not None
        arrays = [np.full((1, 3), number, np.float32) for number in range(20)]
        results = await asyncio.gather(
            *(client.infer("puppet", [tensor(module, array)]) for array in arrays)
        )
    for array, result in zip(arrays, results, strict=True):
        assert np.array_equal(result.as_numpy("Y"), array)


def test_async_infer_over_http(http: Any) -> None:
    calls = [http.async_infer("puppet", [tensor(tritonclient.http)]) for _ in range(10)]
    for call in calls:
        assert np.array_equal(call.get_result().as_numpy("Y"), ROW)


def test_async_infer_over_grpc(rpc: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(10):
        rpc.async_infer(
            "puppet",
            [tensor(tritonclient.grpc)],
            callback=lambda result, error: answers.put((result, error)),
        )
    for _ in range(10):
        result, error = answers.get(timeout=20)
        assert error is None
        assert np.array_equal(result.as_numpy("Y"), ROW)


def test_client_side_timeout(rpc: Any) -> None:
    result = rpc.infer("puppet", [tensor(tritonclient.grpc)], client_timeout=20)
    assert np.array_equal(result.as_numpy("Y"), ROW)


def test_server_and_client_in_one_process() -> None:
    """Both define the protocol's messages: protobuf refuses two definitions of one name in one pool."""
    server = ["import penstock.gateway.gateway", "from penstock.protobuf import message_class"]
    client = ["import tritonclient.grpc", "from tritonclient.grpc import service_pb2"]
    use = [
        "ours = message_class('inference.ModelInferRequest')(model_name='m')",
        "theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())",
        "assert theirs.model_name == 'm'",
    ]
    for lines in ([*server, *client, *use], [*client, *server, *use]):
        subprocess.run([sys.executable, "-c", "; ".join(lines)], check=True, timeout=60)


def test_urllib(server: Served) -> None:
    with urllib.request.urlopen(f"http://{server.http}/v2", timeout=20) as response:
        assert response.status == 200


def test_many_requests_on_one_connection(server: Served) -> None:
    """Keep-alive: a hundred requests in a row, with bodies in between that are refused."""
    connection = http.client.HTTPConnection(server.http, timeout=20)
    for number in range(100):
        body = b"{" if number % 3 == 0 else b""
        connection.request(
            "POST" if body else "GET", "/v2/models/puppet/infer" if body else "/v2", body
        )
        response = connection.getresponse()
        assert response.status == (400 if body else 200)
        response.read()
    connection.close()


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason=f"perf_analyzer is not installed in {PEERS}")
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_perf_analyzer(server: Served, protocol: str) -> None:
    address = server.grpc if protocol == "grpc" else server.http
    run = subprocess.run(
        [
            *(str(PERF_ANALYZER), "-m", "newest", "-u", address, "-i", protocol),
            *("--shape", "X:16", "--concurrency-range", "2", "--max-threads", "1"),
            *("--measurement-mode", "count_windows", "--measurement-request-count", "50"),
            # of three windows none can be three times their mean away from it: the machine may do what it likes
            *("-s", "300", "-r", "10"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "LD_LIBRARY_PATH": str(PEERS / "lib")},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # the split of the time into queue and compute comes from the statistics
    assert "Inference count:" in run.stdout
    assert "Inferences/Second vs. Client" in run.stdout
