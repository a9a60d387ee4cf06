"""Models are loaded anew under load, again and again: no request fails, and nothing grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from grpc_calls import infer, infer_request
from served import Served, descriptors, shared_memory
from served_models import write_add_sub
from supervised import eventually

pytestmark = pytest.mark.e2e

RELOADS = {"envoy": int(os.environ.get("PENSTOCK_TEST_RELOADS", "200")), "grpcio": 30}
SETTLED = 10
"""Reloads after which nothing may grow any more: allocators and caches have what they want."""
GROWTH_BYTES = 24 << 20
"""Of the gateway and the supervisor, over all reloads; one slab pair a reload would be over 100 MiB."""


class Client(threading.Thread):
    """Sends one request after the other, and checks each answer."""

    def __init__(self, server: Served, ended: threading.Event, first: int) -> None:
        super().__init__()
        self._server, self._ended, self._first = server, ended, first
        self.answers = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Until the end."""
        with grpc.insecure_channel(self._server.grpc) as channel:
            number = self._first
            while not self._ended.is_set():
                number += 1
                try:
                    self._ask(channel, number)
                except Exception as error:  # noqa: BLE001 - any is a failure, and is shown
                    self.failures.append(repr(error))

    def _ask(self, channel: grpc.Channel, number: int) -> None:
        x = np.full(4, number % 1000, np.float32)
        request = infer_request("add_sub", x, name="INPUT0", outputs=["OUTPUT0"])
        request.inputs.add(name="INPUT1", datatype="FP32", shape=[4])
        request.raw_input_contents.append(x.tobytes())
        answer = infer(channel, request)
        assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), 2 * x)
        self.answers += 1


@contextmanager
def load(server: Served) -> Iterator[list[Client]]:
    """Some clients at work."""
    ended = threading.Event()
    clients = [Client(server, ended, 100 * number) for number in range(2)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        ended.set()
        for client in clients:
            client.join()


def footprint(server: Served) -> tuple[int, int, int]:
    """Resident bytes, descriptors, and processes of the server but for its workers' memory."""
    owners = (server.process.pid, server.gateway)
    return sum(map(resident_bytes, owners)), sum(map(descriptors, owners)), len(server.processes())


def resident_bytes(pid: int) -> int:
    """What is in memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(900)
def test_reloads_under_load(front: str, serve: Callable[..., Served], tmp_path: Path) -> None:
    write_add_sub(tmp_path / "models" / "add_sub")
    flags = ("--model-control-mode=explicit", "--load-model=add_sub")
    server = serve(tmp_path / "models", front, *flags).wait_ready()
    regions = shared_memory()
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc) as admin,
        load(server) as clients,
    ):
        for _ in range(SETTLED):
            admin.load_model("add_sub")
        before = footprint(server)
        for _ in range(RELOADS[front] - SETTLED):
            admin.load_model("add_sub")
        after = footprint(server)
        assert admin.is_model_ready("add_sub")
    assert [failure for client in clients for failure in client.failures] == []
    assert min(client.answers for client in clients) > RELOADS[front]
    assert after[0] - before[0] < GROWTH_BYTES
    # connections of the clients come and go; a slab or socket a reload would be hundreds
    assert abs(after[1] - before[1]) < 8
    assert after[2] == before[2]
    assert shared_memory() <= regions


def test_a_version_that_can_not_be_loaded_leaves_the_old_one_serving(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "add_sub"
    write_add_sub(folder)
    flags = ("--model-control-mode=explicit", "--load-model=add_sub")
    server = serve(tmp_path / "models", front, *flags).wait_ready()
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(b"half a mod")
    with (
        tritonclient.http.InferenceServerClient(server.http) as admin,
        load(server) as clients,
    ):
        with pytest.raises(tritonclient.http.InferenceServerException, match="failed to load"):
            admin.load_model("add_sub")
        answers = clients[0].answers
        eventually(
            lambda: clients[0].answers >= answers + 20 or bool(clients[0].failures), "no answers"
        )
    assert [failure for client in clients for failure in client.failures] == []
    assert server.index()["add_sub", "1"]["state"] == "READY"
