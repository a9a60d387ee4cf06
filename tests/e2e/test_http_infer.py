"""Inference over HTTP: forms of requests and answers."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from served import HttpAnswer, Served, json_request, json_tensor

pytestmark = pytest.mark.e2e

THREE = np.array([[1, 2, 3]], np.float32)


def binary_request(header: dict[str, Any], *tensors: bytes) -> tuple[bytes, str]:
    """The body, and the value of Inference-Header-Content-Length."""
    text = json.dumps(header).encode()
    return b"".join((text, *tensors)), str(len(text))


def taken_apart(answer: HttpAnswer) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON of an answer with binary outputs, and these by name."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/octet-stream"
    at = int(answer.headers["inference-header-content-length"])
    header = json.loads(answer.body[:at])
    tensors = {}
    for output in header["outputs"]:
        if size := output.get("parameters", {}).get("binary_data_size"):
            tensors[output["name"]] = answer.body[at : at + size]
            at += size
    assert at == len(answer.body)
    return header, tensors


def told(answer: HttpAnswer) -> dict[str, Any]:
    """What the puppet says of its request."""
    outputs = {output["name"]: output for output in answer.json["outputs"]}
    line: dict[str, Any] = json.loads(outputs["TOLD"]["data"][0])
    return line


def test_json_in_json_out(server: Served) -> None:
    answer = server.infer("puppet", json_request(1, 2.5, -3, outputs=[{"name": "Y"}]))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "puppet",
        "model_version": "1",
        "outputs": [{"name": "Y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.5, -3.0]}],
    }


@pytest.mark.parametrize("data", [[[1, 2, 3]], [[[1], [2], [3]]], [1, 2, 3]])
def test_json_data_may_nest(server: Served, data: Any) -> None:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": data}
    answer = server.infer("puppet", {"inputs": [tensor], "outputs": [{"name": "Y"}]})
    assert answer.json["outputs"][0]["data"] == [1.0, 2.0, 3.0]


def test_json_without_outputs_gives_all(server: Served) -> None:
    for request in (json_request(1.0), json_request(1.0, outputs=[])):
        outputs = server.infer("puppet", request).json["outputs"]
        assert [output["name"] for output in outputs] == ["Y", "TOLD"]


def test_outputs_come_in_the_order_asked_for(server: Served) -> None:
    wanted = [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]
    ones = np.ones(4, np.float32)
    inputs = [json_tensor("INPUT1", 2 * ones), json_tensor("INPUT0", ones)]
    answer = server.infer("add_sub", {"inputs": inputs, "outputs": wanted})
    assert [(o["name"], o["data"]) for o in answer.json["outputs"]] == [
        ("OUTPUT1", [-1.0] * 4),
        ("OUTPUT0", [3.0] * 4),
    ]


@pytest.mark.extension("binary_tensor_data")
def test_binary_in_and_out(server: Served) -> None:
    tensor = {
        "name": "X",
        "datatype": "FP32",
        "shape": [1, 3],
        "parameters": {"binary_data_size": 12},
    }
    wanted = [{"name": "Y", "parameters": {"binary_data": True}}, {"name": "TOLD"}]
    body, length = binary_request({"inputs": [tensor], "outputs": wanted}, THREE.tobytes())
    answer = server.infer("puppet", body, inference_header_content_length=length)
    header, tensors = taken_apart(answer)
    assert tensors == {"Y": THREE.tobytes()}
    assert header["outputs"][0] == {**tensor, "name": "Y"}
    assert "data" in header["outputs"][1]


@pytest.mark.extension("binary_tensor_data")
def test_binary_data_output_holds_for_all_but_those_that_say_no(server: Served) -> None:
    wanted = [{"name": "Y", "parameters": {"binary_data": False}}, {"name": "TOLD"}]
    request = json_request(1, 2, parameters={"binary_data_output": True}, outputs=wanted)
    header, tensors = taken_apart(server.infer("puppet", request))
    assert list(tensors) == ["TOLD"]
    assert header["outputs"][0]["data"] == [1.0, 2.0]

    everything = json_request(1, 2, parameters={"binary_data_output": True})
    assert set(taken_apart(server.infer("puppet", everything))[1]) == {"Y", "TOLD"}


@pytest.mark.extension("binary_tensor_data")
def test_raw_form(server: Served) -> None:
    answer = server.infer("newest", THREE.tobytes(), inference_header_content_length="0")
    header, tensors = taken_apart(answer)
    assert tensors == {"Y": THREE.tobytes()}
    assert header["outputs"][0]["shape"] == [1, 3]


@pytest.mark.extension("binary_tensor_data")
def test_raw_form_of_text_is_the_element_itself(server: Served) -> None:
    answer = server.infer("text", b"hello", inference_header_content_length="0")
    assert taken_apart(answer)[1] == {"Y": struct.pack("<I", 5) + b"hello"}


@pytest.mark.extension("binary_tensor_data")
@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        ("newest", b"12345", "The shape of the raw input 'X' can not be deduced from 5 bytes"),
        (
            "add_sub",
            b"1234",
            "Raw request must only have 1 input (found 2) to be deduced but got 2",
        ),
        ("classes", b"1234", "input byte size mismatch for input 'X'"),
    ],
)
def test_raw_form_that_can_not_be(server: Served, model: str, body: bytes, text: str) -> None:
    answer = server.infer(model, body, inference_header_content_length="0")
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.extension("parameters")
def test_id_and_parameters_reach_the_model(server: Served) -> None:
    parameters = {"text": "grüße", "number": -7, "yes": True, "half": 0.5, "large": 2**63}
    answer = server.infer("puppet", json_request(1.0, id="request 1", parameters=parameters))
    assert answer.json["id"] == "request 1"
    assert told(answer)["id"] == "request 1"
    assert told(answer)["parameters"] == parameters


@pytest.mark.extension("parameters")
def test_reserved_parameters_are_not_the_model_s(server: Served) -> None:
    parameters = {"priority": 1, "timeout": 10**9, "binary_data_output": False}
    assert (
        told(server.infer("puppet", json_request(1.0, parameters=parameters)))["parameters"] == {}
    )


@pytest.mark.extension("classification")
def test_classes(server: Served) -> None:
    rows = np.array([[0.25, 0.75, 0.5, 0.0], [4, 3, 2, 1]], np.float32)
    wanted = [{"name": "Y", "parameters": {"classification": 2}}]
    answer = server.infer("classes", {"inputs": [json_tensor("X", rows)], "outputs": wanted})
    assert answer.json["outputs"] == [
        {
            "name": "Y",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.750000:1:one", "0.500000:2:two", "4.000000:0:zero", "3.000000:1:one"],
        }
    ]


@pytest.mark.extension("classification")
def test_more_classes_than_there_are(server: Served) -> None:
    row = np.array([[0.25, 0.75, 0.5, 0.0]], np.float32)
    wanted = [{"name": "Y", "parameters": {"classification": 9}}]
    answer = server.infer("classes", {"inputs": [json_tensor("X", row)], "outputs": wanted})
    # the fourth class has no label
    texts = ["0.750000:1:one", "0.500000:2:two", "0.250000:0:zero", "0.000000:3"]
    assert answer.json["outputs"][0]["data"] == texts


@pytest.mark.extension("classification")
def test_classes_as_tritonclient_asks_for_them(
    http: Any,
) -> None:
    row = np.array([[0.25, 0.75, 0.5, 0.0]], np.float32)
    tensor = tritonclient.http.InferInput("X", [1, 4], "FP32").set_data_from_numpy(row)
    wanted = tritonclient.http.InferRequestedOutput("Y", class_count=1)
    result = http.infer("classes", [tensor], outputs=[wanted])
    assert result.as_numpy("Y").tolist() == [[b"0.750000:1:one"]]


@pytest.mark.parametrize(
    ("encoding", "compress", "decompress"),
    [("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
)
def test_compressed_bodies(
    server: Served,
    encoding: str,
    compress: Callable[[bytes], bytes],
    decompress: Callable[[bytes], bytes],
) -> None:
    body = compress(json.dumps(json_request(1, 2, 3)).encode())
    answer = server.infer("puppet", body, content_encoding=encoding, accept_encoding=encoding)
    assert answer.status == 200
    assert answer.headers["content-encoding"] == encoding
    assert json.loads(decompress(answer.body))["outputs"][0]["data"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_as_tritonclient_does_it(http: Any, encoding: str) -> None:
    array = np.arange(2000, dtype=np.float32).reshape(2, 1000)
    tensor = tritonclient.http.InferInput("X", [2, 1000], "FP32").set_data_from_numpy(array)
    result = http.infer(
        "puppet",
        [tensor],
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    assert np.array_equal(result.as_numpy("Y"), array)
    assert result.get_output("Y")["parameters"]["binary_data_size"] == 8000


def test_a_given_version(server: Served) -> None:
    body = json_request(1.0)
    for path, version in (("newest_two/versions/2", "2"), ("newest_two", "3")):
        assert server.infer(path, body).json["model_version"] == version
