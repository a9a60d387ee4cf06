"""Tables of the recipes' example data: `penstock-train table digits lake/digits`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import WriterProperties, write_deltalake

from penstock.errors import AlreadyExists, ConfigError
from penstock_training.data.delta import LOG, is_delta
from penstock_training.data.storage import Storage, normal_uri
from penstock_training.recipes.splits import SPLIT

SOURCES: Final[Mapping[str, str]] = {
    "digits": "penstock_training.sources.digits",
    "topics": "penstock_training.sources.topics",
}
"""Modules whose `table()` makes them."""
GROUP_ROWS: Final = 256
"""Rows of a row group: small, so that processes have some to share."""


def make_table(name: str, uri: str, overwrite: bool = False) -> str:
    """Make the example table of that name, as a Delta table. Gives its address."""
    if name not in SOURCES:
        raise ConfigError(f"there is no example table '{name}'; there are: {', '.join(SOURCES)}")
    make: Callable[[], pa.Table] = import_module(SOURCES[name]).table
    return write_table(make, uri, overwrite)


def write_table(make: Callable[[], pa.Table], uri: str, overwrite: bool = False) -> str:
    """A Delta table, in a folder for each split. One that is there gets a new version, if `overwrite` says so."""
    storage = Storage(normal_uri(uri))
    if is_delta(storage) and not overwrite:
        raise AlreadyExists(
            f"there is a table at {storage.uri} already; --overwrite makes a new version of it"
        )
    if storage.is_local:
        _write(make(), storage.root)
    elif is_delta(storage):
        raise ConfigError(f"a new version of {storage.uri} can only be made by who has it locally")
    else:
        _upload(make(), storage)
    return storage.uri


def _write(table: pa.Table, folder: str) -> None:
    properties = WriterProperties(compression="ZSTD", max_row_group_size=GROUP_ROWS)
    write_deltalake(
        folder, table, mode="overwrite", partition_by=[SPLIT], writer_properties=properties
    )


def _upload(table: pa.Table, storage: Storage) -> None:
    """The log last: until then there is no table."""
    with tempfile.TemporaryDirectory(prefix="penstock-table-") as folder:
        _write(table, folder)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: LOG in path.parts):
            target = storage.absolute(path.relative_to(folder).as_posix())
            storage.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            storage.filesystem.put_file(str(path), target)
