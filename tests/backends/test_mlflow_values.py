"""Tensors as what a model's `predict` takes, and what it returned as tensors. No model is loaded."""

from __future__ import annotations

import json
from collections import namedtuple
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlflow_models import columns, tensors
from penstock.backends.mlflow_inputs import Inputs
from penstock.backends.mlflow_outputs import ModelOutputs
from penstock.backends.mlflow_schema import Schema, parse_schema
from penstock.errors import InvalidRequest, ModelFailed
from penstock.types import Array

pytestmark = pytest.mark.extension("mlflow")

Pair = namedtuple("Pair", "a b")


def inputs(text: str) -> Inputs:
    return Inputs(parse_schema(text, "here", "input-"))


def schema(text: str) -> Schema:
    return parse_schema(text, "here", "output-")


def texts(*values: bytes) -> Array:
    array = np.empty((len(values), 1), np.object_)
    array[:, 0] = values
    return array


# ── inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensors() -> None:
    array = np.ones((2, 3), np.float32)
    made = inputs(tensors((None, "float32", [-1, 3])))({"input-0": array})
    assert np.shares_memory(made, array)
    assert not made.flags.writeable
    made = inputs(tensors(("x", "float32", [-1, 3]), ("s", "str", [-1, 1])))(
        {"s": texts(b"a", "ö".encode()), "x": array}
    )
    assert list(made) == ["x", "s"]
    assert made["s"].tolist() == [["a"], ["ö"]]


def test_a_table() -> None:
    text = columns(
        ("flag", "boolean"),
        ("n", "long"),
        ("x", "double"),
        ("text", "string"),
        ("bytes", "binary"),
        ("when", "datetime"),
        ("object", "object"),
    )
    table = inputs(text)(
        {
            "when": texts(b"2026-01-02T03:04:05.678+01:00", b""),
            "flag": np.array([[True], [False]]),
            "n": np.array([[1], [2]]),
            "x": np.array([[np.nan], [-np.inf]]),
            "text": texts(b"", b"\xc3\xb6"),
            "bytes": texts(b"\xff", b""),
            "object": texts(b'{"a": [1]}', b"null"),
        }
    )
    assert list(table.columns) == ["flag", "n", "x", "text", "bytes", "when", "object"]
    assert [str(d) for d in table.dtypes] == [
        *("bool", "int64", "float64", "object", "object", "datetime64[ns]", "object"),
    ]
    assert table["when"][0] == pd.Timestamp("2026-01-02T02:04:05.678")
    assert pd.isna(table["when"][1])
    assert np.isnan(table["x"][0])
    assert table["text"].tolist() == ["", "ö"]
    assert table["bytes"].tolist() == [b"\xff", b""]
    assert table["object"].tolist() == [{"a": [1]}, None]


def test_columns_without_names_and_optional_ones() -> None:
    table = inputs(columns((None, "double"), (None, "long")))(
        {"input-1": np.array([[2]]), "input-0": np.array([[0.5]])}
    )
    assert table.columns.tolist() == [0, 1]
    optional = inputs(columns(("a", "double"), required=False))
    assert optional({}).columns.tolist() == []


