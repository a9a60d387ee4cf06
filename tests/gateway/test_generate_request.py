"""Generate requests → tensors and parameters."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.generate_request import decode_generate
from penstock.model_config import ModelConfig, Tensor
from penstock.tensors import as_array

pytestmark = pytest.mark.extension("generate")


def tensor(name: str, kind: str, *dims: int) -> Tensor:
    return Tensor(name=name, data_type=f"TYPE_{kind}", dims=dims)


TEXT = tensor("text_input", "STRING", 1)
FLAG = tensor("stream", "BOOL", 1)
INPUTS = (TEXT, FLAG, tensor("N", "INT32", -1))


def decode(
    body: Any, *inputs: Tensor, largest: int = 8
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Input → (shape, elements), parameters, id."""
    config = ModelConfig(name="m", max_batch_size=largest, input=inputs or INPUTS)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    header, request_id, buffers = decode_generate(config, "2", text)
    assert (header.model_name, header.model_version) == ("m", "2")
    found = {
        spec.name: (spec.shape, as_array(spec.datatype, spec.shape, data).ravel().tolist())
        for spec, data in zip(header.inputs, buffers, strict=True)
    }
    return found, dict(header.parameters), request_id


def test_keys_are_inputs_or_parameters() -> None:
    body = {"id": "q", "text_input": "héllo", "stream": True, "temperature": 0.5, "seed": 1}
    inputs, parameters, request_id = decode(body)
    assert inputs == {"text_input": ((1, 1), ["héllo".encode()]), "stream": ((1, 1), [True])}
    assert parameters == {"temperature": 0.5, "seed": 1}
    assert request_id == "q"


def test_the_key_for_parameters_may_hold_inputs_too() -> None:
    body = {"text_input": "a", "parameters": {"stream": False, "top": "k"}, "seed": 1}
    inputs, parameters, request_id = decode(body)
    assert inputs["stream"] == ((1, 1), [False])
    assert parameters == {"seed": 1, "top": "k"}
    assert request_id == ""


@pytest.mark.parametrize(
    ("dims", "largest", "value", "shape"),
    [
        ((1,), 8, 7, (1, 1)),
        ((1,), 0, 7, (1,)),
        ((1,), 8, [7, 8, 9], (3, 1)),
        ((-1,), 8, [7, 8, 9], (1, 3)),
        ((-1,), 8, [], (1, 0)),
        ((2, -1), 8, [1, 2, 3, 4], (1, 2, 2)),
        ((-1, -1), 0, [1, 2, 3], (1, 3)),
        ((-1, 2), 0, [1, 2, 3, 4], (2, 2)),
        ((2, 2), 0, [[1, 2], [3, 4]], (2, 2)),
        ((), 8, [1, 2], (2,)),
        ((), 0, 1, ()),
    ],
)
def test_shapes(dims: tuple[int, ...], largest: int, value: Any, shape: tuple[int, ...]) -> None:
    found, _, _ = decode({"N": value}, tensor("N", "INT32", *dims), largest=largest)
    assert found["N"] == (shape, np.array(value).ravel().tolist())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "failed to parse the request JSON buffer"),
        (b"{", "failed to parse the request JSON buffer"),
        (b"[1]", "it is not an object"),
        (b'{"text_input": "\xff"}', "failed to parse the request JSON buffer"),
        (b'{"text_input": "\\ud800"}', "failed to parse the request JSON buffer"),
        (b"[" * 200, "JSON nests deeper than 100"),
        (b'{"text_input": "a", "text_input": "b"}', "input 'text_input' already exists"),
        (b'{"p": 1, "p": 1}', "parameter 'p' already exists"),
        ({"text_input": "a", "parameters": {"text_input": "b"}}, "'text_input' already exists"),
        ({"text_input": 1}, "input 'text_input': attempt to access JSON non-string as string"),
        ({"text_input": {"a": "b"}}, "attempt to access JSON non-string as string"),
        ({"text_input": None}, "attempt to access JSON non-string as string"),
        ({"stream": "no"}, "input 'stream': attempt to access JSON non-boolean as boolean"),
        ({"N": ["a"]}, "input 'N': can't take 'data' as INT32"),
        ({"N": [[1], 2]}, "input 'N': 'data' mixes elements and lists on one level"),
        ({"N": 2**40}, "input 'N': can't take 'data' as INT32"),
        ({"parameters": 1}, "Expected JSON object for keyword: 'parameters'"),
        ({"parameters": None}, "Expected JSON object for keyword: 'parameters'"),
        ({"parameters": {"p": {}}}, "Converting keyword: 'parameters': parameter 'p' has invalid"),
        ({"p": []}, "parameter 'p' has invalid type"),
        ({"triton_x": 1}, "parameter keys starting with 'triton_' are reserved"),
        ({"id": 1}, "Unable to parse 'id': attempt to access JSON non-string as string"),
    ],
)
def test_what_is_wrong(body: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body)
    assert text in str(caught.value)


def test_elements_that_do_not_fill_a_shape() -> None:
    for dims, value in (((3,), [1, 2]), ((2, 2), [1, 2]), ((0,), [1])):
        with pytest.raises(InvalidRequest, match="can not convert input 'N' to tensor with proper"):
            decode({"N": value}, tensor("N", "INT32", *dims), largest=0)


def test_inputs_may_have_the_names_of_keys() -> None:
    inputs, parameters, request_id = decode({"id": "x"}, tensor("id", "STRING", 1))
    assert (inputs, parameters, request_id) == ({"id": ((1, 1), [b"x"])}, {}, "")
    with pytest.raises(InvalidRequest, match="'parameters' for nested schema also given as input"):
        decode({"parameters": {"a": 1}}, tensor("parameters", "STRING", 1))


def test_floats_may_be_nan() -> None:
    found, _, _ = decode(b'{"F": [NaN, 1]}', tensor("F", "FP32", -1))
    assert np.isnan(found["F"][1][0])
    with pytest.raises(InvalidRequest, match="receiving FP16 data via JSON is not supported"):
        decode({"F": 1.0}, tensor("F", "FP16", -1))
