"""What messages about batches are made of."""

from __future__ import annotations

from penstock.types import Parameter
from penstock.workers.message import Message


class InputSlot(Message, frozen=True):
    """One input of a batch, the bytes of all its requests joined."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class RequestSlot(Message, frozen=True):
    """One request of a batch."""

    rows: int
    id: str
    parameters: dict[str, Parameter]
    outputs: tuple[str, ...]


class OutputSlot(Message, frozen=True):
    """One output of `count` requests from `first` on, their bytes joined. Shapes differ only in the first dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Of the joined array."""
    offset: int
    nbytes: int
    first: int
    count: int
    ends: tuple[int, ...]
    """BYTES only: where each request's bytes end, from `offset`."""


class ResponseTensor(Message, frozen=True):
    """An output of a response, with its bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview


class RequestError(Message, frozen=True):
    """One request of a batch failed, its mates did not."""

    index: int
    reason: str
    kind: str = "ModelFailed"
    """The name of its class in `errors`, one of `gather.REQUEST_ERRORS`."""
