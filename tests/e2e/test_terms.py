"""What a call brings beside its message, on the running server: what is wrong is named, what is right is obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from grpc_calls import infer, infer_request
from raw_grpc import RawGrpc, prefixed
from served import Served, json_request, json_tensor

pytestmark = pytest.mark.e2e

OK, INVALID, INTERNAL = 0, 3, 13
GOOD = prefixed(infer_request(outputs=["Y"]).SerializeToString())
HEADER = "x-tenant"


@pytest.fixture
def raw(server: Served) -> Iterator[RawGrpc]:
    """A connection of our own."""
    with RawGrpc(server.settings.grpc_port) as connection:
        yield connection


@pytest.mark.parametrize("value", ["60S", "1M", "59999999u", "00060000m", "99999999H"])
def test_grpc_timeouts(raw: RawGrpc, value: str) -> None:
    assert raw.call(GOOD, headers=[("grpc-timeout", value)]).status == OK


@pytest.mark.parametrize("value", ["5", "S", "5s", "-1S", "1.5S", "1S1S", "soon"])
def test_bad_grpc_timeouts(server: Served, raw: RawGrpc, value: str) -> None:
    outcome = raw.call(GOOD, headers=[("grpc-timeout", value)])
    if server.front == "envoy":
        assert outcome.status == INVALID
        assert outcome.message.startswith(f"grpc-timeout '{value}' is none")
    else:
        # gRPC's own server reads the header itself
        expected = (INTERNAL, "Error parsing 'grpc-timeout' metadata")
        assert (outcome.status, outcome.message) == expected
    assert raw.call(GOOD).status == OK


def test_nine_digits(server: Served, raw: RawGrpc) -> None:
    """One more than gRPC allows; its own server takes them."""
    outcome = raw.call(GOOD, headers=[("grpc-timeout", "123456789m")])
    assert outcome.status == (INVALID if server.front == "envoy" else OK)


@pytest.mark.parametrize("value", ["60000", "60000.5"])
def test_http_timeouts(server: Served, value: str) -> None:
    answer = server.infer("puppet", json_request(1, 2), X_Request_Timeout_Ms=value)
    assert answer.status == 200


@pytest.mark.parametrize("value", ["", "0", "0.0", "-5", "5ms", "1e3", "nan", "99999999999"])
def test_bad_http_timeouts(server: Served, value: str) -> None:
    answer = server.infer("puppet", json_request(1, 2), X_Request_Timeout_Ms=value)
    assert answer.status == 400
    assert answer.error.startswith(f"X-Request-Timeout-Ms '{value}' is none")


def test_tenants(front: str, add_sub: Callable[..., Served]) -> None:
    served = add_sub(front, f"--tenant-header={HEADER}")
    row = np.ones(4, np.float32)
    body = {"inputs": [json_tensor(name, row) for name in ("INPUT0", "INPUT1")]}
    request = infer_request("add_sub", row, name="INPUT0")
    request.inputs.add(name="INPUT1", datatype="FP32", shape=row.shape)
    request.raw_input_contents.append(row.tobytes())
    with grpc.insecure_channel(served.grpc) as channel:
        for tenant in ("search", "Team Blue/eu-1", "x" * 128):
            assert served.infer("add_sub", body, x_tenant=tenant).status == 200
            assert infer(channel, request, metadata=[(HEADER, tenant)]).model_name == "add_sub"
        answer = served.infer("add_sub", body, x_tenant="x" * 129)
        assert answer.status == 400
        assert answer.error.startswith(f"{HEADER} 'xxx")
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, request, metadata=[(HEADER, "x" * 129)])
        status: Any = caught.value
        assert status.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert status.details().startswith(f"{HEADER} 'xxx")
        # an empty one is none
        assert served.infer("add_sub", body, x_tenant="").status == 200
