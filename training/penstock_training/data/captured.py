"""What the server has captured, as samples: a record is a request, and a request may have several rows.

`docs/capture.md` has the columns. A record's tensor is one list of all its elements, with its shape beside it; here
each sample becomes a row of its own. What that row is then good for (its own answer as a label, a person's, a
comparison of days) is for whoever makes a table of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from penstock_training.data.errors import BadValues, SchemaMismatch
from penstock_training.data.table import Table

KEPT: Final = ("time", "record", "model_version", "model_digest", "sample")
"""What a sample keeps of its record; `record` tells which samples came in one request."""
ANSWERED: Final = "outcome == 'ok' and response == 0 and truncated == False"


def samples(table: Table, tensors: Sequence[str]) -> pa.Table:
    """A row for each sample of the requests that were answered, with the tensors of those names (`input_IMAGE`, as the
    columns are called) as lists of its own elements. Records that lack one of them are left out."""
    _check(table, tensors)
    wanted = [*KEPT, *tensors, *(f"shape_{name}" for name in tensors)]
    present = " and ".join(f"{name} is not None" for name in tensors)
    data = table.where(f"{ANSWERED} and {present}").select(*wanted).read()
    counts = _counts(table, data, tensors)
    of_record = np.repeat(np.arange(len(data)), counts)
    columns = {name: data[name].take(pa.array(of_record)) for name in KEPT}
    for name in tensors:
        columns[name] = _split(data[name], counts)
    return pa.table(columns)


def _check(table: Table, tensors: Sequence[str]) -> None:
    for name in tensors:
        for column in (name, f"shape_{name}"):
            if column not in table.columns:
                there = [n for n in table.columns if n.startswith(("input_", "output_"))]
                raise SchemaMismatch(
                    f"{table}: there is no column '{column}'; tensors that were captured: {', '.join(there)}"
                )


def _counts(table: Table, data: pa.Table, tensors: Sequence[str]) -> list[int]:
    """Samples of each record: the first dimension, which all tensors of it share."""
    shapes = [data[f"shape_{name}"].to_pylist() for name in tensors]
    lengths = [data[name].combine_chunks().value_lengths().to_pylist() for name in tensors]
    for row, (found, sizes) in enumerate(
        zip(zip(*shapes, strict=True), zip(*lengths, strict=True), strict=True)
    ):
        record = data["record"][row].as_py()
        if len({shape[0] if shape else None for shape in found}) != 1 or not found[0]:
            raise BadValues(
                f"{table}, record {record}: its tensors have the shapes {list(found)}, and no batch in common"
            )
        for name, shape, size in zip(tensors, found, sizes, strict=True):
            if np.prod(shape) != size:
                raise BadValues(
                    f"{table}, record {record}: {name} has {size} elements, and the shape {shape}"
                )
    return [shape[0] for shape in shapes[0]]


def _split(column: pa.ChunkedArray, counts: list[int]) -> pa.Array:
    """Each list cut into as many of one length as its record has samples."""
    lists = column.combine_chunks()
    lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
    repeats = np.asarray(counts, np.int64)
    each = np.repeat(lengths // np.maximum(repeats, 1), repeats)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(each)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), lists.flatten())
