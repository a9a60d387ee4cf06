"""The lake: what a run's configuration calls a table becomes one, pinned to a version.

A run pins its tables before its processes start, and notes the versions; each process opens them at that version,
today or when the run is resumed. Delta tables keep old versions themselves. Of Parquet folders, which don't, `folder`
keeps the list of files: what is added to them later is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from penstock_training.data import delta, parquet
from penstock_training.data.filters import parse
from penstock_training.data.once import file_once
from penstock_training.data.snapshot import Snapshot, from_json, to_json
from penstock_training.data.storage import Storage, normal_uri
from penstock_training.data.table import Table
from penstock_training.data_config import TableSettings


class Lake:
    """Opens tables. The folder is the run's: all its processes have the same one, or each machine one of its own."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._pinned: dict[str, Snapshot] = {}

    def pin(self, table: TableSettings) -> TableSettings:
        """The same table, with the version that is there now; one that names a version, with that in full."""
        snapshot = self._snapshot(table)
        return table.model_copy(update={"uri": snapshot.uri, "version": snapshot.version})

    def open(self, table: TableSettings) -> Table:
        """The table at its version, of which nothing is read yet."""
        return Table(self._snapshot(table), table.columns, table.filter, self.folder)

    def read(self, table: TableSettings) -> pa.Table:
        """All of it."""
        return self.open(table).read()

    def _snapshot(self, table: TableSettings) -> Snapshot:
        uri = normal_uri(table.uri)
        if table.version.startswith(("delta-", "parquet-")):
            return self._remembered(uri, table.version, lambda: _look(uri, table))
        found = _look(uri, table)
        return self._remembered(uri, found.version, lambda: found)

    def _remembered(self, uri: str, version: str, look: Callable[[], Snapshot]) -> Snapshot:
        key = hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()[:32]
        if key not in self._pinned:
            if self.folder is None:
                self._pinned[key] = look()
            else:
                path = self.folder / f"snapshot-{key}.json"
                self._pinned[key] = from_json(file_once(path, lambda: to_json(look())), str(path))
        return self._pinned[key]


def _look(uri: str, table: TableSettings) -> Snapshot:
    """What is there now, at this address and version."""
    storage = Storage(uri)
    if delta.is_delta(storage):
        return delta.snapshot(storage, table.version)
    return parquet.snapshot(storage, table.version, parse(table.filter))
