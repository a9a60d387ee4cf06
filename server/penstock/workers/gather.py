"""The gateway's way in and out of slabs: requests are joined into one, responses are views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from penstock.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    NotFound,
    PenstockError,
    Unavailable,
    UnknownError,
    Unsupported,
)
from penstock.types import OutputTensor
from penstock.workers.copy_in import copy_in
from penstock.workers.message_parts import InputSlot, OutputSlot, RequestError, RequestSlot
from penstock.workers.request import PendingRequest
from penstock.workers.slab import Slab, align
from penstock.workers.uneven import UnevenGathering
from penstock.workers.uneven_plan import UnevenPlan
from penstock.workers.worker_commands import Execute, ExecuteSequences, ExecuteUneven
from penstock.workers.worker_events import Done

REQUEST_ERRORS: Final[Mapping[str, type[PenstockError]]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            AlreadyExists,
            Cancelled,
            DeadlineExceeded,
            InvalidRequest,
            ModelFailed,
            NotFound,
            Unavailable,
            UnknownError,
            Unsupported,
        )
    }
)
"""What a model may answer a request with: `RequestError.kind` → its class."""


class InputsLost(Exception):
    """Some requests' inputs are not in their client's shared memory any more. The others of the batch can go on."""

    def __init__(self, lost: Mapping[PendingRequest, PenstockError]) -> None:
        super().__init__(f"inputs of {len(lost)} requests are gone")
        self.lost = lost


def gather(batch_id: int, slab_id: int, slab: Slab, batch: Sequence[PendingRequest]) -> Execute:
    """Copy a batch's tensors into the slab, each input's requests side by side; the command to run it.

    Raises Unavailable when there is no memory for a larger slab, and InputsLost.
    """
    plan = batch[0].plan
    if plan.uneven is not None:
        return _gather_uneven(batch_id, slab_id, slab, batch, plan.uneven)
    nbytes = sum([sum(map(len, request.buffers)) for request in batch])
    needed = nbytes + align(1) * (len(plan.input_names) + 1)
    slab.ensure(needed)
    rows = sum(request.rows for request in batch)
    slots = []
    lost: dict[int, PenstockError] = {}
    offset = 0
    for index, name in enumerate(plan.input_names):
        end = copy_in(slab, offset, [request.buffers[index] for request in batch], lost)
        shape = plan.shapes[index]
        if len(batch) > 1:
            shape = (rows, *shape[1:])
        slots.append(InputSlot(name, plan.datatypes[index], shape, offset, end - offset))
        offset = align(end)
    if lost:
        raise InputsLost({batch[position]: error for position, error in lost.items()})
    requests = _request_slots(batch)
    if plan.sequence is None:
        return Execute(batch_id, slab_id, tuple(slots), requests, offset)
    steps = tuple([request.step for request in batch])
    return ExecuteSequences(batch_id, slab_id, tuple(slots), requests, offset, steps)


def _gather_uneven(
    batch_id: int,
    slab_id: int,
    slab: Slab,
    batch: Sequence[PendingRequest],
    plan: UnevenPlan,
) -> ExecuteUneven:
    """As `gather`, for a model whose requests may be joined though their shapes differ."""
    gathering = UnevenGathering(slab, batch, plan)
    uneven = gathering.copy()
    if gathering.lost:
        raise InputsLost({batch[position]: error for position, error in gathering.lost.items()})
    slots, requests = tuple(gathering.slots), _request_slots(batch)
    return ExecuteUneven(batch_id, slab_id, slots, requests, gathering.end, uneven)


def _request_slots(batch: Sequence[PendingRequest]) -> tuple[RequestSlot, ...]:
    return tuple([RequestSlot(r.rows, r.id, r.plan.parameters, r.plan.output_names) for r in batch])


def scatter(
    slab: Slab, done: Done, batch: Sequence[PendingRequest]
) -> list[list[OutputTensor] | PenstockError]:
    """For each request its outputs, as views of the slab, or its error."""
    outputs: list[list[OutputTensor]] = [[] for _ in batch]
    for slot in done.outputs:
        _split(slab.view, slot, batch, outputs)
    answers: list[list[OutputTensor] | PenstockError] = list(outputs)
    for error in done.errors:
        answers[error.index] = error_of(error)
    return answers


def error_of(error: RequestError) -> PenstockError:
    """The error that a model gave a request."""
    given = REQUEST_ERRORS.get(error.kind, ModelFailed)(error.reason)
    # of whatever kind the model says it is, the words are its own
    given.foreign = True
    return given


def _split(
    view: memoryview,
    slot: OutputSlot,
    batch: Sequence[PendingRequest],
    outputs: list[list[OutputTensor]],
) -> None:
    name, datatype, shape, offset = slot.name, slot.datatype, slot.shape, slot.offset
    if slot.count == 1:
        data = view[offset : offset + slot.nbytes]
        outputs[slot.first].append(OutputTensor(name, datatype, shape, data))
        return
    tail = shape[1:]
    row_bytes = slot.nbytes // shape[0]
    start = offset
    for position in range(slot.count):
        index = slot.first + position
        rows = batch[index].rows
        end = offset + slot.ends[position] if slot.ends else start + rows * row_bytes
        outputs[index].append(OutputTensor(name, datatype, (rows, *tail), view[start:end]))
        start = end
