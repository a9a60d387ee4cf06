"""Makes of a server's `send`, which acts when it is awaited, one that acts when it is called, as our bridge's does."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from penstock.gateway.asgi import Message, Send


class EagerSend:
    """One response's messages. They are sent in order by whoever awaits what a call returns, or else by `complete`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._ended = False

    def __call__(self, message: Message) -> _Flushed:
        self._messages.put_nowait(message)
        return _Flushed(self)

    async def flush(self) -> None:
        """Send what there is, as fast as the client's transport takes it."""
        while not self._messages.empty():
            await self._next()

    async def complete(self) -> None:
        """Send what there is and comes, up to the end of the body."""
        while not self._ended:
            await self._next()

    async def _next(self) -> None:
        message = await self._messages.get()
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._ended = True


class _Flushed:
    """Need not be awaited, as a coroutine would."""

    __slots__ = ("_sending",)

    def __init__(self, sending: EagerSend) -> None:
        self._sending = sending

    def __await__(self) -> Generator[object, None, None]:
        return self._sending.flush().__await__()
