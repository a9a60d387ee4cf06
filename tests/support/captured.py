"""Records as the gateway makes them, and the lake that a writer makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from penstock.capture.columns import Table, table_of
from penstock.capture.messages import Kept, Record
from penstock.capture_config import CaptureRule, CaptureSettings
from penstock.model_config import ModelConfig, Tensor
from penstock.tensors import serialize_bytes
from penstock.types import NUMPY_DTYPES, Array

DAY_US = 86_400_000_000
TIME_US = 1_795_824_000_000_000
"""A midnight (UTC): 2026-11-28 begins."""
KEY = b"0123456789abcdef"


def rule(**fields: Any) -> CaptureRule:
    """One that keeps all of all, unless it is told otherwise."""
    return CaptureRule(**{"models": ("*",), "sample": 1, "tensors": ("*",), **fields})


def settings(folder: Path, *rules: CaptureRule, **fields: Any) -> CaptureSettings:
    """Of a lake."""
    return CaptureSettings(folder=folder, rules=rules or (rule(),), **fields)


def config(name: str = "m", **fields: Any) -> ModelConfig:
    """A model of one input and one output, unless it is told otherwise."""
    tensors = {"input": tensors_of(X="FP32"), "output": tensors_of(Y="FP32")}
    return ModelConfig(name=name, **{**tensors, **fields})


def tensors_of(**datatypes: str) -> tuple[Tensor, ...]:
    """Name → datatype."""
    return tuple(Tensor(name, f"TYPE_{of}", (-1,)) for name, of in datatypes.items())


def table(number: int = 1, version: int = 3, of: ModelConfig | None = None, **fields: Any) -> Table:
    """Of a rule with these fields."""
    return table_of(number, version, of or config(), rule(**fields))


def kept(values: Any, datatype: str = "FP32") -> Kept:
    """As a tensor of a request."""
    if datatype == "BYTES":
        return Kept((len(values),), memoryview(serialize_bytes(list(values))))
    array: Array = np.array(values, NUMPY_DTYPES[datatype])
    return Kept(array.shape, memoryview(array.tobytes()))


def record(**fields: Any) -> Record:
    """Of one row in and one out, unless it is told otherwise."""
    given: dict[str, Any] = {
        "table": 1,
        "time_us": TIME_US,
        "duration_us": 250,
        "request_id": "r",
        "tenant": "team",
        "digest": "sha256:0",
        "outcome": "ok",
        "sequence": None,
        "inputs": [kept([1, 2])],
        "responses": [[kept([3])]],
        **fields,
    }
    return Record(**given)


def lake(folder: Path, model: str = "m") -> pa.Table:
    """All complete records of a model, in order, as others read them."""
    dataset = ds.dataset(folder / f"model={model}", partitioning="hive")
    # files of several versions have other columns
    schema = pa.unify_schemas(
        [dataset.schema, *(each.physical_schema for each in dataset.get_fragments())]
    )
    return (
        dataset.replace_schema(schema)
        .to_table()
        .sort_by([("time", "ascending"), ("record", "ascending")])
    )


def rows(folder: Path, model: str = "m") -> list[dict[str, Any]]:
    """The same, for comparisons; none where there is no file yet."""
    if not list(folder.glob(f"model={model}/*/*.parquet")):
        return []
    return lake(folder, model).to_pylist()  # type: ignore[no-any-return]


class Line:
    """Where a Capture puts its records, in place of a link."""

    def __init__(self) -> None:
        self.tables: dict[int, Table] = {}
        self.records: list[Record] = []

    def add(self, table: Table) -> None:
        """As a link does."""
        self.tables[table.number] = table

    def put(self, record: Record) -> None:
        """As a link does."""
        self.records.append(record)
