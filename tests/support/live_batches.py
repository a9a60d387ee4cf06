"""Batches of live requests, and what models say of them, without a worker around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Condition
from typing import Any, cast

from model_files import batch_of
from penstock import model_config
from penstock.backends.base import Batch, LiveRequest, LoadedModel, RequestInfo
from penstock.types import Array
from penstock.workers.message import Message
from penstock.workers.streams import Lines, RunningLine, run_decoupled
from penstock.workers.worker_commands import Cancel
from penstock.workers.worker_events import Response
from stream_bench import short


class Gateway:
    """In the place of an Inbox: hears all, and has room for all."""

    def __init__(self) -> None:
        self._handlers: dict[type[Message], Callable[[Any], None]] = {}
        self._changed = Condition()
        self.responses: list[Response] = []
        self.lines = Lines(self)

    def on(self, kind: type[Message], handler: Callable[[Any], None]) -> None:
        """As Inbox."""
        self._handlers[kind] = handler

    def on_early(self, kind: type[Message], handler: Callable[[Any], None]) -> None:
        """As Inbox."""

    def pump(self) -> None:
        """As Inbox."""

    def wait(self, ready: Callable[[], bool]) -> None:
        """As Inbox: until the model has said enough."""
        with self._changed:
            assert self._changed.wait_for(ready, 60)

    def send(self, message: Message) -> None:
        """As Inbox."""
        assert isinstance(message, Response)
        with self._changed:
            self.responses.append(message)
            self._changed.notify_all()

    post = send

    def cancel(self, request: int) -> None:
        """Nobody waits for it any more."""
        self._handlers[Cancel](Cancel(1, request))

    def run(self, model: LoadedModel, *requests: Mapping[str, Array], **more: Any) -> None:
        """Have a decoupled model run these."""
        config = model_config.parse(model.config)
        given = batch_of(*requests, **more)
        live = [_live(r, self.lines.stream(1, n, config)) for n, r in enumerate(given.requests)]
        run_decoupled(model, Batch(given.inputs, live), config)

    def told(self, finals: int = 1) -> list[Any]:
        """All responses in short, once there are so many final ones."""
        self.wait(lambda: sum(response.final for response in self.responses) >= finals)
        told, self.responses = list(map(short, self.responses)), []
        return told

    def plain(self, *requests: Mapping[str, Array]) -> Batch:
        """A batch of a model that is live, and not decoupled."""
        given = batch_of(*requests)
        live = [_live(r, RunningLine(self.lines, (1, n))) for n, r in enumerate(given.requests)]
        return Batch(given.inputs, live)


def instance_of(model: LoadedModel) -> Any:
    """The model's own object."""
    return cast(Any, model)._instance


def _live(request: RequestInfo, line: Any) -> LiveRequest:
    return LiveRequest(request.rows, request.id, request.parameters, request.outputs, line=line)
