"""What the gateway says to a worker that may be too busy to listen: it waits here until the socket takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.messages import Message


class Outbox:
    """Sends over a channel that does not block. Its length follows from what is said: so many messages a request."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: deque[Message] = deque()

    def send(self, message: Message) -> None:
        """Send it now, or as soon as the worker listens. Raises ChannelClosed when the worker is gone."""
        if not self._waiting:
            try:
                self._channel.send(message)
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._send_waiting)
            else:
                return
        self._waiting.append(message)

    def close(self) -> None:
        """Drop what waits. The channel is still open."""
        if self._waiting:
            self._waiting.clear()
            self._loop.remove_writer(self._channel.fileno())

    def _send_waiting(self) -> None:
        try:
            while self._waiting:
                self._channel.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            return
        except ChannelClosed:
            self._waiting.clear()
        self._loop.remove_writer(self._channel.fileno())
