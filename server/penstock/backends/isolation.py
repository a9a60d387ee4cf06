"""Keeps a request that makes the model fail from taking its batch mates with it.

A batch that raises is run again request by request, so the model sees the good ones twice: its call should be pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from penstock.backends.base import Answers, Batch, Outputs, RequestInfo
from penstock.backends.batch_outputs import divided
from penstock.backends.device_lost import check_device
from penstock.backends.device_memory import OutOfDeviceMemory
from penstock.backends.ragged import ragged_one_by_one
from penstock.errors import ModelFailed, PenstockError

_logger = logging.getLogger(__name__)

Run = Callable[[Batch], Outputs]


def run_isolated(run: Run, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
    """Run the whole batch; if that raises, run each of its requests alone, where that is allowed. A batch that does not
    fit into a GPU's memory (OutOfDeviceMemory) runs in halves, and these too.

    Raises ModelFailed when the batch fails, and has one request or may not be run again; DeviceLost when nothing can be
    run in this process any more.
    """
    too_large = ""
    try:
        return run(batch)
    except OutOfDeviceMemory as error:
        if len(batch.requests) == 1 or not batch.repeatable:
            raise _too_large(error, batch.requests) from error
        too_large = one_line(error)
    except Exception as error:
        check_device(error)
        if len(batch.requests) == 1 or not batch.repeatable:
            failed = as_client_sees(error)
            if isinstance(failed, ModelFailed):
                raise failed from error
            return [failed] * len(batch.requests)
        requests = len(batch.requests)
        _logger.info(
            "a batch of %d requests failed, each runs alone: %s", requests, one_line(error)
        )
    # not before the exception is gone, whose traceback may hold what has filled the memory
    if too_large:
        return _run_in_halves(run, batch, too_large)
    return [_run_alone(run, alone) for alone in one_by_one(batch)]


def as_client_sees(error: Exception) -> PenstockError:
    """What a client is told of an exception in a model: `type: message`, one line, whose traceback goes to the log. One
    of ours stays what it is, such as that of another model which was asked. Raises DeviceLost."""
    check_device(error)
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
    parts = divided(batch.inputs, batch.requests)
    for request, inputs in zip(batch.requests, parts, strict=True):
        yield Batch(inputs, (request,))


def _run_in_halves(run: Run, batch: Batch, why: str) -> Answers:
    requests = len(batch.requests)
    _logger.warning("a batch of %d requests does not fit, it runs in halves: %s", requests, why)
    if batch.uneven is not None:
        return [_run_alone(run, alone) for alone in one_by_one(batch)]
    halves = list(_halves(batch))
    answers = [_run_half(run, half) for half in halves]
    wholes = [answer for answer in answers if isinstance(answer, Mapping)]
    if len(wholes) == 2 and wholes[0].keys() == wholes[1].keys():
        return {name: np.concatenate([whole[name] for whole in wholes]) for name in wholes[0]}
    return [
        each
        for half, answer in zip(halves, answers, strict=True)
        for each in (divided(answer, half.requests) if isinstance(answer, Mapping) else answer)
    ]


def _run_half(run: Run, half: Batch) -> Answers:
    if len(half.requests) > 1:
        return run_isolated(run, half)
    answer = _run_alone(run, half)
    return [answer] if isinstance(answer, PenstockError) else answer


def _halves(batch: Batch) -> Iterator[Batch]:
    """Two batches of half the requests each, whose arrays are views of the whole batch's."""
    middle = len(batch.requests) // 2
    cut = sum(request.rows for request in batch.requests[:middle])
    for requests, rows in (
        (batch.requests[:middle], slice(cut)),
        (batch.requests[middle:], slice(cut, None)),
    ):
        yield Batch({name: array[rows] for name, array in batch.inputs.items()}, requests)


def _too_large(error: Exception, requests: Sequence[RequestInfo]) -> ModelFailed:
    rows = sum(request.rows for request in requests)
    what = (
        f"this request alone, of {rows} rows," if len(requests) == 1 else f"a batch of {rows} rows"
    )
    detail = " ".join(str(error).split())
    return ModelFailed(f"out of GPU memory: {what} does not fit{': ' + detail if detail else ''}")


def _run_alone(run: Run, batch: Batch) -> Outputs | PenstockError:
    try:
        return run(batch)
    except OutOfDeviceMemory as error:
        return _too_large(error, batch.requests)
    except Exception as error:  # noqa: BLE001 (logged and handed on as this request's answer)
        return as_client_sees(error)
