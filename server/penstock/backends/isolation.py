"""Keeps a request that makes the model fail from taking its batch mates with it.

A batch that raises is run again request by request, so the model sees the good ones twice: its call should be pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from penstock.backends.base import Batch, Outputs
from penstock.backends.ragged import ragged_one_by_one
from penstock.errors import ModelFailed, PenstockError
from penstock.types import Array

_logger = logging.getLogger(__name__)

Run = Callable[[Batch], Outputs]


def run_isolated(run: Run, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
    """Run the whole batch; if that raises, run each of its requests alone, where that is allowed.

    Raises ModelFailed when the batch fails, and has one request or may not be run again.
    """
    try:
        return run(batch)
    except Exception as error:
        if len(batch.requests) == 1 or not batch.repeatable:
            failed = as_client_sees(error)
            if isinstance(failed, ModelFailed):
                raise failed from error
            return [failed] * len(batch.requests)
        requests = len(batch.requests)
        _logger.info(
            "a batch of %d requests failed, each runs alone: %s", requests, one_line(error)
        )
    return [_run_alone(run, alone) for alone in one_by_one(batch)]


def as_client_sees(error: Exception) -> PenstockError:
    """What a client is told of an exception in a model: `type: message`, one line, whose traceback goes to the log. One
    of ours stays what it is, such as that of another model which was asked."""
    if isinstance(error, PenstockError):
        return error
    _logger.error("the model raised", exc_info=error)
    return ModelFailed(one_line(error))


def one_line(error: BaseException) -> str:
    """`type: message` on one line; the message alone where the error is one of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, PenstockError):
        return text
    name = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    return f"{name}: {text}" if text else name


def one_by_one(batch: Batch) -> Iterator[Batch]:
    """Batches of one request each, whose arrays are views of the whole batch's."""
    if len(batch.requests) == 1:
        yield batch
        return
    if batch.uneven is not None:
        yield from ragged_one_by_one(batch)
        return
    start = 0
    for request in batch.requests:
        stop = start + request.rows
        inputs = {name: array[start:stop] for name, array in batch.inputs.items()}
        yield Batch(inputs, (request,))
        start = stop


def check_rows(name: str, array: Array, rows: int) -> None:
    """Raise ModelFailed unless an output of a batching model has a row for each of the batch's `rows`."""
    if array.ndim == 0 or array.shape[0] != rows:
        raise ModelFailed(
            f"output {name!r} has shape {list(array.shape)}, expected first dimension {rows}:"
            " one row for each of the batch"
        )


def _run_alone(run: Run, batch: Batch) -> Outputs | PenstockError:
    try:
        return run(batch)
    except Exception as error:  # noqa: BLE001 (logged and handed on as this request's answer)
        return as_client_sees(error)
