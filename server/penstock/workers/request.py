"""A request on its way through queue and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import msgspec

from penstock.types import Buffer, OutputTensor, Parameter

Encode = Callable[["PendingRequest", list[OutputTensor]], bytes]
"""Makes the response's bytes while its tensors' views are valid. May raise PenstockError."""


class RequestPlan(msgspec.Struct, frozen=True):
    """All that a header and a model's signature say together: made once a distinct header."""

    rows: int
    """Share of the batch dimension; 1 where the model does not batch."""
    shape_key: Hashable
    """Equal for requests that can be joined."""
    input_names: tuple[str, ...]
    """In the model's order."""
    datatypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    sizes_bytes: tuple[int, ...]
    """Of each input's bytes; -1 for BYTES."""
    order: tuple[int, ...] | None
    """Where in the header each input is; None when it is in the model's order."""
    output_names: tuple[str, ...]
    """What the client asked for, in its order; empty: all."""
    classes: Mapping[str, int]
    """Output → the top-k asked for by the classification extension."""
    parameters: dict[str, Parameter]


class Queue(Protocol):
    """Where a request waits."""

    def cancel(self, request: PendingRequest) -> None:
        """Take the request out if it still waits."""


class PendingRequest:
    """One request between its arrival and its answer. `future` resolves to the encoded response."""

    __slots__ = (
        "arrived_ns",
        "attempts",
        "buffers",
        "encode",
        "future",
        "id",
        "nbytes",
        "plan",
        "queue",
        "rows",
        "shape_key",
    )

    def __init__(
        self,
        plan: RequestPlan,
        request_id: str,
        buffers: Sequence[Buffer],
        encode: Encode,
        future: asyncio.Future[bytes],
        arrived_ns: int,
        queue: Queue,
    ) -> None:
        self.plan = plan
        self.id = request_id
        self.buffers = buffers
        self.encode = encode
        self.future = future
        self.arrived_ns = arrived_ns
        self.queue = queue
        self.rows = plan.rows
        self.shape_key = plan.shape_key
        self.nbytes = sum(map(len, buffers))
        self.attempts = 0
        """How many workers died while they ran it."""

    def cancel(self) -> None:
        """Nobody waits for the answer any more: don't run the request if it has not begun."""
        self.queue.cancel(self)
