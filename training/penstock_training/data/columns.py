"""What a recipe expects of a column, and an error that says where it is not so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute
import pyarrow.types as types

from penstock_training.data.errors import BadValues, SchemaMismatch
from penstock_training.data.table import Table

Kind = Literal["number", "whole", "text"]
_compute: Any = pyarrow.compute
"""Makes its functions when it is imported: no type checker knows them."""
WORDS: Final = {"number": "numbers", "whole": "whole numbers", "text": "text"}


@dataclass(frozen=True)
class Column:
    """One column, and the tensor that it becomes."""

    name: str
    kind: Kind
    """number: float32. whole: int64. text: no tensor, the recipe makes one of it."""
    shape: tuple[int, ...] = ()
    """Of one row: its lists hold so many values. () is a single value."""
    limits: tuple[float, float] | None = None
    """The smallest and the largest value that there may be."""
    tensor: str = ""
    """What a batch calls it, if not by its name."""

    @property
    def key(self) -> str:
        """What a batch calls it."""
        return self.tensor or self.name

    @property
    def values(self) -> int:
        """Of one row."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{WORDS[self.kind]} {list(self.shape)}" if self.shape else WORDS[self.kind]


def check_schema(table: Table, columns: Iterable[Column]) -> None:
    """Before anything is read."""
    for column in columns:
        if column.name not in table.columns:
            close = get_close_matches(column.name, table.columns, 1)
            hint = f", did you mean '{close[0]}'?" if close else ""
            raise SchemaMismatch(
                f"{table}: there is no column '{column.name}'{hint}; there are: {', '.join(table.columns)}"
            )
        type_ = table.snapshot.schema.field(column.name).type
        leaf, depth = _leaf(type_)
        if not _fits(leaf, column.kind) or depth not in {
            min(1, len(column.shape)),
            len(column.shape),
        }:
            raise SchemaMismatch(f"{table}: column '{column.name}' is {type_}, expected {column}")


def flat_values(data: pa.ChunkedArray, column: Column, where: str) -> pa.Array:
    """All values of all rows, one after the other. `where` tells errors whose rows they are, counted from 0."""
    values = _without_extension(data.combine_chunks() if data.num_chunks != 1 else data.chunk(0))
    depth = _leaf(values.type)[1]
    per_row = 1
    for length in [column.values] if depth == 1 else column.shape:
        _check_nulls(values, column, where, per_row)
        lengths = _compute.list_value_length(values)
        wrong = _compute.not_equal(lengths, pa.scalar(length, lengths.type))
        if (place := _first(wrong)) >= 0:
            row, found = place // per_row, lengths[place].as_py()
            raise BadValues(
                f"{where}: column '{column.name}', row {row}: {found} values, expected {length}"
            )
        values = values.flatten()
        per_row *= length
    _check_nulls(values, column, where, per_row)
    _check_numbers(values, column, where)
    return values


def _leaf(type_: pa.DataType) -> tuple[pa.DataType, int]:
    """(the type of values, how many lists they lie in)."""
    depth = 0
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    while _is_list(type_):
        type_, depth = type_.value_type, depth + 1
    return type_, depth


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    )


def _fits(type_: pa.DataType, kind: Kind) -> bool:
    if kind == "text":
        return bool(types.is_string(type_) or types.is_large_string(type_))
    whole = bool(types.is_integer(type_) or types.is_boolean(type_))
    return whole or (kind == "number" and bool(types.is_floating(type_)))


def _without_extension(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _check_nulls(values: pa.Array, column: Column, where: str, per_row: int) -> None:
    if values.null_count:
        row = _first(_compute.is_null(values)) // per_row
        raise BadValues(f"{where}: column '{column.name}', row {row}: null, expected {column}")


def _check_numbers(values: pa.Array, column: Column, where: str) -> None:
    if types.is_floating(values.type):
        wrong = _compute.invert(_compute.is_finite(values))
        _refuse(wrong, values, column, where, "a finite number")
    if column.limits is not None and column.kind != "text":
        low, high = column.limits
        numbers = values.cast(pa.float64())
        wrong = _compute.or_(_compute.less(numbers, low), _compute.greater(numbers, high))
        _refuse(wrong, values, column, where, f"{low:g} to {high:g}")


def _refuse(wrong: pa.Array, values: pa.Array, column: Column, where: str, expected: str) -> None:
    if (place := _first(wrong)) >= 0:
        row, found = place // column.values, values[place].as_py()
        raise BadValues(f"{where}: column '{column.name}', row {row}: {found}, expected {expected}")


def _first(wrong: pa.Array) -> int:
    """Where the first True is; -1: nowhere."""
    return int(_compute.index(wrong, True).as_py())


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Of all of them."""
    return tuple(column.name for column in columns)