def test_columns_of_arrays() -> None:
    items = {"type": "array", "items": {"type": "double"}}
    given = [
        {"name": "a", **items},
        {"name": "b", "type": "array", "items": items},
        {"name": "s", "type": "array", "items": {"type": "string"}},
    ]
    table = inputs(json.dumps(given))(
        {
            "a": np.array([[1.0, 2.0], [3.0, 4.0]]),
            "b": np.zeros((2, 1, 3)),
            "s": np.array([[b"x", b"y"], [b"z", b""]], np.object_),
        }
    )
    assert table["a"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert table["b"][1] == [[0.0, 0.0, 0.0]]
    assert table["s"].tolist() == [["x", "y"], ["z", ""]]


def test_a_table_is_the_models_own() -> None:
    array = np.zeros((2, 1))
    table = inputs(columns(("a", "double")))({"a": array})
    table.loc[0, "a"] = 7.0
    assert array[0, 0] == 0


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (
            "string",
            b"\xff",
            "input 'a' is a text, and holds bytes that are not UTF-8: .* at byte 0",
        ),
        ("datetime", b"soon", "input 'a' is 'soon', expected a time as ISO 8601 has it"),
        ("datetime", b"9999-01-01", "out of the range"),
        ("datetime", b"0001-01-01T00:00:00+10:00", "'0001"),
        ("datetime", b"\xff", "not UTF-8"),
        ("object", b"{", "input 'a' is b'{', expected a JSON document"),
    ],
)
def test_what_is_not_of_its_type(kind: str, value: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        inputs(columns(("a", kind)))({"a": texts(value)})


# ── outputs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def made(text: str, returned: Any, rows: int = 2) -> dict[str, Any]:
    outputs = ModelOutputs(schema(text), batching=True)(returned, rows)
    return {name: array.tolist() for name, array in outputs.items()}


ONE = tensors((None, "float32", [-1]))
MATRIX = tensors((None, "float32", [-1, 2]))
NAMED = tensors(("a", "float32", [-1]), ("b", "int64", [-1, 1]))
AB = columns(("a", "double"), ("b", "string"))


@pytest.mark.parametrize(
    "returned",
    [
        np.array([1.0, 2.0], np.float32),
        np.array([1.0, 2.0]),
        np.array([1, 2]),
        np.array([[1.0], [2.0]]),
        pd.Series([1.0, 2.0]),
        pd.Series([1, 2], dtype=object),
        pd.DataFrame({"whatever": [1.0, 2.0]}),
        [1.0, 2.0],
        [[1.0], [2.0]],
        {"whatever": [1.0, 2.0]},
        (1.0, 2.0),
    ],
)
def test_one_tensor(returned: Any) -> None:
    assert made(ONE, returned) == {"output-0": [1.0, 2.0]}


@pytest.mark.parametrize(
    "returned",
    [
        np.array([[1, 2], [3, 4]]),
        pd.DataFrame({"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        [[1.0, 2.0], [3.0, 4.0]],
        [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
        pd.Series([[1.0, 2.0], [3.0, 4.0]]),
        {"scores": np.array([[1.0, 2.0], [3.0, 4.0]])},
    ],
)
def test_a_matrix(returned: Any) -> None:
    assert made(MATRIX, returned) == {"output-0": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize(
    "returned",
    [
        {"b": [[5], [6]], "a": np.array([1.0, 2.0])},
        (np.array([1.0, 2.0]), np.array([5, 6])),
        [[1.0, 2.0], [5, 6]],
        Pair(np.array([1.0, 2.0]), np.array([[5], [6]])),
        pd.DataFrame({"b": [5, 6], "a": [1.0, 2.0]}),
        [{"a": 1.0, "b": 5}, {"a": 2.0, "b": 6}],
    ],
)
def test_several_tensors(returned: Any) -> None:
    assert made(NAMED, returned) == {"a": [1.0, 2.0], "b": [[5], [6]]}


@pytest.mark.parametrize(
    "returned",
    [
        pd.DataFrame({"b": ["x", None], "a": [1.0, None], "more": [1, 2]}),
        pd.DataFrame([[1.0, "x"], [None, None]]),
        {"a": [1.0, float("nan")], "b": ["x", ""]},
        [{"a": 1.0, "b": "x"}, {"a": None, "b": None}],
        np.array([[1.0, "x"], [np.nan, None]], object),
        [[1.0, "x"], [None, None]],
    ],
)
def test_columns(returned: Any) -> None:
    result = made(AB, returned)
    assert result["b"] == [[b"x"], [b""]]
    assert result["a"][0] == [1.0]
    assert np.isnan(result["a"][1][0])


def test_texts() -> None:
    text = columns(("s", "string"))
    for returned in (["ä", b"\xff"], np.array(["ä", b"\xff"], object), pd.Series(["ä", b"\xff"])):
        assert made(text, returned) == {"s": [["ä".encode()], [b"\xff"]]}
    assert made(text, np.array(["a", "bc"])) == {"s": [[b"a"], [b"bc"]]}
    assert made(text, [1, True]) == {"s": [[b"1"], [b"True"]]}
    assert made(tensors((None, "str", [-1, 2])), [["a", "b"], ["c", "d"]]) == {
        "output-0": [[b"a", b"b"], [b"c", b"d"]]
    }


def test_times() -> None:
    text = columns(("t", "datetime"))
    times = np.array(["2026-01-02T03:04:05.5", "NaT"], "datetime64[us]")
    for returned in (times, pd.Series(times)):
        assert made(text, returned) == {"t": [[b"2026-01-02T03:04:05.500000"], [b""]]}
    assert made(text, [datetime(2026, 1, 2), date(2026, 1, 2)]) == {
        "t": [[b"2026-01-02T00:00:00"], [b"2026-01-02"]]
    }
    assert made(text, [pd.NaT, None]) == {"t": [[b""], [b""]]}


def test_objects() -> None:
    text = columns((None, "object"))
    rows = [{"a": np.float32(1.5), "b": [np.array([1])]}, {"when": date(2026, 1, 2)}]
    expected = [[b'{"a": 1.5, "b": [[1]]}'], [b'{"when": "2026-01-02"}']]
    assert made(text, rows) == {"output-0": expected}
    assert made(text, pd.Series(rows)) == {"output-0": expected}
    assert made(text, {"a": 1}, rows=1) == {"output-0": [[b'{"a": 1}']]}
    assert made(columns(("o", "any")), [{"o": "x"}, {"o": None}]) == {"o": [[b'"x"'], [b"null"]]}
    with pytest.raises(ModelFailed, match="can't be written as JSON: object has no form"):
        made(text, [object(), 1])


def test_arrays() -> None:
    text = json.dumps([{"name": "a", "type": "array", "items": {"type": "long"}}])
    assert made(text, {"a": [[1, 2], [3, 4]]}) == {"a": [[1, 2], [3, 4]]}
    assert made(text, pd.DataFrame({"a": [[1], [2]]})) == {"a": [[1], [2]]}
    with pytest.raises(ModelFailed, match="output 'a' can't be made INT64"):
        made(text, {"a": [[1], [2, 3]]})


@pytest.mark.parametrize(
    ("text", "returned", "reason"),
    [
        (ONE, None, "output 'output-0' can't be made FP32|has shape"),
        (ONE, [1.0, 2.0, 3.0], r"has shape \[3\], expected first dimension 2"),
        (ONE, 1.0, r"has shape \[\], expected \[-1\]"),
        (ONE, ["a", "b"], "has dtype <U1, expected float32"),
        (ONE, [None, "a"], "can't be made FP32"),
        (MATRIX, np.zeros((2, 3)), r"has shape \[2, 3\], expected \[-1, 2\]"),
        (NAMED, {"a": [1, 2]}, "the model returned a dict with a, expected a, b"),
        (NAMED, pd.DataFrame({"a": [1, 2]}), "returned a table with a, expected a, b"),
        (NAMED, np.zeros((2, 3)), r"returned an array of shape \[2, 3\], expected a, b"),
        (NAMED, [1, 2, 3], "returned list, expected a, b"),
        (NAMED, [{"a": 1, "b": 2}, {"a": 1}], "returned a row without 'b'"),
        (AB, [[1], [2, 3]], "returned list, expected a, b"),
        (columns(("a", "integer")), [2**40, 1], "numbers that INT32 can't hold"),
        (columns(("a", "long")), [0.5, 1.5], "has dtype float64, expected int64"),
    ],
)
def test_what_is_not_as_declared(text: str, returned: Any, reason: str) -> None:
    with pytest.raises(ModelFailed, match=reason):
        made(text, returned)
