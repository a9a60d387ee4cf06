"""Delta tables: which files a version has. `deltalake` reads the log, Arrow reads the files.

deltalake has object stores of its own and knows nothing of fsspec. A log is small, so that of a table elsewhere is
copied (from the last checkpoint before the version) and read here: tables work on every filesystem, with one set of
credentials.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from penstock_training.data.errors import TableChanged, VersionMissing
from penstock_training.data.snapshot import DataFile, Snapshot
from penstock_training.data.storage import Storage
from penstock_training.errors import DataError

LOG: Final = "_delta_log"
_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\..*(parquet|json)")
_PINNED: Final = re.compile(r"delta-(\d+)-(.+)")


def is_delta(storage: Storage) -> bool:
    """Whether there is a Delta table."""
    return storage.is_folder(LOG)


def snapshot(storage: Storage, version: str) -> Snapshot:
    """The files of a version; an empty one is the newest."""
    number, table_id = _wanted(storage, version)
    with _opened(storage, number) as table:
        _check_readable(storage, table)
        found_id = str(table.metadata().id)
        if table_id is not None and found_id != table_id:
            raise TableChanged(
                f"table {storage.uri}: was made anew: its id is {found_id}, pinned was {table_id}"
            )
        schema = pa.schema(table.schema().to_arrow())
        return Snapshot(
            uri=storage.uri,
            format="delta",
            version=f"delta-{table.version()}-{found_id}",
            schema_ipc=schema.serialize().to_pybytes(),
            files=tuple(sorted(_files(table), key=lambda file: file.path)),
        )


def _wanted(storage: Storage, version: str) -> tuple[int | None, str | None]:
    """(number, the table's id): of a number, or of a pinned version's text."""
    if not version:
        return None, None
    if version.isdecimal():
        return int(version), None
    if pinned := _PINNED.fullmatch(version):
        return int(pinned[1]), pinned[2]
    raise VersionMissing(
        f"table {storage.uri}: '{version}' is no version of a Delta table, expected a number"
    )


@contextmanager
def _opened(storage: Storage, number: int | None) -> Iterator[DeltaTable]:
    with _log_folder(storage, number) as folder:
        try:
            table = DeltaTable(folder)
            newest = table.version()
            if number is not None and number > newest:
                raise VersionMissing(
                    f"table {storage.uri}: has no version {number}, the newest is {newest}"
                )
            yield DeltaTable(folder, version=number) if number is not None else table
        except DeltaError as error:
            asked = "" if number is None else f", version {number}"
            raise VersionMissing(f"table {storage.uri}{asked}: {error}") from error


@contextmanager
def _log_folder(storage: Storage, number: int | None) -> Iterator[str]:
    if storage.is_local:
        yield storage.root
        return
    with tempfile.TemporaryDirectory(prefix="penstock-delta-") as folder:
        (Path(folder) / LOG).mkdir()
        for path in _log_files(storage, number):
            target = Path(folder) / path
            target.parent.mkdir(exist_ok=True)
            with storage.open(path) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        yield folder


def _log_files(storage: Storage, number: int | None) -> list[str]:
    """What it takes to read a version: the last checkpoint before it, and every commit from there."""
    storage.filesystem.invalidate_cache(storage.absolute(LOG))
    names = [file.path.removeprefix(f"{LOG}/") for file in storage.files(LOG)]
    commits = {name: int(found[1]) for name in names if (found := _COMMIT.fullmatch(name))}
    points = {name: int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name))}
    last = max(commits.values(), default=0)
    wanted = last if number is None else number
    start = max((point for point in points.values() if point <= wanted), default=0)
    chosen = [name for name, point in points.items() if point == start]
    # one over the last that was asked for is there to tell what the newest is
    chosen += [name for name, commit in commits.items() if start <= commit]
    chosen += [name for name in names if name.startswith("_sidecars/")]
    return [f"{LOG}/{name}" for name in chosen]


def _check_readable(storage: Storage, table: DeltaTable) -> None:
    """What changes the meaning of the files, and neither Arrow nor this module does."""
    features = set(table.protocol().reader_features or ())
    configuration = table.metadata().configuration
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        raise DataError(
            f"table {storage.uri}: its columns are mapped to other names, which can't be read"
        )
    if "deletionVectors" in features:
        raise DataError(
            f"table {storage.uri}: has deletion vectors, which can't be read: rewrite it without"
            " (REORG TABLE … APPLY (PURGE), and delta.enableDeletionVectors = false)"
        )


def _files(table: DeltaTable) -> Iterator[DataFile]:
    actions = pa.table(table.get_add_actions(flatten=True))
    names = table.metadata().partition_columns
    values = {name: actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in names}
    paths, sizes = (actions[name].to_pylist() for name in ("path", "size_bytes"))
    for row, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        partition = {name: values[name][row] for name in names}
        yield DataFile(unquote(path), size, stamp="", content="", partition=partition)
