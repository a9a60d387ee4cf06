"""The cuda_shared_memory extension on a server without GPUs: what a Triton that is built without them answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from grpc_calls import failure, pb
from served import FRONTS, Served
from served_models import write_add_sub
from shared_regions import PROTOCOLS, Client

pytestmark = [pytest.mark.e2e, pytest.mark.extension("cuda_shared_memory", refused=True)]

REFUSED = "failed to register CUDA shared memory region: 'r', GPUs not supported"


@pytest.fixture(scope="module", params=FRONTS)
def sharing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server that lets clients share memory."""
    folder = tmp_path_factory.mktemp("models")
    write_add_sub(folder / "add_sub")
    served = Served(folder, request.param, "--allow-client-shm")
    try:
        yield served.wait_ready()
    finally:
        served.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_registration_is_refused_and_there_are_no_regions(sharing: Served, protocol: str) -> None:
    with Client(sharing, protocol) as client:
        peer: Any = client.client
        with pytest.raises(InferenceServerException, match="GPUs not supported") as raised:
            peer.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)
        assert raised.value.message() == REFUSED
        assert raised.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
        status = peer.get_cuda_shared_memory_status()
        assert not (status if isinstance(status, list) else status.regions)
        with pytest.raises(
            InferenceServerException, match="Unable to find cuda shared memory region: 'r'"
        ):
            peer.get_cuda_shared_memory_status("r")
        peer.unregister_cuda_shared_memory("r")
        peer.unregister_cuda_shared_memory()


def test_the_extension_is_not_advertised(sharing: Served) -> None:
    assert "cuda_shared_memory" not in sharing.get("/v2").json["extensions"]


def test_without_the_flag_clients_are_told_so(server: Served, channel: grpc.Channel) -> None:
    """All of it is behind the flag of system shared memory."""
    base = "/v2/cudasharedmemory"
    for method, path in (
        ("POST", "region/r/register"),
        ("GET", "status"),
        ("POST", "unregister"),
    ):
        answer = server.request(method, f"{base}/{path}")
        assert answer.status == 501
        assert answer.error.startswith("Client shared memory is disabled.")
    for name in ("Register", "Status", "Unregister"):
        message = getattr(pb, f"CudaSharedMemory{name}Request")()
        code, text = failure(channel, f"CudaSharedMemory{name}", message)
        assert code == "UNIMPLEMENTED"
        assert text.startswith("Client shared memory is disabled.")
