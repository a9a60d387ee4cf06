"""Rows by number, as the loop asks for them: held in memory, mapped from files, or read by the row group.

Which one is `data.access`. All give the same rows. `row_groups` wants them in an order
of its own; the others in any: the loop mixes all rows of an epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from penstock_training.data.columns import Column, check_schema, names
from penstock_training.data.once import folder_once
from penstock_training.data.order import lane_order
from penstock_training.data.table import RowGroup, Table
from penstock_training.data.tensors import tensors_of
from penstock_training.data_config import DataSettings
from penstock_training.errors import DataError

Batch = dict[str, Tensor]
_DTYPES: Final = {"number": np.float32, "whole": np.int64}


class TensorRows:
    """Rows of tensors, [rows, …] each."""

    def __init__(self, tensors: Batch) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def fetch(self, rows: Tensor) -> Batch:
        """Copies of these rows: they may be written into."""
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


class MappedRows(TensorRows):
    """Rows of files that the processes of a machine share: decoded once, and read from the page cache."""

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._opened_from = folder, tuple(columns)
        # mode c: torch wants memory that it could write to; whoever did would change its own copy
        super().__init__(
            {
                name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))
                for name in columns
            }
        )

    def __reduce__(self) -> tuple[type[MappedRows], tuple[Path, tuple[str, ...]]]:
        return MappedRows, self._opened_from


class GroupedRows:
    """Rows that are read when they are asked for, a whole row group at once, of which the latest are kept."""

    def __init__(
        self, table: Table, columns: Sequence[Column], batch: int, lanes: int, window: int
    ) -> None:
        self._table, self._columns = table, tuple(columns)
        self._batch, self._lanes, self._window = batch, lanes, window
        self._sizes = [group.rows for group in table.groups]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self._lock = Lock()
        self.groups_read = 0

    def __reduce__(self) -> tuple[type[GroupedRows], tuple[object, ...]]:
        return GroupedRows, (self._table, self._columns, self._batch, self._lanes, self._window)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, seed: int, epoch: int) -> Tensor:
        """By lanes of row groups."""
        order = lane_order(self._sizes, self._batch, self._lanes, self._window, seed, epoch)
        return torch.from_numpy(order)

    def fetch(self, rows: Tensor) -> Batch:
        """These rows."""
        groups = np.searchsorted(self._starts, rows.numpy(), side="right") - 1
        parts: list[Batch] = []
        places: list[Tensor] = []
        for group in dict.fromkeys(groups.tolist()):
            place = torch.from_numpy(np.flatnonzero(groups == group))
            inner = rows[place] - int(self._starts[group])
            parts.append({name: tensor[inner] for name, tensor in self._group(group).items()})
            places.append(place)
        if not parts:
            return _empty(self._columns)
        back = torch.argsort(torch.cat(places))
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def _group(self, number: int) -> Batch:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
            else:
                self._kept[number] = _decoded(
                    self._table, self._table.groups[number], self._columns
                )
                self.groups_read += 1
                while len(self._kept) > self._lanes * self._window:
                    self._kept.popitem(last=False)
            return self._kept[number]


def in_memory(table: Table, columns: Sequence[Column]) -> TensorRows:
    """All rows, in the memory of this process."""
    check_schema(table, columns)
    chosen = table.select(*names(columns))
    parts = [_decoded(chosen, group, columns) for group in chosen.groups]
    tensors = (
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if parts
        else _empty(columns)
    )
    return TensorRows(tensors)


def mapped(table: Table, columns: Sequence[Column]) -> MappedRows:
    """All rows, in files of the table's folder, made by the first process that wants them."""
    if table.folder is None:
        raise DataError(f"{table}: mapped files need a folder, and this lake has none")
    check_schema(table, columns)
    chosen = table.select(*names(columns))
    shapes = "-".join(f"{column.key}{column.kind}{list(column.shape)}" for column in columns)
    folder = table.folder / f"rows-{chosen.digest}-{shapes}".replace(" ", "")
    folder_once(folder, lambda target: _fill(target, chosen, columns))
    return MappedRows(folder, [column.key for column in columns])


def by_row_groups(
    table: Table, columns: Sequence[Column], batch: int, lanes: int, window: int
) -> GroupedRows:
    """Row groups, when their rows are asked for."""
    check_schema(table, columns)
    if batch % lanes:
        raise DataError(
            f"training.batch_size ({batch}) has to be a multiple of data.lanes ({lanes})"
        )
    return GroupedRows(table.select(*names(columns)), columns, batch, lanes, window)


def rows_of(
    table: Table, columns: Sequence[Column], settings: DataSettings, batch: int
) -> TensorRows | GroupedRows:
    """The rows of a table, in the way that the configuration names."""
    match settings.access:
        case "memory":
            return in_memory(table, columns)
        case "mapped":
            return mapped(table, columns)
        case "row_groups":
            return by_row_groups(table, columns, batch, settings.lanes, settings.window)


def _decoded(table: Table, group: RowGroup, columns: Sequence[Column]) -> Batch:
    return tensors_of(table.read_group(group), columns, table.where_is(group))


def _empty(columns: Sequence[Column]) -> Batch:
    dtypes = {"number": torch.float32, "whole": torch.int64}
    return {
        column.key: torch.empty((0, *column.shape), dtype=dtypes[column.kind]) for column in columns
    }


def _fill(folder: Path, table: Table, columns: Sequence[Column]) -> None:
    """One file for each column, written a row group at a time."""
    files = {
        column.key: open_memmap(
            folder / f"{column.key}.npy", "w+", _DTYPES[column.kind], (len(table), *column.shape)
        )
        for column in columns
    }
    for start, batch in _batches(table, columns):
        for name, tensor in batch.items():
            files[name][start : start + len(tensor)] = tensor.numpy()
    for file in files.values():
        file.flush()


def _batches(table: Table, columns: Sequence[Column]) -> Iterator[tuple[int, Batch]]:
    start = 0
    for group in table.groups:
        yield start, _decoded(table, group, columns)
        start += group.rows
