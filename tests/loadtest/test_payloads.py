"""Payloads: what is sent must decode to the tensor that was meant."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.payloads import grpc_frame, http_body, payload_for


@pytest.mark.parametrize(("model", "shape"), [("identity", [1, 16]), ("image", [1, 3, 224, 224])])
def test_a_grpc_frame_holds_the_request(model: str, shape: list[int]) -> None:
    payload = payload_for(model)
    frame = grpc_frame(payload)
    compressed, length = struct.unpack(">BI", frame[:5])
    messages: Any = service_pb2
    message = messages.ModelInferRequest.FromString(frame[5:])
    assert (compressed, length) == (0, len(frame) - 5)
    assert message.model_name == model
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("INPUT0", "FP32", shape)
    ]
    sent = np.frombuffer(message.raw_input_contents[0], np.float32).reshape(shape)
    np.testing.assert_array_equal(sent, payload.values)


def test_an_http_body_is_a_header_and_the_raw_tensor() -> None:
    payload = payload_for("identity")
    body, header_bytes = http_body(payload)
    header = json.loads(body[:header_bytes])
    assert header["inputs"][0]["parameters"]["binary_data_size"] == len(body) - header_bytes == 64
    assert header["outputs"][0]["parameters"]["binary_data"] is True
    assert body[header_bytes:] == payload.values.tobytes()


def test_the_expected_answer_is_the_first_16_floats() -> None:
    payload = payload_for("image")
    np.testing.assert_array_equal(payload.expected[0], payload.values[0, 0, 0, :16])


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(BenchmarkError, match=r"no payload for model nobody.*'identity', 'image'"):
        payload_for("nobody")
