"""Rows as tensors: what columns have to be, and the ways to get at rows, which all give the same ones."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock_training.data.columns import Column
from penstock_training.data.errors import BadValues, SchemaMismatch
from penstock_training.data.lake import Lake
from penstock_training.data.order import lane_order
from penstock_training.data.rows import GroupedRows, TensorRows, by_row_groups, in_memory, rows_of
from penstock_training.data.table import Table
from penstock_training.data.tensors import tensors_of, texts_of
from penstock_training.data_config import DataSettings, TableSettings
from penstock_training.errors import DataError

IMAGE = Column("image", "number", (1, 2, 2))
LABEL = Column("label", "whole", limits=(0, 9))
PIXELS = Column("image", "number", (4,), tensor="PIXELS")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """64 rows in 16 row groups of two files; the label is the row's number modulo 10."""
    for part in range(2):
        numbers = np.arange(32) + 32 * part
        images = [[float(n)] * 4 for n in numbers]
        data = pa.table({"image": pa.array(images, pa.list_(pa.float32())), "label": numbers % 10})
        pq.write_table(data, tmp_path / f"{part}.parquet", row_group_size=4)
    return Lake(tmp_path / "run").open(TableSettings(uri=str(tmp_path)))


def settings(**values: Any) -> DataSettings:
    """`[data]`."""
    return DataSettings(**values)


@pytest.mark.parametrize("access", ["memory", "mapped", "row_groups"])
def test_every_way_gives_the_same_rows_in_the_order_they_are_asked_for(
    table: Table, access: str
) -> None:
    rows = rows_of(table, [IMAGE, LABEL], settings(access=access, lanes=4, window=2), batch=8)
    for dataset in (rows, pickle.loads(pickle.dumps(rows))):
        wanted = torch.tensor([63, 0, 31, 32, 0, 5])
        batch = dataset.fetch(wanted)
        assert batch["image"].shape == (6, 1, 2, 2)
        assert batch["image"][:, 0, 1, 1].tolist() == wanted.tolist()
        assert batch["label"].tolist() == (wanted % 10).tolist()
        assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
        assert len(dataset) == 64
        batch["image"].zero_()
        assert dataset.fetch(wanted)["image"][0].max() == 63, "a batch is a copy"
        assert dataset.fetch(wanted[:0])["image"].shape == (0, 1, 2, 2)


def test_an_epoch_has_every_row_once_and_each_epoch_its_own_order(table: Table) -> None:
    rows = by_row_groups(table, [LABEL], batch=8, lanes=4, window=2)
    orders = [rows.order(seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(64)) for order in orders)
    assert torch.equal(orders[0], orders[3])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_reads_the_row_groups_of_its_part_of_the_batches_once_an_epoch(
    table: Table, processes: int
) -> None:
    read = []
    for rank in range(processes):
        rows = rows_of(
            table, [IMAGE, LABEL], settings(access="row_groups", lanes=4, window=2), batch=8
        )
        assert isinstance(rows, GroupedRows)
        part = 8 // processes
        for batch in rows.order(seed=1, epoch=0).reshape(-1, 8):
            rows.fetch(batch[rank * part : (rank + 1) * part])
        read.append(rows.groups_read)
    assert read == [16 // processes] * processes


def test_a_batch_has_to_be_made_of_whole_lanes(table: Table) -> None:
    with pytest.raises(
        DataError, match=r"batch_size \(9\) has to be a multiple of data.lanes \(4\)"
    ):
        rows_of(table, [LABEL], settings(access="row_groups", lanes=4), batch=9)


def test_mapped_rows_need_somewhere_to_lie(table: Table) -> None:
    homeless = Lake().open(TableSettings(uri=table.snapshot.uri))
    with pytest.raises(DataError, match="mapped files need a folder"):
        rows_of(homeless, [LABEL], settings(access="mapped"), batch=8)


def test_no_rows_are_no_error(table: Table) -> None:
    rows = in_memory(table.where("label > 100"), [IMAGE, LABEL])
    assert (len(rows), rows.tensors["image"].shape) == (0, (0, 1, 2, 2))


@given(
    st.lists(st.integers(1, 30), max_size=12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_lanes_lose_no_row_and_repeat_none(
    sizes: list[int], lanes: int, part: int, window: int, epoch: int
) -> None:
    order = lane_order(sizes, lanes * part, lanes, window, 7, epoch)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


def tensors(values: pa.Array, column: Column) -> dict[str, torch.Tensor]:
    """Of one column."""
    return tensors_of(pa.table({column.name: values}), [column], "table t, row group 2")


def test_floats_of_arrow_are_not_copied() -> None:
    values = pa.array([1.0, 2.0], pa.float32())
    tensor = tensors(values, Column("x", "number"))["x"]
    assert tensor.data_ptr() == values.buffers()[1].address


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.uint8(), 4)),
        pa.array([[1, 2, 3, 4]] * 2, pa.large_list(pa.float64())),
        pa.array([[[[1, 2], [3, 4]]]] * 2, pa.list_(pa.list_(pa.list_(pa.int16())))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[[[1, 2], [3, 4]]]] * 2, np.float32)),
        pa.array([[0, 0, 0, 0], [1, 2, 3, 4], [1, 2, 3, 4]], pa.list_(pa.float32()))[1:],
    ],
    ids=["fixed-size uint8", "large float64", "nested", "tensor", "slice"],
)
def test_lists_of_any_kind_become_tensors(values: pa.Array) -> None:
    tensor = tensors(values, IMAGE)["image"]
    assert torch.equal(tensor, torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]] * 2))


