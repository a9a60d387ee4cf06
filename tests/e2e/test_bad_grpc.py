"""Malformed gRPC requests get their code at once, with a text that says what is wrong, and the server goes on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from grpc_calls import failure, infer, infer_request, pb

pytestmark = pytest.mark.e2e

ABC = struct.pack("<I", 3) + b"abc"
GOOD = infer_request(outputs=["Y"]).SerializeToString()


@pytest.fixture(autouse=True)
def goes_on(channel: grpc.Channel) -> Iterator[None]:
    """Whatever came before, the next good request is answered."""
    yield
    assert infer(channel, infer_request()).model_name == "puppet"


def typed(field: str, *values: Any, **changes: Any) -> Any:
    """A request whose input is in `contents`."""
    request = infer_request(raw=[], **changes)
    getattr(request.inputs[0].contents, field).extend(values)
    return request


def twice() -> Any:
    """A request that has one input two times."""
    request = infer_request(raw=[b"12345678"] * 2)
    request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
    return request


def mixed() -> Any:
    """A request with raw and typed contents."""
    request = infer_request()
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    return request


def classes(count: int) -> Any:
    """A request for that many classes."""
    request = infer_request("classes", np.ones((1, 4), np.float32), outputs=["Y"])
    request.outputs[0].parameters["classification"].int64_param = count
    return request


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (infer_request("nobody"), "NOT_FOUND", "Request for unknown model: 'nobody' is not found"),
        (
            infer_request(model_version="9"),
            "NOT_FOUND",
            "Request for unknown model: 'puppet' version 9 is not found",
        ),
        (
            infer_request(model_version="x"),
            "INVALID_ARGUMENT",
            "failed to get model version from specified version string 'x'",
        ),
        (infer_request(model_version="-1"), "INVALID_ARGUMENT", "failed to get model version"),
        (infer_request(""), "NOT_FOUND", "Request for unknown model: '' is not found"),
        (b"", "NOT_FOUND", "Request for unknown model: '' is not found"),
        (
            infer_request(name="Q"),
            "INVALID_ARGUMENT",
            "unexpected inference input 'Q' for model 'puppet'",
        ),
        (
            infer_request(datatype="INT32"),
            "INVALID_ARGUMENT",
            "inference input 'X' data-type is 'INT32', but model 'puppet' expects 'FP32'",
        ),
        (infer_request(datatype="FP33"), "INVALID_ARGUMENT", "invalid datatype 'FP33'"),
        (infer_request(datatype=""), "INVALID_ARGUMENT", "invalid datatype ''"),
        (twice(), "INVALID_ARGUMENT", "duplicate input 'X' in request for model 'puppet'"),
        (
            pb.ModelInferRequest(model_name="puppet"),
            "INVALID_ARGUMENT",
            "expected 1 inputs but got 0 inputs for model 'puppet'",
        ),
        (
            infer_request(outputs=["Z"]),
            "INVALID_ARGUMENT",
            "unexpected inference output 'Z' for model 'puppet'",
        ),
        (
            infer_request(outputs=["Y", "Y"]),
            "INVALID_ARGUMENT",
            "output 'Y' already exists in request",
        ),
        (
            infer_request(raw=[b"1234"]),
            "INVALID_ARGUMENT",
            "input byte size mismatch for input 'X'. Expected 8, got 4",
        ),
        (
            infer_request(raw=[bytes(12)]),
            "INVALID_ARGUMENT",
            "input byte size mismatch for input 'X'. Expected 8, got 12",
        ),
        (infer_request(raw=[]), "INVALID_ARGUMENT", "expected 1 raw input contents"),
        (infer_request(raw=[b"12345678"] * 2), "INVALID_ARGUMENT", "expected 1 raw input contents"),
        (infer_request(shape=[1, -2]), "INVALID_ARGUMENT", "has a negative dimension"),
        (infer_request(shape=[2**32, 2**32]), "INVALID_ARGUMENT", "has too many elements"),
        (infer_request(shape=[1, 2**61 - 1]), "INVALID_ARGUMENT", "input byte size mismatch"),
        (infer_request(shape=[1] * 33), "INVALID_ARGUMENT", "expected 32 at most"),
        (
            infer_request(shape=[2]),
            "INVALID_ARGUMENT",
            "unexpected shape for input 'X' for model 'puppet'. Expected [-1,-1], got [2]",
        ),
        (
            infer_request(array=np.ones((9, 1), np.float32)),
            "INVALID_ARGUMENT",
            "inference request batch-size must be <= 8 for 'puppet'",
        ),
        (
            infer_request(shape=[0, 2], raw=[b""]),
            "INVALID_ARGUMENT",
            "inference request batch-size must be <= 8 for 'puppet'",
        ),
        (
            mixed(),
            "INVALID_ARGUMENT",
            "contents field must not be specified when using raw_input_contents for 'X' for model "
            "'puppet'",
        ),
        (typed("fp32_contents", 1.0), "INVALID_ARGUMENT", "expected 2 elements in fp32_contents"),
        (
            typed("fp32_contents", 1.0, 2.0, 3.0),
            "INVALID_ARGUMENT",
            "expected 2 elements in fp32_contents",
        ),
        (typed("int_contents", 1, 2), "INVALID_ARGUMENT", "expected 2 elements in fp32_contents"),
        (
            typed(
                "uint_contents", 256, model="types", name="X_UINT8", datatype="UINT8", shape=[1, 1]
            ),
            "INVALID_ARGUMENT",
            "a value in uint_contents is out of UINT8's range",
        ),
        (
            typed(
                "fp32_contents", 1.0, model="types", name="X_FP16", datatype="FP16", shape=[1, 1]
            ),
            "INVALID_ARGUMENT",
            "FP16 must be sent as raw_input_contents",
        ),
        (classes(0), "INVALID_ARGUMENT", "parameter 'classification' of output 'Y'"),
        (classes(-1), "INVALID_ARGUMENT", "parameter 'classification' of output 'Y'"),
        (
            infer_request(parameters={"triton_x": 1}),
            "INVALID_ARGUMENT",
            "parameter keys starting with 'triton_' are reserved",
        ),
        (infer_request(parameters={"priority": "high"}), "INVALID_ARGUMENT", "'priority'"),
        (infer_request(parameters={"error": "no such user"}), "INTERNAL", "no such user"),
        (infer_request(parameters={"raise": "oh"}), "INTERNAL", "message: ValueError: oh"),
    ],
)
def test_contents(channel: grpc.Channel, request_: Any, code: str, text: str) -> None:
    given_code, given_text = failure(channel, "ModelInfer", request_)
    assert given_code == code
    assert text in given_text


@pytest.mark.parametrize(
    ("shape", "data", "text"),
    [
        ([1, 1], struct.pack("<I", 99) + b"abc", "incomplete string data for inference input 'X'"),
        ([2, 1], ABC, "expected 2 string elements for inference input 'X', got 1"),
        ([1, 1], ABC * 2, "unexpected number of string elements for inference input 'X'"),
        ([1, 1], b"ab", "incomplete string length for inference input 'X'"),
        ([1, 1], b"", "string"),
    ],
)
def test_text_lengths(channel: grpc.Channel, shape: list[int], data: bytes, text: str) -> None:
    request = infer_request("text", datatype="BYTES", shape=shape, raw=[data])
    # once decoded, and once from what is remembered of the first
    for _ in range(2):
        code, given = failure(channel, "ModelInfer", request)
        assert code == "INVALID_ARGUMENT"
        assert text in given


@pytest.mark.parametrize(
    "message", [b"\xff" * 9, GOOD[:-3], GOOD[:5], b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x01\xff"]
)
def test_messages_that_are_none(channel: grpc.Channel, message: bytes) -> None:
    code, text = failure(channel, "ModelInfer", message)
    assert code == "INVALID_ARGUMENT"
    assert text


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "RepositoryIndex"])
def test_other_messages_that_are_none(channel: grpc.Channel, method: str) -> None:
    code, text = failure(channel, method, b"\xff")
    assert code == "INVALID_ARGUMENT"
    assert f"{method}Request" in text
