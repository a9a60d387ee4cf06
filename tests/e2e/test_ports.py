"""Each port answers its own protocol, though Envoy has one listener for all of them."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from served import Served

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("port", ["http_port", "metrics_port"])
def test_grpc_is_on_its_own_port_only(server: Served, port: str) -> None:
    address = f"127.0.0.1:{getattr(server.settings, port)}"
    with (
        triton.InferenceServerClient(address) as client,
        pytest.raises(InferenceServerException) as raised,
    ):
        client.get_server_metadata(client_timeout=30)
    if server.front == "envoy":
        assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
        assert raised.value.message() == "this port does not serve gRPC"


def test_http_is_not_on_the_grpc_port(server: Served) -> None:
    with pytest.raises((OSError, http.client.HTTPException)) as raised:
        urllib.request.urlopen(f"http://{server.grpc}/v2/health/live", timeout=30)
    if server.front == "envoy":
        assert isinstance(raised.value, urllib.error.HTTPError)
        assert raised.value.code == 404
        raised.value.close()
