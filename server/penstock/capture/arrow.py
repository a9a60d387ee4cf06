"""Records → the columns of a table. Imports pyarrow: for the writer's process alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from penstock.capture.columns import Column, Table
from penstock.capture.messages import Kept, Record
from penstock.capture.redaction import Redaction
from penstock.tensors import deserialize_bytes, element_count
from penstock.types import NUMPY_DTYPES

FORMAT: Final = "1"
"""Of the table's columns: another one where readers would have to know."""

_FIXED: Final = (
    pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("record", pa.string(), nullable=False),
    pa.field("response", pa.int32(), nullable=False),
    pa.field("request_id", pa.string()),
    pa.field("tenant", pa.string()),
    pa.field("model_version", pa.int64(), nullable=False),
    pa.field("model_digest", pa.string()),
    pa.field("outcome", pa.string(), nullable=False),
    pa.field("duration_us", pa.int64(), nullable=False),
    pa.field("sample", pa.float64(), nullable=False),
    pa.field("sequence_id", pa.string()),
    pa.field("sequence_start", pa.bool_()),
    pa.field("sequence_end", pa.bool_()),
    pa.field("truncated", pa.bool_(), nullable=False),
)
"""Of every table."""

_WIDER: Final[dict[str, str]] = {
    "UINT8": "int16",
    "UINT16": "int32",
    "UINT32": "int64",
    "FP16": "float32",
    "BF16": "float32",
}
"""Datatypes that not all readers of tables have → the next larger ones, as NumPy calls them."""

_SHAPES: Final = pa.list_(pa.int64())


class Row(NamedTuple):
    """One response of a record."""

    record: Record
    name: str
    """Of the record."""
    response: int
    kept: Sequence[Kept | None]
    """Of all columns."""


def rows_of(table: Table, record: Record, name: str) -> Iterator[Row]:
    """A row for each response; the inputs are in the first one, which there always is."""
    no_inputs: list[Kept | None] = [None] * len(table.inputs)
    no_outputs: list[Kept | None] = [None] * len(table.outputs)
    for number, outputs in enumerate(record.responses or [no_outputs]):
        inputs = no_inputs if number else record.inputs
        yield Row(record, name, number, [*inputs, *outputs])


def schema_of(table: Table) -> pa.Schema:
    """The columns of a table."""
    fields = list(_FIXED)
    for column in table.columns:
        told = {
            "penstock.role": column.role,
            "penstock.tensor": column.tensor,
            "penstock.datatype": column.datatype,
            "penstock.kind": column.kind,
        }
        fields.append(pa.field(column.name, pa.list_(_item(column)), metadata=told))
        fields.append(pa.field(column.shape_name, _SHAPES))
    return pa.schema(fields, {"penstock.capture": FORMAT, "penstock.model": table.model})


def to_arrow(
    table: Table, schema: pa.Schema, rows: Sequence[Row], redaction: Redaction
) -> pa.Table:
    """All rows. Raises ConfigError where what has to be hashed can't be."""
    redaction.refresh()
    maker = _Maker(table, redaction, len(rows))
    columns: list[Any] = []
    for at, column in enumerate(table.columns):
        columns += maker.tensors(column, [row.kept[at] for row in rows])
    return pa.Table.from_arrays(
        [*_fixed(table, rows, redaction, maker.truncated), *columns], schema=schema
    )


def _fixed(
    table: Table, rows: Sequence[Row], redaction: Redaction, truncated: Sequence[bool]
) -> Iterator[Any]:
    records = [row.record for row in rows]
    names = {name: redaction.tenant(name) for name in {record.tenant for record in records}}
    sequences = [record.sequence for record in records]
    values: tuple[Iterable[Any], ...] = (
        [record.time_us for record in records],
        [row.name for row in rows],
        [row.response for row in rows],
        [record.request_id or None for record in records],
        [names[record.tenant] for record in records],
        [table.version] * len(rows),
        [record.digest or None for record in records],
        [record.outcome for record in records],
        [record.duration_us for record in records],
        [table.sample] * len(rows),
        [None if s is None else s.id for s in sequences],
        [None if s is None else s.start for s in sequences],
        [None if s is None else s.end for s in sequences],
        truncated,
    )
    for field, column in zip(_FIXED, values, strict=True):
        yield pa.array(column, field.type)


def _item(column: Column) -> pa.DataType:
    """Of the column's lists."""
    if column.kind in ("text", "hash"):
        return pa.string()
    if column.kind == "bytes":
        return pa.binary()
    return pa.from_numpy_dtype(_dtype(column))


def _dtype(column: Column) -> np.dtype[Any]:
    wider = _WIDER.get(column.datatype)
    return NUMPY_DTYPES[column.datatype] if wider is None else np.dtype(wider)


class _Maker:
    """Of the columns of one table."""

    def __init__(self, table: Table, redaction: Redaction, rows: int) -> None:
        self._redaction = redaction
        self._longest = table.max_string_bytes
        self.truncated = [False] * rows
        """Of each row, whether some element was cut."""

    def tensors(self, column: Column, kept: Sequence[Kept | None]) -> tuple[Any, Any]:
        """The column, and that of its shapes."""
        missing = pa.array([each is None for each in kept])
        shapes = pa.array([None if each is None else each.shape for each in kept], _SHAPES)
        lists = _numbers(column, kept) if column.kind == "numbers" else self._elements(column, kept)
        counts, values = lists
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        items = values if isinstance(values, pa.Array) else pa.array(values, _item(column))
        return pa.ListArray.from_arrays(offsets, items, mask=missing), shapes

    def _elements(self, column: Column, kept: Sequence[Kept | None]) -> tuple[list[int], list[Any]]:
        counts: list[int] = []
        values: list[Any] = []
        for at, each in enumerate(kept):
            before = len(values)
            if each is not None:
                values += self._elements_of(column, each, at)
            counts.append(len(values) - before)
        return counts, values

    def _elements_of(self, column: Column, kept: Kept, row: int) -> Iterable[Any]:
        if column.kind == "hash" and column.datatype != "BYTES":
            return [self._redaction.tensor(kept.data)]
        elements = deserialize_bytes(kept.data, element_count(kept.shape)).tolist()
        if column.kind == "hash":
            return map(self._redaction.tensor, elements)
        if self._longest and any(len(element) > self._longest for element in elements):
            self.truncated[row] = True
            elements = [_cut(element, self._longest, column.kind) for element in elements]
        if column.kind == "text":
            return [element.decode(errors="backslashreplace") for element in elements]
        return elements  # type: ignore[no-any-return]


def _numbers(column: Column, kept: Sequence[Kept | None]) -> tuple[list[int], Any]:
    stored, wanted = NUMPY_DTYPES[column.datatype], _dtype(column)
    arrays = [np.frombuffer(b"" if each is None else each.data, stored) for each in kept]
    values = np.concatenate([np.empty(0, stored), *arrays]).astype(wanted, copy=False)
    return [len(array) for array in arrays], pa.array(values)


def _cut(element: bytes, longest: int, kind: str) -> bytes:
    """Its beginning; of text whole characters."""
    end = min(longest, len(element))
    if kind == "text" and end < len(element):
        while end and element[end] & 0xC0 == 0x80:
            end -= 1
    return element[:end]
