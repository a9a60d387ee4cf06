"""Makes the outputs of what an MLflow model's `predict` has returned: an array, a table, a dict, a list, rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

import numpy as np

from penstock.backends.batch_outputs import check_rows
from penstock.backends.completion import BATCH_DIM
from penstock.backends.mlflow_schema import Field, Kind, Schema
from penstock.errors import ModelFailed
from penstock.model_config import Tensor
from penstock.types import NUMPY_DTYPES, Array


class ModelOutputs:
    """The outputs that a model's signature declares."""

    def __init__(self, schema: Schema, *, batching: bool) -> None:
        self._schema = schema
        self._checks = [OutputCheck(field, batching=batching) for field in schema.fields]

    @property
    def names(self) -> frozenset[str]:
        """On the wire."""
        return frozenset(field.name for field in self._schema.fields)

    def __call__(self, returned: Any, rows: int) -> dict[str, Array]:
        """The arrays by name. Raises ModelFailed where what was returned is not as declared."""
        parts = _parts(returned, self._schema)
        return {
            check.field.name: check(part, rows)
            for check, part in zip(self._checks, parts, strict=True)
        }


class OutputCheck:
    """Makes an array of one output, in the datatype and with the dimensions that it is declared with."""

    def __init__(self, field: Field, *, batching: bool) -> None:
        self.field: Final = field
        self._batching = batching
        self._datatype = Tensor(name="", data_type=field.data_type, dims=()).datatype
        self._dtype = NUMPY_DTYPES[self._datatype]

    def __call__(self, value: Any, rows: int) -> Array:
        array = (
            self._numbers(value) if self.field.kind is Kind.NUMBER else _bytes_of(value, self.field)
        )
        array = self._shaped(array)
        if self._batching:
            check_rows(self.field.name, array, rows)
        return array

    def _numbers(self, value: Any) -> Array:
        name = self.field.name
        try:
            array = np.asarray(value)
            if array.dtype.kind == "O":
                # a column of numbers some of which are missing, or of arrays
                array = np.array(array.tolist(), dtype=self._dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelFailed(f"output {name!r} can't be made {self._datatype}: {error}") from error
        if array.dtype == self._dtype:
            return array
        if not np.can_cast(array.dtype, self._dtype, "same_kind"):
            raise ModelFailed(
                f"output {name!r} has dtype {array.dtype}, expected {self._dtype} ({self._datatype})"
            )
        cast = array.astype(self._dtype)
        if array.dtype.kind in "iu" and self._dtype.kind in "iu" and not (cast == array).all():
            raise ModelFailed(f"output {name!r} has numbers that {self._datatype} can't hold")
        return cast

    def _shaped(self, array: Array) -> Array:
        """With its dimensions: one of 1 is added or left out where only that is amiss."""
        expected = self.field.shape
        if _fits(array.shape, expected):
            return array
        if expected[-1:] == (1,) and _fits((*array.shape, 1), expected):
            return array.reshape(*array.shape, 1)
        if array.shape[-1:] == (1,) and _fits(array.shape[:-1], expected):
            return array.reshape(array.shape[:-1])
        raise ModelFailed(
            f"output {self.field.name!r} has shape {list(array.shape)}, expected {list(expected)}"
        )


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        free in (BATCH_DIM, size) for size, free in zip(shape, expected, strict=True)
    )


def _parts(returned: Any, schema: Schema) -> Iterator[Any]:
    """What was returned for each of the fields, in order."""
    fields = schema.fields
    if hasattr(returned, "iloc") and hasattr(returned, "columns"):
        yield from _of_table(returned, fields)
    elif isinstance(returned, Mapping):
        yield from _of_mapping(returned, fields)
    elif len(fields) == 1:
        yield _of_rows(returned, fields[0]) if _are_rows(returned) else returned
    elif _are_rows(returned):
        for field in fields:
            yield _of_rows(returned, field)
    elif isinstance(returned, tuple) and len(returned) == len(fields):
        yield from returned
    elif schema.columns or not isinstance(returned, list):
        yield from _of_array(returned, fields)
    elif len(returned) == len(fields):
        yield from returned
    else:
        raise _unexpected(returned, fields)


