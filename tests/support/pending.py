"""Requests as they wait in a pool, made of arrays, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.tensors import serialize_bytes
from penstock.types import DATATYPES, Array, OutputTensor
from penstock.workers.client_regions import Input
from penstock.workers.request import Answer, PendingRequest, RequestPlan


class NoQueue:
    """For requests that wait nowhere."""

    def cancel(self, request: PendingRequest) -> None:
        """Nothing to cancel."""


class Heard:
    """A `respond` that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Answer]] = []

    def __call__(self, request: PendingRequest, answer: Answer) -> None:
        self.answers.append((request.id, answer))

    @property
    def by_id(self) -> dict[str, Answer]:
        """Request's id → its only answer."""
        found = dict(self.answers)
        assert len(found) == len(self.answers), "a request got two answers"
        return found


def to_buffer(array: Array) -> bytes:
    """The array's bytes on the wire."""
    return serialize_bytes(array) if array.dtype.kind == "O" else array.tobytes()


def joined(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
    """An `encode` that is easy to compare: the outputs' bytes, one after the other."""
    return b"".join(bytes(output.data) for output in outputs)


def pending(
    arrays: Mapping[str, Array],
    *,
    id: str = "",
    rows: int | None = None,
    buffers: Sequence[Input] | None = None,
    respond: Any = None,
    encode: Any = joined,
    arrived_ns: int = 0,
    queue: Any = None,
) -> PendingRequest:
    """A request of these inputs; `rows` is the first dimension of the first one unless it is given."""
    specs = [
        ("BYTES" if a.dtype.kind == "O" else DATATYPES[a.dtype], a.shape) for a in arrays.values()
    ]
    plan = RequestPlan(
        rows=specs[0][1][0] if rows is None else rows,
        shape_key=tuple((name, a.dtype, a.shape[1:]) for name, a in arrays.items()),
        input_names=tuple(arrays),
        datatypes=tuple(datatype for datatype, _ in specs),
        shapes=tuple(shape for _, shape in specs),
        sizes_bytes=tuple(-1 for _ in specs),
        order=None,
        output_names=(),
        classes={},
        parameters={},
    )
    return PendingRequest(
        plan,
        id,
        [to_buffer(array) for array in arrays.values()] if buffers is None else buffers,
        encode,
        Heard() if respond is None else respond,
        arrived_ns,
        NoQueue() if queue is None else queue,
    )