@pytest.mark.parametrize(
    ("values", "column", "says"),
    [
        ([1.0, None], Column("x", "number"), "column 'x', row 1: null, expected numbers"),
        ([1.0, float("nan")], Column("x", "number"), "row 1: nan, expected a finite number"),
        ([1.0, float("-inf")], Column("x", "number"), "row 1: -inf, expected a finite number"),
        ([1, 2, 10], LABEL, "column 'label', row 2: 10, expected 0 to 9"),
        ([[1.0] * 4, [1.0] * 3], IMAGE, r"column 'image', row 1: 3 values, expected 4"),
        ([[1.0] * 4, None], IMAGE, r"row 1: null, expected numbers \[1, 2, 2\]"),
        ([[1.0] * 4, [1, 1, None, 1]], IMAGE, "row 1: null"),
        ([[1.0] * 4] * 2 + [[1, 1, 1, float("inf")]], IMAGE, "row 2: inf"),
        ([[[[1.0, 2.0], [1.0]]]], IMAGE, "row 0: 1 values, expected 2"),
        (["a", None], Column("x", "text"), "row 1: null, expected text"),
    ],
)
def test_values_that_no_tensor_can_be_made_of(values: list[Any], column: Column, says: str) -> None:
    data = pa.table({column.name: values})
    with pytest.raises(BadValues, match=says) as caught:
        if column.kind == "text":
            texts_of(data, column, "table t, row group 2")
        else:
            tensors_of(data, [column], "table t, row group 2")
    assert str(caught.value).startswith("table t, row group 2: ")


def test_texts() -> None:
    assert texts_of(pa.table({"t": ["a", "ü"]}), Column("t", "text"), "") == ["a", "ü"]


def test_errors_say_in_which_row_group(tmp_path: Path) -> None:
    data = pa.table({"x": [1.0, 2.0, float("nan"), 4.0]})
    pq.write_table(data, tmp_path / "a.parquet", row_group_size=2)
    table = Lake().open(TableSettings(uri=str(tmp_path)))
    with pytest.raises(
        BadValues, match=r"\(parquet-\w+\), row group 1 of a.parquet: column 'x', row 0: nan"
    ):
        in_memory(table, [Column("x", "number")])


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (
            Column("lable", "whole"),
            "no column 'lable', did you mean 'label'[?]; there are: image, label",
        ),
        (Column("label", "text"), "column 'label' is int64, expected text"),
        (Column("label", "number", (4,)), r"column 'label' is int64, expected numbers \[4\]"),
        (Column("image", "number"), "column 'image' is list<.*>, expected numbers$"),
        (
            Column("image", "whole", (4,)),
            r"column 'image' is list<.*>, expected whole numbers \[4\]",
        ),
    ],
)
def test_columns_are_checked_before_anything_is_read(
    table: Table, column: Column, says: str
) -> None:
    with pytest.raises(SchemaMismatch, match=says):
        in_memory(table, [column])


def test_tensors_in_memory_are_rows() -> None:
    rows = TensorRows({"x": torch.arange(5)})
    assert (len(rows), rows.fetch(torch.tensor([4, 1]))["x"].tolist()) == (5, [4, 1])


@pytest.mark.parametrize("access", ["memory", "mapped", "row_groups"])
def test_a_batch_may_call_a_column_by_another_name(table: Table, access: str) -> None:
    rows = rows_of(table, [PIXELS], settings(access=access), batch=8)
    assert rows.fetch(torch.tensor([7]))["PIXELS"].tolist() == [[7.0] * 4]
