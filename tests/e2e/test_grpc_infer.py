"""Inference over gRPC: forms of requests and answers."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc

from grpc_calls import infer, infer_request, pb
from penstock import protobuf
from puppets import row, told

pytestmark = pytest.mark.e2e


def test_answer_is_raw_whatever_the_request(channel: grpc.Channel) -> None:
    raw = infer_request(outputs=["Y"], id="request 1", model_version="1")
    typed = infer_request(outputs=["Y"], raw=[])
    typed.inputs[0].contents.fp32_contents.extend([1, 2])
    for request in (raw, typed):
        response = infer(channel, request)
        assert (response.model_name, response.model_version) == ("puppet", "1")
        assert response.id == request.id
        (output,) = response.outputs
        assert (output.name, output.datatype, output.shape) == ("Y", "FP32", [1, 2])
        assert response.raw_output_contents == [np.array([1, 2], np.float32).tobytes()]


def test_outputs_come_in_the_order_asked_for(channel: grpc.Channel) -> None:
    ones = np.ones(4, np.float32)
    request = infer_request("add_sub", ones, name="INPUT1", outputs=["OUTPUT1", "OUTPUT0"])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[4])
    request.raw_input_contents.append((2 * ones).tobytes())
    response = infer(channel, request)
    assert [output.name for output in response.outputs] == ["OUTPUT1", "OUTPUT0"]
    assert response.raw_output_contents == [ones.tobytes(), (3 * ones).tobytes()]
    assert len(infer(channel, infer_request()).outputs) == 2


def test_fields_may_come_in_any_order(channel: grpc.Channel) -> None:
    """Parsers must take the fields of a message in whatever order they are written."""
    tensors = pb.ModelInferRequest(raw_input_contents=[row(5).tobytes()])
    rest = infer_request(shape=[1, 1], raw=[], id="later")
    backwards = tensors.SerializeToString() + rest.SerializeToString()
    # an unknown field too: clients may be newer than the server
    response = infer(channel, backwards + b"\xfa\x7f\x03new")
    assert response.id == "later"
    assert response.raw_output_contents[0] == row(5).tobytes()


@pytest.mark.extension("parameters")
def test_id_and_parameters_reach_the_model(channel: grpc.Channel) -> None:
    parameters: dict[str, bool | int | float | str] = {
        "text": "grüße",
        "number": -7,
        "yes": True,
        "half": 0.5,
    }
    request = infer_request(id="request 1", parameters=parameters)
    request.parameters["large"].uint64_param = 2**64 - 1
    line = told(infer(channel, request))
    assert line["id"] == "request 1"
    assert line["parameters"] == {**parameters, "large": 2**64 - 1}


def test_ids_do_not_stick(channel: grpc.Channel) -> None:
    """What is remembered of a repeated request is not its id, parameters or tensors."""
    for number in (1, 2, 1):
        array = np.full((1, 2), number, np.float32)
        request = infer_request(array=array, id=str(number), parameters={"number": number})
        response = infer(channel, request)
        assert response.id == told(response)["id"] == str(number)
        assert told(response)["parameters"] == {"number": number}
        assert response.raw_output_contents[0] == array.tobytes()


@pytest.mark.extension("classification")
def test_classes(rpc: Any) -> None:
    rows = np.array([[0.25, 0.75, 0.5, 0.0], [4, 3, 2, 1]], np.float32)
    tensor = tritonclient.grpc.InferInput("X", [2, 4], "FP32").set_data_from_numpy(rows)
    wanted = tritonclient.grpc.InferRequestedOutput("Y", class_count=2)
    result = rpc.infer("classes", [tensor], outputs=[wanted])
    assert result.as_numpy("Y").tolist() == [
        [b"0.750000:1:one", b"0.500000:2:two"],
        [b"4.000000:0:zero", b"3.000000:1:one"],
    ]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_as_tritonclient_does_it(rpc: Any, algorithm: str) -> None:
    array = np.zeros((2, 50_000), np.float32)
    tensor = tritonclient.grpc.InferInput("X", [2, 50_000], "FP32").set_data_from_numpy(array)
    result = rpc.infer("puppet", [tensor], compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("Y"), array)


def test_a_large_tensor_comes_back_whole(channel: grpc.Channel, server: Any) -> None:
    """Larger than one HTTP/2 frame, one flow-control window and the first slab."""
    array = np.arange(3 << 20, dtype=np.float32).reshape(1, -1)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as large:
        response = infer(large, infer_request(array=array, outputs=["Y"]))
    assert response.raw_output_contents[0] == array.tobytes()


def test_the_published_proto_fits(channel: grpc.Channel) -> None:
    """What the files in proto/ generate speaks with the server."""
    theirs = infer_request(id="x")
    ours: Any = protobuf.message_class("inference.ModelInferRequest").FromString(
        theirs.SerializeToString()
    )
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
    assert infer(channel, ours).id == "x"
