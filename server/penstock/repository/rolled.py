"""What those who send requests to models know of roll-outs: that one of two versions takes each."""

from __future__ import annotations

from typing import Protocol

from penstock.repository.model_pool import Taker
from penstock.repository.served_model import ServedModel
from penstock.types import InferHeader
from penstock.workers.request import RequestPlan


class Chosen(Protocol):
    """The version that takes a request, and the request's plan there."""

    @property
    def pool(self) -> Taker:
        """What takes it."""
        ...

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
