"""The tables of a lake as Delta tables: each file that is complete becomes one commit of its model's table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from penstock.errors import Unavailable

_DATE: Final = pa.field("date", pa.string())


class DeltaTables:
    """Of one folder. Several servers may add to one table."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: Path, schema: pa.Schema, rows: int) -> None:
        """As Published says: the file is part of its model's table when this returns. Raises Unavailable."""
        date_folder = path.parent
        root = date_folder.parent
        try:
            table = self._table(root, schema.append(_DATE).remove_metadata())
            action = AddAction(
                f"{date_folder.name}/{path.name}",
                path.stat().st_size,
                {"date": date_folder.name.removeprefix("date=")},
                time.time_ns() // 1_000_000,
                True,
                msgspec.json.encode({"numRecords": rows}).decode(),
            )
            table.create_write_transaction([action], "append", table.schema(), ["date"])
        except (DeltaError, OSError) as error:
            raise Unavailable(f"{root}: the Delta table can't be written: {error}") from error

    def _table(self, root: Path, schema: Any) -> DeltaTable:
        """The table, with at least these columns."""
        if not DeltaTable.is_deltatable(str(root)):
            return DeltaTable.create(str(root), schema, mode="ignore", partition_by=["date"])
        table = DeltaTable(str(root))
        known = {field.name for field in table.schema().fields}
        if any(name not in known for name in schema.names):
            # another version of the model has others
            write_deltalake(table, schema.empty_table(), mode="append", schema_mode="merge")
            table = DeltaTable(str(root))
        return table
