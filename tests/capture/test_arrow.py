"""Records → columns: each datatype as its own, what is missing as null, what is hashed or cut as that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captured import KEY, TIME_US, config, kept, record, table, tensors_of
from penstock.capture.arrow import rows_of, schema_of, to_arrow
from penstock.capture.columns import Table
from penstock.capture.messages import Kept, Record, SequencePlace
from penstock.capture.redaction import Redaction
from penstock.types import NUMPY_DTYPES


def arrow(of: Table, *records: Record, redaction: Redaction | None = None) -> pa.Table:
    """All columns."""
    rows = [row for at, each in enumerate(records) for row in rows_of(of, each, f"n-{at}")]
    made = to_arrow(of, schema_of(of), rows, redaction or Redaction())
    made.validate(full=True)
    return made


def test_what_every_table_has() -> None:
    place = SequencePlace("s", True, False)
    made = arrow(
        table(), record(sequence=place), record(request_id="", digest="", outcome="QueueFull")
    )
    first, second = made.to_pylist()
    assert first["time"].timestamp() * 1e6 == TIME_US
    del first["time"]
    assert first == {
        "record": "n-0",
        "response": 0,
        "request_id": "r",
        "tenant": "team",
        "model_version": 3,
        "model_digest": "sha256:0",
        "outcome": "ok",
        "duration_us": 250,
        "sample": 1.0,
        "sequence_id": "s",
        "sequence_start": True,
        "sequence_end": False,
        "truncated": False,
        "input_X": [1, 2],
        "shape_input_X": [2],
        "output_Y": [3],
        "shape_output_Y": [1],
    }
    for name in ("request_id", "model_digest", "sequence_id", "sequence_start"):
        assert second[name] is None
    assert second["outcome"] == "QueueFull"


@pytest.mark.parametrize("datatype", [name for name in NUMPY_DTYPES if name != "BYTES"])
def test_numbers_keep_their_values(datatype: str) -> None:
    values = [0, 1] if datatype == "BOOL" else [0, 1, 250 if datatype == "UINT8" else 100]
    of = table(of=config(input=tensors_of(X=datatype), output=()))
    made = arrow(of, record(inputs=[kept(values, datatype)], responses=[]))
    assert made["input_X"].to_pylist() == [values]
    # what Delta tables have no type for, or take for negative
    assert made.schema.field("input_X").type.value_type not in (
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.float16(),
    )
    assert made.schema.field("input_X").metadata[b"penstock.datatype"] == datatype.encode()


@given(
    st.lists(
        st.none() | st.lists(st.floats(width=32, allow_nan=False), max_size=5),
        min_size=1,
        max_size=6,
    )
)
def test_what_a_request_has_not_is_null_and_no_empty_list(values: list[list[float] | None]) -> None:
    records = [
        record(inputs=[None if each is None else kept(each)], responses=[]) for each in values
    ]
    made = arrow(table(), *records)
    assert made["input_X"].to_pylist() == values
    shapes = [None if each is None else [len(each)] for each in values]
    assert made["shape_input_X"].to_pylist() == shapes
    assert made["output_Y"].null_count == len(values)


@given(st.lists(st.none() | st.lists(st.binary(max_size=8), max_size=4), min_size=1, max_size=5))
def test_bytes_are_kept_as_they_are(values: list[list[bytes] | None]) -> None:
    of = table(of=config(input=tensors_of(X="STRING"), output=()))
    records = [
        record(inputs=[None if each is None else kept(each, "BYTES")], responses=[])
        for each in values
    ]
    assert arrow(of, *records)["input_X"].to_pylist() == values


def test_shapes_are_those_of_the_request() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    made = arrow(table(), record(inputs=[Kept((2, 3), memoryview(array.tobytes()))]))
    assert made["shape_input_X"].to_pylist() == [[2, 3]]
    assert made["input_X"].to_pylist() == [[0, 1, 2, 3, 4, 5]]


def test_one_row_a_response_with_the_inputs_in_the_first() -> None:
    responses: Any = [[kept([1])], [kept([2])], [None]]
    made = arrow(table(), record(responses=responses))
    assert made["response"].to_pylist() == [0, 1, 2]
    assert made["record"].to_pylist() == ["n-0"] * 3
    assert made["input_X"].to_pylist() == [[1, 2], None, None]
    assert made["output_Y"].to_pylist() == [[1], [2], None]


def test_text_is_readable_whatever_it_is() -> None:
    of = table(of=config(input=tensors_of(T="STRING"), output=()), text=("T",))
    made = arrow(of, record(inputs=[kept(["né".encode(), b"\xff!"], "BYTES")]))
    assert made["input_T"].to_pylist() == [["né", "\\xff!"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (("T",), ["abcd", "né", "n€", "ok"]),
        ((), [b"abcd", b"n\xc3\xa9\xe2", b"n\xe2\x82\xac", b"ok"]),
    ],
)
def test_long_elements_are_cut_and_it_is_said(text: tuple[str, ...], expected: list[Any]) -> None:
    """Those of text to whole characters."""
    of = table(of=config(input=tensors_of(T="STRING"), output=()), text=text, max_string_bytes=4)
    elements = [b"abcdef", "né€".encode(), "n€€".encode(), b"ok"]
    short = record(inputs=[kept([b"ok"], "BYTES")])
    made = arrow(of, record(inputs=[kept(elements, "BYTES")]), short)
    assert made["input_T"].to_pylist()[0] == expected
    assert made["truncated"].to_pylist() == [True, False]


def test_hashed_tensors() -> None:
    of = table(
        of=config(input=tensors_of(USER="STRING", ID="INT64"), output=()),
        hash=("*",),
        max_string_bytes=1,
    )
    redaction = Redaction("hash", lambda: KEY)
    inputs = [kept([b"alice", b"bob", b"alice"], "BYTES"), kept([1, 2], "INT64")]
    made = arrow(of, record(inputs=inputs), redaction=redaction)
    ((one, other, again),) = made["input_USER"].to_pylist()
    assert one == again == redaction.tensor(b"alice") != other
    assert made["input_ID"].to_pylist() == [[redaction.tensor(np.array([1, 2]).tobytes())]]
    assert made["tenant"].to_pylist() == [redaction.tenant("team")]
    assert made["truncated"].to_pylist() == [False]
