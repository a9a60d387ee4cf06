"""How many requests may wait beside a model's queue: for the one like them that runs, or to be hashed."""

from __future__ import annotations

from typing import Protocol

from penstock.errors import QueueFull


class Sized(Protocol):
    """A request."""

    nbytes: int
    """That it holds."""


class Room:
    """Bounded as the queue is, in requests and bytes."""

    def __init__(self, model: str, max_requests: int, max_bytes: int) -> None:
        self._model = model
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.nbytes = 0

    def enter(self, request: Sized) -> None:
        """One more. Raises QueueFull."""
        if self.requests >= self._max_requests or self.nbytes + request.nbytes > self._max_bytes:
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {self.requests} requests of"
                f" {self.nbytes} bytes waiting for answers that are under way"
            )
        self.requests += 1
        self.nbytes += request.nbytes

    def leave(self, request: Sized) -> None:
        """It is gone."""
        self.requests -= 1
        self.nbytes -= request.nbytes
