"""Bodies of KServe V1 predictions: rows and whole tensors, for models with and without a batch dimension."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.gateway.json_tensors import BINARY_ONLY
from penstock.gateway.v1_request import V1Request, decode_predict
from penstock.model_config import ModelConfig
from penstock.tensors import as_array
from penstock.types import NUMPY_DTYPES, Array
from tensor_strategies import arrays as arrays_of

pytestmark = pytest.mark.extension("kserve_v1")


def model(largest: int, **inputs: tuple[str, list[int]]) -> ModelConfig:
    tensors = [
        {
            "name": name,
            "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
            "dims": dims,
        }
        for name, (datatype, dims) in inputs.items()
    ]
    config = {"name": "m", "max_batch_size": largest, "input": tensors, "output": tensors[:1]}
    return msgspec.convert(config, ModelConfig)


ROWS = model(8, X=("FP32", [3]))
TEXTS = model(8, X=("BYTES", [1]))
WHOLE = model(0, X=("FP32", [3]))
PAIR = model(8, A=("INT32", [2]), B=("BYTES", [1]))
FREE = model(8, X=("FP32", [-1]))


def decode(config: ModelConfig, body: dict[str, Any] | bytes) -> V1Request:
    return decode_predict(body if isinstance(body, bytes) else json.dumps(body).encode(), config)


def arrays(decoded: V1Request) -> dict[str, Array]:
    pairs = zip(decoded.specs, decoded.buffers, strict=True)
    return {spec.name: as_array(spec.datatype, spec.shape, buffer) for spec, buffer in pairs}


@pytest.mark.parametrize(
    ("config", "body", "expected"),
    [
        (ROWS, {"instances": [[1, 2, 3], [4, 5.5, 6]]}, {"X": [[1, 2, 3], [4, 5.5, 6]]}),
        (ROWS, {"instances": [{"X": [1, 2, 3]}]}, {"X": [[1, 2, 3]]}),
        (ROWS, {"inputs": [[1, 2, 3]]}, {"X": [[1, 2, 3]]}),
        (ROWS, {"inputs": {"X": [[1, 2, 3]]}, "instances": None}, {"X": [[1, 2, 3]]}),
        (TEXTS, {"instances": ["a", "ü"]}, {"X": [[b"a"], ["ü".encode()]]}),
        (TEXTS, {"instances": [["a"], [{"b64": "AP8="}]]}, {"X": [[b"a"], [b"\0\xff"]]}),
        (TEXTS, {"instances": [{"b64": "AP8="}]}, {"X": [[b"\0\xff"]]}),
        (TEXTS, {"inputs": ["a", "b"]}, {"X": [[b"a"], [b"b"]]}),
        (FREE, {"instances": [1, 2]}, {"X": [[1], [2]]}),
        (WHOLE, {"inputs": [1, 2, 3]}, {"X": [1, 2, 3]}),
        (WHOLE, {"instances": [1, 2, 3]}, {"X": [1, 2, 3]}),
        (
            PAIR,
            {"instances": [{"A": [1, 2], "B": "x"}, {"B": "y", "A": [3, 4]}]},
            {"A": [[1, 2], [3, 4]], "B": [[b"x"], [b"y"]]},
        ),
        (
            PAIR,
            {"inputs": {"A": [[1, 2]], "B": [["x"]]}, "signature_name": "ignored"},
            {"A": [[1, 2]], "B": [[b"x"]]},
        ),
    ],
)
def test_values(config: ModelConfig, body: dict[str, Any], expected: dict[str, Any]) -> None:
    decoded = decode(config, body)
    assert {name: array.tolist() for name, array in arrays(decoded).items()} == expected
    assert not decoded.is_row


def test_one_instance_may_be_all_that_a_model_takes() -> None:
    decoded = decode(WHOLE, {"instances": [[1, 2, 3]]})
    assert decoded.is_row
    assert decoded.specs[0].shape == (3,)


def test_numbers_that_json_lacks() -> None:
    (array,) = arrays(decode(ROWS, b'{"instances": [[NaN, -Infinity, 1]]}')).values()
    assert array.tolist()[0][1:] == [-np.inf, 1]
    assert np.isnan(array[0, 0])


@pytest.mark.parametrize(
    ("config", "body", "text"),
    [
        (ROWS, b"{", "Unrecognized request format"),
        (ROWS, b"[1]", "Unrecognized request format"),
        (ROWS, b"[NaN]", "Unrecognized request format: expected an object"),
        (ROWS, b"\xff", "Unrecognized request format"),
        (ROWS, b'{"inputs": ' + b"[" * 200, "nest"),
        (ROWS, {}, "got neither"),
        (ROWS, {"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "got both"),
        (ROWS, {"instances": []}, "at least one value"),
        (ROWS, {"instances": {"X": [1]}}, "a list with at least one value"),
        (ROWS, {"instances": [[1, 2], [1]]}, "'X': lists on one level must have the same length"),
        (ROWS, {"instances": [[1, [2]]]}, "'X': values and lists are mixed"),
        (ROWS, {"instances": [[1, "2", 3]]}, "'X': can't take 'data' as FP32"),
        (ROWS, {"instances": [[1, None, 3]]}, "'X': can't take 'data' as FP32"),
        (ROWS, {"instances": [{"Y": [1]}]}, "unexpected inference input 'Y' for model 'm'"),
        (ROWS, {"instances": [{"X": [1]}, [1]]}, "instance 1 differs from the first"),
        (ROWS, {"instances": [[1], {"X": [1]}]}, "instance 0 differs from the first"),
        (PAIR, {"instances": [{"A": [1, 2]}, {"B": "x"}]}, "instance 1 differs"),
        (PAIR, {"instances": [[1, 2]]}, "has the inputs A, B: expected objects"),
        (PAIR, {"inputs": [[1, 2]]}, "has the inputs A, B: expected objects"),
        (PAIR, {"inputs": {"A": [[1, 2**31]], "B": ["x"]}}, "'A': can't take 'data' as INT32"),
        (TEXTS, {"instances": [1]}, "'X': expected texts, or {\"b64\""),
        (TEXTS, {"instances": [{"b64": "?"}]}, "input 'X'"),
        (TEXTS, {"instances": [{"b64": "ü"}]}, "'X': string argument should contain only ASCII"),
        (TEXTS, {"instances": [{"b64": 1}]}, "'X': expected texts"),
        (TEXTS, b'{"instances": ["\\ud800"]}', "Unrecognized request format"),
        (TEXTS, b'{"instances": ["\\ud800 NaN"]}', "Unrecognized request format"),
        (ROWS, b'{"instances": [{"\\ud800": [NaN]}]}', "Unrecognized request format"),
    ],
)
def test_what_is_wrong_is_told(
    config: ModelConfig, body: dict[str, Any] | bytes, text: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(config, body)
    assert text in str(raised.value)


@given(arrays_of([name for name in NUMPY_DTYPES if name not in BINARY_ONLY and name != "BYTES"]))
def test_what_json_can_hold_comes_through(typed: tuple[str, Array]) -> None:
    datatype, array = typed
    shape = array.shape or (1,)
    if 0 in shape[:-1]:
        # JSON can't tell what would have been in there
        shape = (0,)
    config = model(0, X=(datatype, [-1] * len(shape)))
    body = json.dumps({"inputs": array.reshape(shape).tolist()}).encode()
    (back,) = arrays(decode(config, body)).values()
    assert (back.dtype, back.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(back.ravel(), array.ravel())


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_short_floats_come_as_json_too(datatype: str) -> None:
    config = model(8, X=(datatype, [2]))
    (back,) = arrays(decode(config, {"instances": [[-1.5, 100], [0, 2]]})).values()
    assert back.dtype == NUMPY_DTYPES[datatype]
    assert back.astype(np.float32).tolist() == [[-1.5, 100], [0, 2]]


@pytest.mark.parametrize(
    ("datatype", "largest", "beyond"), [("FP16", 65504.0, 65520.0), ("BF16", 3.38e38, 3.4e38)]
)
def test_short_floats_keep_within_their_range(datatype: str, largest: float, beyond: float) -> None:
    config = model(8, X=(datatype, [2]))
    (back,) = arrays(decode(config, b'{"instances": [[-Infinity, %f]]}' % largest)).values()
    assert np.isinf(back.astype(np.float32)).tolist() == [[True, False]]
    with pytest.raises(InvalidRequest, match=f"'X': .* is out of the range of {datatype}"):
        decode(config, {"instances": [[1, beyond]]})


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_bytes_come_through(elements: list[bytes]) -> None:
    instances = [{"b64": base64.b64encode(element).decode()} for element in elements]
    (back,) = arrays(decode(TEXTS, {"instances": instances})).values()
    assert back.ravel().tolist() == elements
