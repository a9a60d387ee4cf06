"""The codes of `TritonError`: what a model says of an error is what clients see, as a real Triton 2.51 shows it."""

from __future__ import annotations

import grpc
import pytest

from grpc_calls import failure, infer_request
from served import Served, json_request

pytestmark = pytest.mark.e2e

# measured on a real Triton: code → HTTP status, gRPC code
TRITON = {
    "UNKNOWN": (400, "UNKNOWN"),
    "INTERNAL": (500, "INTERNAL"),
    "NOT_FOUND": (404, "NOT_FOUND"),
    "INVALID_ARG": (400, "INVALID_ARGUMENT"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
    "UNSUPPORTED": (501, "UNIMPLEMENTED"),
    "ALREADY_EXISTS": (400, "ALREADY_EXISTS"),
    "CANCELLED": (400, "CANCELLED"),
}


@pytest.mark.parametrize("code", TRITON)
def test_what_clients_see_of_a_code(server: Served, channel: grpc.Channel, code: str) -> None:
    http_status, grpc_code = TRITON[code]
    parameters = {"error": "said the model", "code": code}
    answer = server.infer("puppet", json_request(1.0, parameters=parameters))
    assert (answer.status, answer.error) == (http_status, "said the model")
    told = failure(channel, "ModelInfer", infer_request(parameters=parameters))
    assert told == (grpc_code, "said the model")
