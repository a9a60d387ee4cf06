"""What a version of a table consists of: plain data, the same for all ranks, kept with a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import pyarrow as pa

from penstock_training.errors import DataError


class DataFile(msgspec.Struct, frozen=True):
    """One Parquet file of a table."""

    path: str
    """From the table's address; empty if that is the file itself."""
    size_bytes: int
    stamp: str
    """Another one tells that the file may have changed. Empty: nobody changes such files (Delta's)."""
    content: str
    """Stands for its contents. Empty: its path does (Delta's)."""
    partition: dict[str, str | None]
    """Values that all its rows share and that only its path tells, as text."""


class Snapshot(msgspec.Struct, frozen=True):
    """A table as it was when it was pinned."""

    uri: str
    format: Literal["delta", "parquet"]
    version: str
    """Stands for exactly these rows: `delta-3-<the table's id>`, `parquet-<digest of names and contents>`."""
    schema_ipc: bytes
    """Arrow's schema, partitions included."""
    files: tuple[DataFile, ...]

    @property
    def schema(self) -> pa.Schema:
        """Arrow's schema, partitions included."""
        return pa.ipc.read_schema(pa.py_buffer(self.schema_ipc))


def typed_partition(partition: Mapping[str, str | None], schema: pa.Schema) -> dict[str, Any]:
    """A partition's values, of their columns' types."""
    return {
        name: None if text is None else pa.scalar(text).cast(schema.field(name).type).as_py()
        for name, text in partition.items()
    }


def to_json(snapshot: Snapshot) -> bytes:
    """To keep it."""
    return msgspec.json.encode(snapshot)


def from_json(text: bytes, where: str) -> Snapshot:
    """What `to_json` has made."""
    try:
        return msgspec.json.decode(text, type=Snapshot)
    except msgspec.DecodeError as error:
        raise DataError(f"{where}: is no snapshot of a table: {error}") from error
