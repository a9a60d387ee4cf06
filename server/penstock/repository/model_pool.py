"""What the gateway needs of whatever answers a model version's requests: a pool of workers, or an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from penstock.workers.instance import Asked, Instance
from penstock.workers.request import PendingRequest


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


class ModelPool(Taker, Protocol):
    """What runs a model's requests."""

    @property
    def ready(self) -> bool:
        """It can run requests now."""
        ...

    @property
    def accepts(self) -> bool:
        """Requests may come: it can run them, or should soon."""
        ...

    @property
    def problem(self) -> str:
        """Why it can't run any request before something else changes; empty: it can."""
        ...

    @property
    def last_crash(self) -> str:
        """Why it was not ready last."""
        ...

    @property
    def instances(self) -> Sequence[object]:
        """Workers that are loaded."""
        ...

    def explain(self) -> dict[str, Any]:
        """What it does and has decided, for a person."""
        ...

    def tell_logging(self) -> None:
        """Have all workers log what the link says."""
        ...

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, answer those that are here for up to `grace_s`, then end."""
        ...


class Calls(Protocol):
    """Answers what models ask of other models."""

    def hear(self, model: str, pool: ModelPool, instance: Instance, asked: Asked) -> None:
        """A worker of the model's pool says something."""
        ...

    def abandoned(self, request: PendingRequest) -> None:
        """Nobody waits for the answer of this request any more."""
        ...

    def ended(self, instance: Instance) -> None:
        """The worker is gone."""
        ...
