"""Decoupled models on a real worker in this process, whose gateway the test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pending import pending
from penstock.backends.base import Batch, LoadSpec, Stream, stream_of
from penstock.types import Array
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.gather import gather
from penstock.workers.slab import PAGE_BYTES, Slab
from penstock.workers.worker import Worker
from penstock.workers.worker_commands import AttachSlab, Cancel, Load, Taken
from penstock.workers.worker_events import (
    Executed,
    Ready,
    Response,
    WorkerEvent,
    decode_worker_event,
)

CONFIG: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
    "model_transaction_policy": {"decoupled": True},
}

LOAD = Load("m", 1, "/models/m", b'{"name":"m"}', "m_0", "cpu", 1)


def y(*values: float) -> dict[str, Array]:
    """One row of output Y."""
    return {"Y": np.array([values], np.float32)}


class Model:
    """Does what the test says."""

    live = True

    def __init__(self) -> None:
        self.config = CONFIG
        self.run: Callable[[Batch], Any] = lambda batch: ()

    def execute(self, batch: Batch) -> Any:
        return self.run(batch)

    def close(self) -> None:
        pass

    def each(self, answer: Callable[[Stream, Array], None]) -> None:
        """Have it answer each request so."""

        def run(batch: Batch) -> Any:
            for row, request in enumerate(batch.requests):
                answer(stream_of(request), batch.inputs["X"][row : row + 1])
            return ()

        self.run = run


class Bench:
    """A worker whose main loop runs in a thread, and the gateway's end of its channel."""

    def __init__(self) -> None:
        self.model = Model()
        self.gateway, self._theirs = Channel.pair()
        self.worker = Worker(self._theirs, self._load)
        self.slab = Slab.create(PAGE_BYTES)
        self.threads: list[threading.Thread] = []
        self._batches = 0
        self.start(self._steps)
        self.gateway.send(LOAD)
        assert isinstance(self.next(), Ready)
        self.gateway.send(AttachSlab(0), (self.slab.fd,))

    def start(self, target: Callable[[], None]) -> None:
        """Run it in a thread, which is to end before the bench does."""
        self.threads.append(threading.Thread(target=target))
        self.threads[-1].start()

    def execute(self, *values: float) -> int:
        """Send a batch of one request of one row for each value; its number."""
        self._batches += 1
        requests = [pending({"X": np.array([[v]], np.float32)}, id=str(v)) for v in values]
        self.gateway.send(gather(self._batches, 0, self.slab, requests))
        return self._batches

    def next(self) -> WorkerEvent:
        """What the worker says next."""
        event: WorkerEvent = decode_worker_event(self.gateway.receive()[0])
        return event

    def response(self) -> Response:
        """What it says next, which is a response."""
        event = self.next()
        assert isinstance(event, Response), event
        return event

    def told(self, count: int) -> list[Any]:
        """The next so many events in short: values, errors' texts, `final` after the last one's, and `executed`."""
        return [short(self.next()) for _ in range(count)]

    def cancel(self, batch: int, request: int = 0) -> None:
        """Nobody waits for it any more."""
        self.gateway.send(Cancel(batch, request))

    def taken(self, batch: int, responses: int, nbytes: int, request: int = 0) -> None:
        """Its client has taken so many."""
        self.gateway.send(Taken(batch, request, responses, nbytes))

    def close(self) -> None:
        self.gateway.close()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "it still waits"
        self._theirs.close()
        self.slab.close()

    def _load(self, _: LoadSpec) -> Model:
        return self.model

    def _steps(self) -> None:
        try:
            while True:
                self.worker.step()
        except ChannelClosed:
            self.worker.close()


def short(event: WorkerEvent) -> Any:
    """Of one event."""
    match event:
        case Executed():
            return "executed"
        case Response(outputs=outputs, error=error, final=final, request=request):
            what: Sequence[Any] = ()
            if error is not None:
                what = (error.reason,)
            elif outputs is not None:
                what = tuple(v for o in outputs for v in np.frombuffer(o.data, np.float32).tolist())
            return (request, *what, "final") if final else (request, *what)
    return event
