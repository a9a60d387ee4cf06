"""Makes of a batch what an MLflow model's `predict` takes: a table, an array, or arrays by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import numpy as np

from penstock.backends.mlflow_schema import Field, Kind, Schema
from penstock.errors import InvalidRequest
from penstock.types import Array


class Inputs:
    """The inputs of one model."""

    def __init__(self, schema: Schema) -> None:
        self._fields = {field.name: field for field in schema.fields}
        self._schema = schema
        # only models with columns need it
        self._pandas: Any = import_module("pandas") if schema.columns else None

    def __call__(self, arrays: Mapping[str, Array]) -> Any:
        """A DataFrame; or the array where it has no name, or is the only one; or arrays by name.

        Raises InvalidRequest on what is not of the model's type.
        """
        if self._schema.columns:
            return self._table(arrays)
        tensors = {
            field.label: _as_tensor(field, arrays[name])
            for name, field in self._fields.items()
            if name in arrays
        }
        return tensors if self._schema.named else next(iter(tensors.values()))

    def _table(self, arrays: Mapping[str, Array]) -> Any:
        pandas = self._pandas
        columns = {
            field.label: _as_column(pandas, field, arrays[name])
            for name, field in self._fields.items()
            if name in arrays
        }
        return pandas.DataFrame(columns, copy=True)


def _as_tensor(field: Field, array: Array) -> Array:
    if field.kind is Kind.NUMBER:
        return read_only(array)
    values = [_READ[field.kind](field, value) for value in array.ravel().tolist()]
    dtype = "datetime64[ns]" if field.kind is Kind.DATETIME else np.object_
    return np.array(values, dtype=dtype).reshape(array.shape)


def _as_column(pandas: Any, field: Field, array: Array) -> Any:
    """A column without the dimension of one, or one of lists."""
    scalar = field.is_scalar or (array.shape[1:] == (1,) and len(field.shape) == 1)
    if field.kind is Kind.NUMBER:
        if scalar:
            return array.reshape(-1)
        return pandas.Series(array.tolist(), dtype=object)
    read = _READ[field.kind]
    if scalar:
        values = [read(field, value) for value in array.ravel().tolist()]
    else:
        values = _nested(array.tolist(), lambda value: read(field, value))
    if field.kind is Kind.DATETIME and scalar:
        return np.array(values, dtype="datetime64[ns]")
    # as MLflow has texts: objects, also where pandas has a type for them
    return pandas.Series(values, dtype=object)


def _nested(values: Any, read: Callable[[Any], Any]) -> Any:
    if isinstance(values, list):
        return [_nested(value, read) for value in values]
    return read(values)


def read_only(array: Array) -> Array:
    """A view that can't be written to: a model that changed its input would see that when it is run again."""
    view = array.view()
    view.flags.writeable = False
    return view


def _text(field: Field, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"input {field.name!r} is a text, and holds bytes that are not UTF-8: {error.reason} at byte {error.start}"
        ) from error


def _binary(field: Field, value: bytes) -> bytes:
    return value


def _datetime(field: Field, value: bytes) -> Any:
    text = _text(field, value)
    if not text:
        return np.datetime64("NaT")
    try:
        return _naive(text)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"input {field.name!r} is {text[:100]!r}, expected a time as ISO 8601 has it: {error}"
        ) from error


def _naive(text: str) -> Any:
    """The time in UTC where it says its offset, else as it is: MLflow's times have no zones."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is not None:
        parsed = parsed.astimezone(UTC).replace(tzinfo=None)
    whole = np.datetime64(parsed, "us")
    made = whole.astype("datetime64[ns]")
    if made.astype("datetime64[us]") != whole:
        raise ValueError("it is out of the range of 64 bits of nanoseconds")
    return made


def _json(field: Field, value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise InvalidRequest(
            f"input {field.name!r} is {value[:100]!r}, expected a JSON document: {error}"
        ) from error


_READ: Mapping[Kind, Callable[[Field, bytes], Any]] = {
    Kind.TEXT: _text,
    Kind.BINARY: _binary,
    Kind.DATETIME: _datetime,
    Kind.JSON: _json,
}
