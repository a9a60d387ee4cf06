"""A pinned table: its columns, its row groups, and reading them. Nothing is read before it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from penstock_training.data.errors import SchemaMismatch, TableChanged
from penstock_training.data.filters import columns_of, may_match, parse, to_arrow
from penstock_training.data.once import file_once
from penstock_training.data.snapshot import Snapshot, typed_partition
from penstock_training.data.storage import Storage

_THREADS: Final = 16
_FORMAT: Final = ds.ParquetFileFormat()


class RowGroup(msgspec.Struct, frozen=True):
    """What is read at once: a row group of a file, or what the filter leaves of it."""

    file: int
    """Of the snapshot's."""
    number: int
    """In the file."""
    rows: int


class Table:
    """Some columns and rows of a snapshot. Survives pickling; several threads may read."""

    def __init__(
        self,
        snapshot: Snapshot,
        columns: Sequence[str] = (),
        filter: str = "",
        folder: Path | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.filter = filter
        self.folder = folder
        """Where what processes share lies: row groups' sizes, decoded columns. None: each works it out by itself."""
        self._tree = parse(filter)
        whole = snapshot.schema
        self.columns = tuple(columns) or tuple(whole.names)
        for name in (*self.columns, *sorted(columns_of(self._tree))):
            if name not in whole.names:
                raise SchemaMismatch(
                    f"{self}: there is no column '{name}'; there are: {', '.join(whole.names)}"
                )
        self._expression = to_arrow(self._tree, whole)

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.snapshot, self.columns, self.filter, self.folder)

    def __str__(self) -> str:
        return f"table {self.snapshot.uri} ({self.snapshot.version})"

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def schema(self) -> pa.Schema:
        """Of the columns that are read."""
        return pa.schema([self.snapshot.schema.field(name) for name in self.columns])

    @property
    def version(self) -> str:
        """Stands for the whole table."""
        return self.snapshot.version

    @property
    def digest(self) -> str:
        """Stands for exactly these columns and rows of it."""
        parts = (self.snapshot.uri, self.version, *self.columns, self.filter)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def select(self, *columns: str) -> Table:
        """Only these columns."""
        return Table(self.snapshot, columns, self.filter, self.folder)

    def where(self, expression: str) -> Table:
        """Only those of its rows."""
        both = f"({self.filter}) and ({expression})" if self.filter.strip() else expression
        return Table(self.snapshot, self.columns, both, self.folder)

    @cached_property
    def groups(self) -> tuple[RowGroup, ...]:
        """The row groups that hold rows, in the order of files and of rows in them: it tells rows their numbers."""
        if self.folder is None:
            return tuple(self._find_groups())
        path = self.folder / f"groups-{self.digest}.json"
        made = file_once(path, lambda: msgspec.json.encode(self._find_groups()))
        return msgspec.json.decode(made, type=tuple[RowGroup, ...])

    def read_group(self, group: RowGroup) -> pa.Table:
        """Its rows."""
        fragment = self._fragment(group.file).subset(row_group_ids=[group.number])
        return fragment.to_table(
            schema=self.snapshot.schema,
            columns=list(self.columns),
            filter=self._expression,
            use_threads=False,
        )

    def read(self) -> pa.Table:
        """All its rows, in order."""
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(self.read_group, self.groups))
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def where_is(self, group: RowGroup) -> str:
        """For errors."""
        path = self.snapshot.files[group.file].path
        return f"{self}, row group {group.number}" + (f" of {path}" if path else "")

    @cached_property
    def _storage(self) -> Storage:
        return Storage(self.snapshot.uri)

    @cached_property
    def _fragments(self) -> dict[int, ds.ParquetFileFragment]:
        return {}

    def _find_groups(self) -> list[RowGroup]:
        schema = self.snapshot.schema
        wanted = [
            number
            for number, file in enumerate(self.snapshot.files)
            if may_match(self._tree, typed_partition(file.partition, schema))
        ]
        with ThreadPoolExecutor(_THREADS) as pool:
            return [group for groups in pool.map(self._groups_of, wanted) for group in groups]

    def _groups_of(self, file: int) -> list[RowGroup]:
        """Those whose statistics can fit the filter, and in which it leaves rows."""
        schema, found = self.snapshot.schema, []
        for part in self._fragment(file).split_by_row_group(self._expression, schema=schema):
            (info,) = part.row_groups
            # count_rows() would be of the whole file where a partition answers the filter
            rows = part.to_table(schema=schema, columns=[], filter=self._expression).num_rows
            if rows:
                found.append(RowGroup(file, info.id, rows))
        return found

    def _fragment(self, number: int) -> ds.ParquetFileFragment:
        if number not in self._fragments:
            self._check_unchanged(number)
            file, schema = self.snapshot.files[number], self.snapshot.schema
            expression = None
            for name, value in typed_partition(file.partition, schema).items():
                field = ds.field(name)
                known = (
                    field.is_null()
                    if value is None
                    else field == pa.scalar(value, schema.field(name).type)
                )
                expression = known if expression is None else expression & known
            path = self._storage.absolute(file.path)
            self._fragments[number] = _FORMAT.make_fragment(
                path, filesystem=self._storage.arrow, partition_expression=expression
            )
        return self._fragments[number]

    def _check_unchanged(self, number: int) -> None:
        pinned = self.snapshot.files[number]
        now = self._storage.file(pinned.path)
        if now is None:
            hint = "; vacuumed?" if self.snapshot.format == "delta" else ""
            raise TableChanged(f"{self}: {pinned.path or 'its file'} is not there any more{hint}")
        if now.size_bytes != pinned.size_bytes or not self._same_contents(number, now.stamp):
            raise TableChanged(
                f"{self}: {pinned.path or 'its file'} is not what it was when it was pinned"
            )

    def _same_contents(self, number: int, stamp: str) -> bool:
        """A copied or touched file has another stamp, and the same contents."""
        pinned = self.snapshot.files[number]
        if not pinned.stamp or stamp == pinned.stamp:
            return True
        return pinned.content == f"sha256={self._storage.sha256(pinned.path)}"
