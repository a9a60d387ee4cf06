"""What the gateway says to a worker that may be too busy to listen: it waits here until the socket takes it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.message import Message, encode


class Outbox:
    """Sends over a channel that does not block, in order. Its length follows from what is said: so many messages a
    request."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        """Encoded, for messages may hold views that are valid now only; descriptors are our own."""

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send it now, or as soon as the worker listens. Raises ChannelClosed when the worker is gone."""
        data = encode(message)
        if not self._waiting:
            try:
                self._channel.send_encoded(data, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._send_waiting)
            else:
                return
        self._waiting.append((data, [os.dup(descriptor) for descriptor in descriptors]))

    def close(self) -> None:
        """Drop what waits. The channel is still open."""
        if self._waiting:
            self._drop()
            self._loop.remove_writer(self._channel.fileno())

    def _send_waiting(self) -> None:
        try:
            while self._waiting:
                data, descriptors = self._waiting[0]
                self._channel.send_encoded(data, descriptors)
                self._waiting.popleft()
                _close_all(descriptors)
        except BlockingIOError:
            return
        except ChannelClosed:
            self._drop()
        self._loop.remove_writer(self._channel.fileno())

    def _drop(self) -> None:
        while self._waiting:
            _close_all(self._waiting.popleft()[1])


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
