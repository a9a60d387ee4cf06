"""A model's queue as those see it who run requests in others' place: what is theirs can be taken back."""

from __future__ import annotations

from typing import Protocol

from penstock.errors import Unavailable
from penstock.repository.model_pool import ModelPool
from penstock.repository.pool import Pool
from penstock.scheduling.refusals import timed_out
from penstock.workers.request import PendingRequest


class ModelQueue(Protocol):
    """Takes runs, which are `shared`."""

    def submit(self, request: PendingRequest) -> None:
        """Take one, which will get its answer. Raises PenstockError where it is refused, which is counted."""
        ...

    def withdraw(self, request: PendingRequest) -> bool:
        """Take one out that still waits, as if it had never come; False when it is executed."""
        ...

    def requeue(self, request: PendingRequest) -> None:
        """Take one in the place of one that was here. Raises as `submit` does."""
        ...

    def abandon(self, request: PendingRequest) -> None:
        """Nobody waits for it any more; it counts as nothing."""
        ...

    def missed(self, request: PendingRequest) -> Unavailable:
        """The error of a request whose time is over, which is counted among the refusals."""
        ...


class PoolQueue:
    """Of a pool of workers."""

    def __init__(self, pool: Pool) -> None:
        self.submit = pool.submit
        self.abandon = pool.abandon
        self.withdraw = pool.withdraw
        self.requeue = pool.requeue
        self.missed = pool.scheduler.missed


class OtherQueue:
    """Of anything else that answers requests, which can't be put in another order."""

    def __init__(self, pool: ModelPool, model: str) -> None:
        self._pool = pool
        self._model = model
        self.abandon = pool.cancel

    def submit(self, request: PendingRequest) -> None:
        """As ModelQueue."""
        if request.caller is not None:
            # its inputs are valid until it has its answer, and the run may outlive that
            request.buffers = [bytes(buffer) for buffer in request.buffers]
        self._pool.submit(request)

    requeue = submit

    def withdraw(self, request: PendingRequest) -> bool:
        """As ModelQueue."""
        return False

    def missed(self, request: PendingRequest) -> Unavailable:
        """As ModelQueue."""
        return timed_out(self._model, request.deadline_is_clients, "")


def queue_of(pool: ModelPool, model: str) -> ModelQueue:
    """Whichever the pool has."""
    return PoolQueue(pool) if isinstance(pool, Pool) else OtherQueue(pool, model)
