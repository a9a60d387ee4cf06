"""Models are loaded anew under load, again and again: no request fails, and nothing grows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tritonclient.grpc
import tritonclient.http

from served import Served, descriptors, shared_memory
from served_models import write_add_sub
from supervised import eventually
from traffic import Client, failures, traffic

pytestmark = pytest.mark.e2e

RELOADS = {"envoy": int(os.environ.get("PENSTOCK_TEST_RELOADS", "200")), "grpcio": 30}
SETTLED = 10
"""Reloads after which nothing may grow any more: allocators and caches have what they want."""
PROCESSES = 3
"""Supervisor, gateway, worker."""
GROWTH_BYTES = 24 << 20
"""Of the gateway and the supervisor, over all reloads; one slab pair a reload would be over 100 MiB."""


ADD_SUB = """
import penstock
from penstock import Spec

T = Spec("FP32", 4)


@penstock.model(inputs={"INPUT0": T, "INPUT1": T}, outputs={"OUTPUT0": T, "OUTPUT1": T})
class AddSub:
    def __call__(self, INPUT0, INPUT1):
        return {"OUTPUT0": INPUT0 + INPUT1, "OUTPUT1": INPUT0 - INPUT1}
"""


def held_memory(server: Served) -> int:
    """Resident bytes of the server but for its workers'."""
    return sum(map(resident_bytes, (server.process.pid, server.gateway)))


def open_files(server: Served) -> int:
    """Descriptors of the server but for its workers'."""
    return sum(map(descriptors, (server.process.pid, server.gateway)))


def resident_bytes(pid: int) -> int:
    """What is in memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def each_answered(clients: Sequence[Client]) -> None:
    """Each client has one more answer, or a failure."""
    before = [client.answers for client in clients]
    eventually(
        lambda: all(c.answers > n or c.failures for c, n in zip(clients, before, strict=True)),
        "no answers",
    )


@pytest.mark.timeout(900)
def test_reloads_under_load(front: str, serve: Callable[..., Served], tmp_path: Path) -> None:
    write_add_sub(tmp_path / "models" / "add_sub")
    flags = ("--model-control-mode=explicit", "--load-model=add_sub")
    server = serve(tmp_path / "models", front, *flags).wait_ready()
    regions = shared_memory()
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc) as admin,
        traffic(server) as clients,
    ):

        def reload(times: int) -> None:
            for _ in range(times):
                each_answered(clients)
                admin.load_model("add_sub")
            # the processes that were replaced are gone when the kernel has time for it
            eventually(lambda: len(server.processes()) == PROCESSES, "a worker is left")

        reload(SETTLED)
        memory, files = held_memory(server), open_files(server)
        reload(RELOADS[front] - SETTLED)
        assert held_memory(server) - memory < GROWTH_BYTES
        # connections of the clients come and go; a slab or socket a reload would be hundreds
        eventually(lambda: abs(open_files(server) - files) < 8, "descriptors are left")
        assert admin.is_model_ready("add_sub")
        each_answered(clients)
    assert failures(clients) == []
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
        traffic(server) as clients,
    ):
        with pytest.raises(tritonclient.http.InferenceServerException, match="failed to load"):
            admin.load_model("add_sub")
        answers = clients[0].answers
        eventually(
            lambda: clients[0].answers >= answers + 20 or bool(clients[0].failures), "no answers"
        )
        (folder / "2" / "model.onnx").unlink()
        (folder / "2").rmdir()
        # another backend than before takes over under way, and gives way again
        (folder / "config.pbtxt").write_text('backend: "python"')
        (folder / "1" / "model.py").write_text(ADD_SUB)
        admin.load_model("add_sub")
        assert admin.get_model_metadata("add_sub")["platform"] == "python"
        with pytest.raises(tritonclient.http.InferenceServerException, match="known backends"):
            admin.load_model("add_sub", config='{"backend": "torhc"}')
        admin.load_model("add_sub", config='{"backend": "onnxruntime"}')
        assert admin.get_model_metadata("add_sub")["platform"] == "onnxruntime"
    assert failures(clients) == []
    assert server.index()["add_sub", "1"]["state"] == "READY"
