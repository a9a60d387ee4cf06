"""ModelInferResponse bytes written by hand, read by tritonclient's own message."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from pending import pending
from penstock.errors import InvalidRequest
from penstock.gateway.grpc_response import MAX_SHAPES, GrpcEncoder
from penstock.types import Array, OutputTensor
from penstock.workers.request import PendingRequest
from tensor_strategies import arrays, to_wire

pb: Any = service_pb2


def encoder(*, framed: bool = False, max_batch_size: int = 8) -> GrpcEncoder:
    """Of model `m`, version 3."""
    model: Any = SimpleNamespace(
        name="m",
        version=3,
        config=SimpleNamespace(max_batch_size=max_batch_size),
        labels={"Y": ["zero", "one"]},
    )
    return GrpcEncoder(model, framed=framed)


def request(id: str = "", **plan: Any) -> PendingRequest:
    made = pending({"X": np.zeros((1, 1), np.float32)}, id=id)
    changes = {name: getattr(made.plan, name) for name in made.plan.__struct_fields__} | plan
    made.plan = type(made.plan)(**changes)
    return made


def output(name: str, datatype: str, array: Array) -> OutputTensor:
    return OutputTensor(name, datatype, array.shape, memoryview(to_wire(datatype, array)))


def parse(data: bytes) -> Any:
    return pb.ModelInferResponse.FromString(data)


@settings(deadline=None, database=None)
@given(st.lists(st.tuples(st.text(max_size=200), arrays()), max_size=4), st.text(max_size=300))
def test_protobuf_reads_what_is_written(
    tensors: list[tuple[str, tuple[str, Array]]], request_id: str
) -> None:
    outputs = [output(name, *typed) for name, typed in tensors]
    encode = encoder()
    for _ in range(2):  # the second time from what is remembered
        response = parse(encode(request(request_id), outputs))
        expected = pb.ModelInferResponse(model_name="m", model_version="3", id=request_id)
        for name, (datatype, array) in tensors:
            expected.outputs.add(name=name, datatype=datatype, shape=array.shape)
            expected.raw_output_contents.append(to_wire(datatype, array))
        assert response == expected


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_384, 3_000_000])
def test_framed_answers_say_their_length(size: int) -> None:
    data = encoder(framed=True)(request("id"), [output("Y", "UINT8", np.ones(size, np.uint8))])
    flag, length = struct.unpack_from(">BI", data)
    assert (flag, length) == (0, len(data) - 5)
    assert parse(data[5:]).raw_output_contents[0] == b"\1" * size


def test_the_outputs_asked_for_in_their_order() -> None:
    outputs = [output(name, "FP32", np.zeros((1, 1), np.float32)) for name in "ABC"]
    response = parse(encoder()(request(output_names=("C", "A", "GONE")), outputs))
    assert [o.name for o in response.outputs] == ["C", "A"]
    assert len(response.raw_output_contents) == 2


def test_classes() -> None:
    scores = output("Y", "FP32", np.array([[0.5, 2]], np.float32))
    response = parse(encoder()(request(classes={"Y": 1}), [scores]))
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [1, 1])
    assert response.raw_output_contents[0][4:] == b"2.000000:1:one"
    with pytest.raises(InvalidRequest, match="class result not available"):
        encoder()(request(classes={"Y": 1}), [output("Y", "BOOL", np.ones((1, 1), np.bool_))])


def test_what_is_remembered_of_shapes_is_bounded() -> None:
    encode = encoder()
    for size in range(2 * MAX_SHAPES + 5):
        response = parse(encode(request(), [output("Y", "UINT8", np.ones((1, size), np.uint8))]))
        assert list(response.outputs[0].shape) == [1, size]
        assert len(encode._described) <= MAX_SHAPES


def test_parameters_that_the_model_gave() -> None:
    made = request("r")
    made.response_parameters = {"b": True, "i": -5, "u": 2**63, "f": 0.5, "s": "é"}
    given = parse(encoder()(made, [])).parameters
    assert given["b"].bool_param is True
    assert (given["i"].int64_param, given["u"].uint64_param) == (-5, 2**63)
    assert (given["f"].double_param, given["s"].string_param) == (0.5, "é")
    assert len(given) == 5
    assert not parse(encoder()(request("r"), [])).parameters
