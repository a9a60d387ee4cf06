"""Runs a batch through a decoupled model with nobody to take its responses: for warm-ups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Condition
from typing import Any

from penstock.backends.base import Batch, LiveRequest, LoadedModel
from penstock.errors import ModelFailed
from penstock.model_config import ModelConfig
from penstock.workers.message import Message
from penstock.workers.message_parts import RequestError
from penstock.workers.streams import Lines, run_decoupled
from penstock.workers.worker_commands import Taken
from penstock.workers.worker_events import Response


def rehearse(model: LoadedModel, config: ModelConfig, batch: Batch) -> None:
    """Run a batch of requests of one row each, and wait for their final responses. Raises ModelFailed for the first
    error among all responses."""
    hall = Hall()
    lines = Lines(hall)
    requests = len(batch.requests)
    live = [LiveRequest(rows=1, line=lines.stream(1, n, config)) for n in range(requests)]
    run_decoupled(model, replace(batch, requests=live), config)
    # what the model has dropped must be known to be so
    del live
    hall.wait(lambda: hall.finals == requests)
    if hall.error is not None:
        raise ModelFailed(hall.error.reason)


class Hall:
    """In the place of an Inbox: every response is taken at once."""

    def __init__(self) -> None:
        self._handlers: dict[type[Message], Callable[[Any], None]] = {}
        self._changed = Condition()
        self.finals = 0
        self.error: RequestError | None = None
        """The first one."""

    def on(self, kind: type[Message], handler: Callable[[Any], None]) -> None:
        """As Inbox."""
        self._handlers[kind] = handler

    def on_early(self, kind: type[Message], handler: Callable[[Any], None]) -> None:
        """As Inbox: nobody resets anything."""

    def pump(self) -> None:
        """As Inbox: nobody says anything."""

    def wait(self, ready: Callable[[], bool]) -> None:
        """As Inbox."""
        with self._changed:
            self._changed.wait_for(ready)

    def send(self, message: Message) -> None:
        """As Inbox."""
        assert isinstance(message, Response), "models send nothing else"
        nbytes = sum(len(tensor.data) for tensor in message.outputs or ())
        with self._changed:
            self._handlers[Taken](Taken(message.batch, message.request, 1, nbytes))
            self.error = self.error or message.error
            self.finals += message.final
            self._changed.notify_all()

    post = send
