"""Parquet folders and files without a log: which files there are, and what stands for their contents.

Such a folder has no versions. Its pinned version is a digest of the files' names and contents, of those that the filter
lets through by their partition: a folder to which files are added (the server's captures) is read as it was, for the
run keeps the list; a file that is changed or taken away is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from penstock_training.data.errors import SchemaMismatch, TableChanged, TableMissing, VersionMissing
from penstock_training.data.filters import Filter, may_match
from penstock_training.data.snapshot import DataFile, Snapshot, typed_partition
from penstock_training.data.storage import Storage, StoredFile

NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
THREADS: Final = 16
"""Waiting for the filesystem, mostly."""
_WHOLE_NUMBER: Final = re.compile(r"-?\d{1,18}")


def snapshot(storage: Storage, version: str, tree: Filter) -> Snapshot:
    """The files that there are now and that the filter may want."""
    found = [file for file in storage.files() if _is_data(file)] if _exists(storage) else []
    if not found:
        raise TableMissing(f"table {storage.uri}: there is no Parquet file and no Delta table")
    partitions = [_partition(file.path) for file in found]
    partition_schema = _partition_schema(storage, partitions)
    pairs = [
        (file, partition)
        for file, partition in zip(found, partitions, strict=True)
        if may_match(tree, typed_partition(partition, partition_schema))
    ]
    if not pairs:
        raise TableMissing(
            f"table {storage.uri}: no file of {len(found)} is in a partition that fits the filter"
        )
    with ThreadPoolExecutor(THREADS) as pool:
        files = tuple(pool.map(lambda pair: _pinned(storage, *pair), pairs))
        schemas = list(pool.map(lambda file: _schema(storage, file), files))
    pinned = Snapshot(
        uri=storage.uri,
        format="parquet",
        version=_version(files),
        schema_ipc=_unified(storage, files, schemas, partition_schema).serialize().to_pybytes(),
        files=files,
    )
    _check_version(pinned, version)
    return pinned


def _exists(storage: Storage) -> bool:
    return storage.is_folder() or storage.is_file()


def _is_data(file: StoredFile) -> bool:
    """Names that begin with `_` or `.` are others' bookkeeping, or are being written."""
    if not file.path:
        return True
    *folders, name = file.path.split("/")
    hidden = any(folder.startswith(("_", ".")) and "=" not in folder for folder in folders)
    return name.endswith((".parquet", ".pq")) and not name.startswith(("_", ".")) and not hidden


def _partition(path: str) -> dict[str, str | None]:
    """`model=digits/date=2026-11-28/x.parquet` → its two values."""
    named = [folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder]
    return {name: None if text == NULL_PARTITION else unquote(text) for name, text in named}


def _partition_schema(storage: Storage, partitions: Sequence[dict[str, str | None]]) -> pa.Schema:
    """Whole numbers where all values are; else text."""
    names = list(partitions[0])
    for partition in partitions:
        if list(partition) != names:
            raise SchemaMismatch(
                f"table {storage.uri}: some files lie in partitions by {_listed(names)}, others by {_listed(partition)}"
            )

    def type_of(name: str) -> pa.DataType:
        texts = [partition[name] for partition in partitions]
        numbers = all(text is None or _WHOLE_NUMBER.fullmatch(text) for text in texts)
        return pa.int64() if numbers else pa.string()

    return pa.schema([(name, type_of(name)) for name in names])


def _pinned(storage: Storage, file: StoredFile, partition: dict[str, str | None]) -> DataFile:
    content = file.content_mark or f"sha256={storage.sha256(file.path)}"
    return DataFile(file.path, file.size_bytes, file.stamp, content, partition)


def _schema(storage: Storage, file: DataFile) -> pa.Schema:
    try:
        schema: pa.Schema = pq.read_schema(storage.absolute(file.path), filesystem=storage.arrow)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaMismatch(
            f"table {storage.uri}: {file.path or 'it'} is no Parquet file: {error}"
        ) from error
    return schema.remove_metadata()


def _unified(
    storage: Storage,
    files: Sequence[DataFile],
    schemas: Iterable[pa.Schema],
    partition_schema: pa.Schema,
) -> pa.Schema:
    """All columns of all files: one that a file lacks is null there, one of two types is an error."""
    types: dict[str, pa.Field] = {}
    first_in: dict[str, str] = {}
    for file, schema in zip(files, schemas, strict=True):
        for field in schema:
            known = types.setdefault(field.name, field.with_nullable(True))
            first_in.setdefault(field.name, file.path)
            if not known.type.equals(field.type):
                raise SchemaMismatch(
                    f"table {storage.uri}: column '{field.name}' is {known.type} in {first_in[field.name]},"
                    f" {field.type} in {file.path}"
                )
    for field in partition_schema:
        types.setdefault(field.name, field)
    return pa.schema(list(types.values()))


def _version(files: Iterable[DataFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.size_bytes}\0{file.content}\n".encode())
    return f"parquet-{digest.hexdigest()[:32]}"


def _check_version(pinned: Snapshot, version: str) -> None:
    if version and not version.startswith("parquet-"):
        raise VersionMissing(
            f"table {pinned.uri}: has no version {version}:"
            " Parquet files without a Delta log have none but the present one"
        )
    if version and version != pinned.version:
        raise TableChanged(
            f"table {pinned.uri}: its files are not those that were pinned ({version}); they are now {pinned.version}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
