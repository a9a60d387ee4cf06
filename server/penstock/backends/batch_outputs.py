"""The outputs of a batch: which of them are wanted, whether they have all rows, and each request's share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from penstock.backends.base import Batch, Outputs, RequestInfo
from penstock.backends.ragged import scattered_names
from penstock.errors import ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import Array


def wanted_outputs(batch: Batch, names: Sequence[str]) -> Sequence[str]:
    """Those of a model's outputs that any request of the batch asks for: others need not be computed or copied."""
    wanted: set[str] = set()
    for request in batch.requests:
        if not request.outputs:
            return names
        wanted.update(request.outputs)
    return [name for name in names if name in wanted]


def check_rows(name: str, array: Array, rows: int) -> None:
    """Raise ModelFailed unless an output of a batching model has a row for each of the batch's `rows`."""
    if array.ndim == 0 or array.shape[0] != rows:
        raise ModelFailed(
            f"output {name!r} has shape {list(array.shape)}, expected first dimension {rows}:"
            " one row for each of the batch"
        )


class RowsCheck:
    """`check_rows` for all outputs of one model that have rows."""

    def __init__(self, config: ConfigDict) -> None:
        """`config` is complete."""
        self._batching = config["max_batch_size"] > 0
        self._without_rows = scattered_names(config)

    def __call__(self, outputs: Outputs, rows: int) -> None:
        """Raises ModelFailed."""
        if not self._batching:
            return
        for name, array in outputs.items():
            if name not in self._without_rows:
                check_rows(name, array, rows)


def divided(arrays: Mapping[str, Array], requests: Sequence[RequestInfo]) -> Iterator[Outputs]:
    """Each request's rows, as views. The arrays themselves, where there is one request."""
    if len(requests) == 1:
        yield arrays
        return
    start = 0
    for request in requests:
        stop = start + request.rows
        yield {name: array[start:stop] for name, array in arrays.items()}
        start = stop
