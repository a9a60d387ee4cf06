"""The supervisor's end of the control socket: never blocks."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable

import msgspec

from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.supervisor_messages import (
    GatewayMessage,
    SupervisorMessage,
    decode_gateway_message,
)

_log = logging.getLogger(__name__)


class ControlChannel:
    """Calls `on_message` for each message. Tells nothing of the end: the process is watched."""

    def __init__(self, channel: Channel, on_message: Callable[[GatewayMessage], None]) -> None:
        self._channel = channel
        self._on_message = on_message
        self._unsent: deque[tuple[SupervisorMessage, int | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)

    def send(self, message: SupervisorMessage, descriptor: int | None = None) -> None:
        """Send, or queue, a message. Takes the descriptor over, and closes it once it is sent."""
        self._unsent.append((message, descriptor))
        self._write()

    def read_rest(self) -> None:
        """Take what a gateway that has ended still said."""
        if not self._closed:
            self._read()

    def close(self) -> None:
        """Close this end, and whatever was not sent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        self._drop_unsent()

    def _read(self) -> None:
        try:
            while not self._closed:
                data, descriptors = self._channel.receive()
                for descriptor in descriptors:
                    os.close(descriptor)
                self._on_message(decode_gateway_message(data))
        except BlockingIOError:
            return
        except ChannelClosed:
            self.close()
        except msgspec.DecodeError as error:
            _log.error("the gateway sent a message that can't be read: %s", error)

    def _write(self) -> None:
        while self._unsent and not self._closed:
            message, descriptor = self._unsent[0]
            try:
                self._channel.send(message, () if descriptor is None else (descriptor,))
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._write)
                return
            except ChannelClosed:
                self.close()
                return
            self._unsent.popleft()
            _close(descriptor)
        if self._closed:
            self._drop_unsent()
        else:
            self._loop.remove_writer(self._channel.fileno())

    def _drop_unsent(self) -> None:
        while self._unsent:
            _close(self._unsent.popleft()[1])


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
