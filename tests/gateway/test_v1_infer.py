"""Answers of KServe V1 predictions: rows where there are rows, and everything as JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidRequest
from penstock.gateway import v1_infer
from penstock.gateway.v1_infer import V1Encoder
from penstock.types import NUMPY_DTYPES, OutputTensor
from tensor_strategies import to_wire

pytestmark = pytest.mark.extension("kserve_v1")


def output(name: str, datatype: str, values: Any) -> OutputTensor:
    array = np.array(values, NUMPY_DTYPES[datatype])
    return OutputTensor(name, datatype, array.shape, memoryview(to_wire(datatype, array)))


def encoded(*outputs: OutputTensor, batched: bool = True, is_row: bool = False) -> Any:
    model: Any = SimpleNamespace(config=SimpleNamespace(max_batch_size=8 if batched else 0))
    request: Any = None
    return json.loads(V1Encoder(model, is_row)(request, list(outputs)))["predictions"]


def test_one_output_is_a_value_a_row() -> None:
    assert encoded(output("Y", "FP32", [[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert encoded(output("Y", "INT64", [1, 2])) == [1, 2]


def test_several_outputs_are_an_object_a_row() -> None:
    y, z = output("Y", "BOOL", [[True], [False]]), output("Z", "BYTES", [[b"a"], [b"b"]])
    assert encoded(y, z) == [{"Y": [True], "Z": ["a"]}, {"Y": [False], "Z": ["b"]}]


def test_without_a_batch_dimension() -> None:
    y, z = output("Y", "FP32", [1, 2]), output("Z", "FP32", 3)
    assert encoded(y, batched=False) == [1, 2]
    assert encoded(y, batched=False, is_row=True) == [[1, 2]]
    assert encoded(z, batched=False) == [3]
    assert encoded(y, z, batched=False) == [{"Y": [1, 2], "Z": 3}]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_short_floats(datatype: str) -> None:
    assert encoded(output("Y", datatype, [[1.5, -2]])) == [[1.5, -2]]


def test_bytes_that_are_no_text() -> None:
    assert encoded(output("Y", "BYTES", [[b"a", b"\0\xff"]])) == [["a", {"b64": "AP8="}]]


def test_numbers_that_json_lacks() -> None:
    ((nan, infinite),) = encoded(output("Y", "FP64", [[np.nan, -np.inf]]))
    assert np.isnan(nan)
    assert infinite == -np.inf


def test_no_output_may_keep_everybody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1_infer, "MAX_JSON_BYTES", 11)
    with pytest.raises(InvalidRequest, match="12 bytes, JSON may carry 11"):
        encoded(output("Y", "FP32", [1]), output("Z", "FP64", [1]))
