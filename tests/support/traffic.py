"""Clients of the model `add_sub` that ask one thing after the other, and check each answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np

from grpc_calls import infer, infer_request
from served import Served


class Client(threading.Thread):
    """Sends one request after the other, and checks each answer."""

    def __init__(self, server: Served, ended: threading.Event, first: int) -> None:
        super().__init__()
        self._server, self._ended, self._first = server, ended, first
        self.answers = 0
        self.version = ""
        """Of the model that answered last."""
        self.failures: list[str] = []

    def run(self) -> None:
        """Until the end."""
        with grpc.insecure_channel(self._server.grpc) as channel:
            number = self._first
            while not self._ended.is_set():
                number += 1
                try:
                    self._ask(channel, number)
                except Exception as error:  # noqa: BLE001 - any is a failure, and is shown
                    self.failures.append(repr(error))

    def _ask(self, channel: grpc.Channel, number: int) -> None:
        x = np.full(4, number % 1000, np.float32)
        request = infer_request("add_sub", x, name="INPUT0", outputs=["OUTPUT0"])
        request.inputs.add(name="INPUT1", datatype="FP32", shape=[4])
        request.raw_input_contents.append(x.tobytes())
        answer = infer(channel, request)
        assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), 2 * x)
        self.answers += 1
        self.version = answer.model_version


@contextmanager
def traffic(server: Served) -> Iterator[list[Client]]:
    """Some clients at work."""
    ended = threading.Event()
    clients = [Client(server, ended, 100 * number) for number in range(2)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        ended.set()
        for client in clients:
            client.join()


def failures(clients: Iterable[Client]) -> list[str]:
    """All that went wrong."""
    return [failure for client in clients for failure in client.failures]
