"""What those who send requests to models know of roll-outs: that one of two versions takes each."""

from __future__ import annotations

from typing import Protocol

from penstock.repository.served_model import ServedModel
from penstock.types import InferHeader
from penstock.workers.request import PendingRequest, RequestPlan


class Taker(Protocol):
    """Takes requests, and answers each once: a model's pool, or what stands before it."""

    def submit(self, request: PendingRequest) -> None:
        """Take a request, which will get its answer. Raises PenstockError where it is refused."""
        ...

    def submit_at_once(self, request: PendingRequest) -> None:
        """As `submit`, for a request that may not wait for an instance: it is refused where none is idle."""
        ...

    def cancel(self, request: PendingRequest) -> None:
        """Nobody waits for its answer any more."""
        ...


class Chosen(Taker, Protocol):
    """The version that takes a request, and the request's plan there."""

    @property
    def model(self) -> ServedModel: ...

    @property
    def plan(self) -> RequestPlan: ...


class RolledOut(Protocol):
    """A model that has two versions of which each answers a share of the requests that name none."""

    def choose(
        self, header: InferHeader, tenant: str, request_id: str, *, remember: bool = True
    ) -> Chosen:
        """Which version takes a request. `remember`: others of the same header, the very object, will come.

        Raises InvalidRequest where it does not fit the model, Unavailable, NotFound.
        """
        ...
