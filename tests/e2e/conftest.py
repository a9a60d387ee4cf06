"""One server a front for all tests of what a running server does, with clients of both protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http

from served import FRONTS, Served, descriptors
from served_models import write_add_sub, write_attacked, write_repository
from supervised import eventually

FEW_DESCRIPTORS = 64
"""What may stay open of all the tests' connections: those of clients that live as long as the server."""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all shared models."""
    folder = tmp_path_factory.mktemp("models")
    write_repository(folder)
    return folder


@pytest.fixture(scope="session", params=FRONTS)
def server(request: pytest.FixtureRequest, repository: Path) -> Iterator[Served]:
    """A ready server. At its end nothing may be left."""
    served = Served(repository, request.param)
    try:
        served.wait_ready()
        before = descriptors(served.gateway)
        yield served
        assert descriptors(served.gateway) <= before + FEW_DESCRIPTORS
        assert served.stop() == 0, served.log
        assert not list((served.folder / "run").iterdir())
    finally:
        served.close()


@pytest.fixture(scope="session", params=FRONTS)
def victim(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server that is attacked: everything optional is on, and it has little patience. At its end nothing may be
    left."""
    folder = tmp_path_factory.mktemp("attacked")
    write_attacked(folder)
    flags = ("--model-control-mode=explicit", "--load-model=*", "--allow-client-shm=true")
    sizes = ("--http-max-input-size=8MiB", "--grpc-max-message-bytes=8MiB")
    served = Served(folder, request.param, *flags, *sizes, "--slow-client-secs=1")
    try:
        served.wait_ready()
        before = descriptors(served.gateway)
        yield served
        eventually(lambda: descriptors(served.gateway) <= before + 8, "descriptors are left")
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    """For tests that start their own server."""
    return str(request.param)


@pytest.fixture(scope="session")
def http(server: Served) -> Iterator[tritonclient.http.InferenceServerClient]:
    """NVIDIA's client for HTTP."""
    with tritonclient.http.InferenceServerClient(server.http, concurrency=16) as client:
        yield client


@pytest.fixture(scope="session")
def rpc(server: Served) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    """NVIDIA's client for gRPC."""
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="session")
def channel(server: Served) -> Iterator[grpc.Channel]:
    """A bare gRPC channel."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(repository, front, *flags)` starts one more server, which must leave nothing behind."""
    servers: list[Served] = []

    def start(repository: Path, front: str, *flags: str) -> Served:
        servers.append(Served(repository, front, *flags))
        return servers[-1]

    yield start
    for served in servers:
        served.close()


@pytest.fixture
def add_sub(serve: Callable[..., Served], tmp_path: Path) -> Callable[..., Served]:
    """`add_sub(front, *flags)` starts a server with the model `add_sub` alone, and waits until it is ready."""
    write_add_sub(tmp_path / "models" / "add_sub")

    def start(front: str, *flags: str) -> Served:
        return serve(tmp_path / "models", front, *flags).wait_ready()

    return start