def _of_table(table: Any, fields: Sequence[Field]) -> Iterator[Any]:
    names = {str(name): index for index, name in enumerate(table.columns)}
    if len(fields) == 1 and fields[0].shape != (BATCH_DIM, 1) and len(fields[0].shape) > 1:
        # a table in place of an array
        yield table.to_numpy()
        return
    known = all(str(field.label) in names for field in fields)
    if not known and len(names) != len(fields):
        raise _unexpected(table, fields)
    for index, field in enumerate(fields):
        yield table.iloc[:, names[str(field.label)] if known else index].to_numpy()


def _of_mapping(returned: Mapping[Any, Any], fields: Sequence[Field]) -> Iterator[Any]:
    by_name = {str(name): value for name, value in returned.items()}
    if len(fields) == 1 and fields[0].kind is Kind.JSON and str(fields[0].label) not in by_name:
        # one row, whose only column is an object
        yield [returned]
        return
    if len(fields) == len(by_name) == 1:
        yield next(iter(by_name.values()))
        return
    if any(str(field.label) not in by_name for field in fields):
        raise _unexpected(returned, fields)
    for field in fields:
        yield by_name[str(field.label)]


def _are_rows(returned: Any) -> bool:
    return (
        isinstance(returned, list)
        and bool(returned)
        and all(isinstance(row, Mapping) for row in returned)
    )


def _of_rows(rows: Sequence[Mapping[Any, Any]], field: Field) -> list[Any]:
    """A column of rows that are mappings; the rows themselves where they are the only column."""
    if field.kind is Kind.JSON and not all(field.label in row for row in rows):
        return list(rows)
    try:
        return [row[field.label] for row in rows]
    except KeyError:
        raise ModelFailed(f"the model returned a row without {field.name!r}") from None


def _of_array(returned: Any, fields: Sequence[Field]) -> Iterator[Any]:
    try:
        array = np.asarray(returned)
    except ValueError:
        raise _unexpected(returned, fields) from None
    if array.ndim != 2 or array.shape[1] != len(fields):
        raise _unexpected(array, fields)
    for index in range(len(fields)):
        yield array[:, index]


def _unexpected(returned: Any, fields: Sequence[Field]) -> ModelFailed:
    found = type(returned).__name__
    if isinstance(returned, Mapping):
        found = f"a dict with {', '.join(map(str, returned)) or 'nothing'}"
    elif hasattr(returned, "columns"):
        found = f"a table with {', '.join(map(str, returned.columns)) or 'no columns'}"
    elif isinstance(returned, np.ndarray):
        found = f"an array of shape {list(returned.shape)}"
    return ModelFailed(
        f"the model returned {found[:300]}, expected {', '.join(f.name for f in fields)}"
    )


def _bytes_of(value: Any, field: Field) -> Array:
    """An object array of `bytes`."""
    if field.kind is Kind.JSON:
        values = value.tolist() if isinstance(value, np.ndarray) else list(value)
        return _object_array([_as_json(each) for each in values])
    array = value if isinstance(value, np.ndarray) else _array_of_texts(value)
    if array.dtype.kind == "M":
        array = np.where(np.isnat(array), "", np.datetime_as_string(array)).astype(object)
    elif array.dtype.kind == "O" and any(isinstance(v, (list, np.ndarray)) for v in array.flat):
        array = _array_of_texts([list(each) for each in array.tolist()])
    return _object_array([_as_bytes(each) for each in array.ravel().tolist()], array.shape)


def _array_of_texts(value: Any) -> Array:
    try:
        return np.asarray(value, dtype=np.object_)
    except ValueError as error:
        raise ModelFailed(f"texts can't be made an array: {error}") from error


def _object_array(values: Sequence[bytes], shape: Sequence[int] | None = None) -> Array:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array if shape is None else array.reshape(shape)


def _as_bytes(value: Any) -> bytes:
    """BYTES can't be missing: what is, is empty."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if value is None or value != value:
        return b""
    if isinstance(value, date):
        return value.isoformat().encode()
    if isinstance(value, (dict, list)):
        return _as_json(value)
    return str(value).encode()


def _as_json(value: Any) -> bytes:
    """Numbers of NumPy, times and models of Pydantic are written too."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ModelFailed(f"what the model returned can't be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    for name in ("model_dump", "tolist", "isoformat"):
        if callable(method := getattr(value, name, None)):
            return method()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
