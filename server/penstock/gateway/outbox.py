"""Messages that wait for their client's transport: whoever makes them never waits, whoever sends them does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

JOIN_BYTES: Final = 64 << 10
"""Messages that are sent together, where the transport lets them be, have as many bytes."""

Taken = Callable[[], None]


class Outbox:
    """Messages in the order in which they are sent, by one task. All of it runs on the event loop."""

    __slots__ = ("_closed", "_sending", "_waiting", "_woken", "nbytes", "on_room")

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, Taken | None]] = deque()
        self._sending: list[tuple[bytes, Taken | None]] = []
        self._closed = False
        self._woken: asyncio.Future[None] | None = None
        self.nbytes = 0
        """Of all that the transport has not taken yet."""
        self.on_room: Taken | None = None
        """Called when the transport has taken something."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def put(self, data: bytes, taken: Taken | None = None) -> None:
        """Have a message sent. `taken` is called once, when the transport has it, or nobody wants it any more."""
        if self._closed:
            if taken is not None:
                taken()
            return
        self._waiting.append((data, taken))
        self.nbytes += len(data)
        self._wake()

    def close(self) -> None:
        """There will be no more messages. Those that wait are sent."""
        self._closed = True
        self._wake()

    def abandon(self) -> None:
        """Nobody wants the messages any more: none of them is sent."""
        self._closed = True
        # what is being sent now the transport may have to its end
        dropped, self._waiting = [*self._sending, *self._waiting], deque()
        self._sending = []
        self._release(dropped)
        self._wake()

    async def next(self, max_bytes: int = 0) -> list[bytes]:
        """What to send next: a message, and as many after it as have `max_bytes` together. Empty: all is sent.

        Whoever calls it again has sent what it got before.
        """
        sent, self._sending = self._sending, []
        self._release(sent)
        while not self._waiting:
            if self._closed:
                return []
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
        self._sending.append(self._waiting.popleft())
        size = len(self._sending[0][0])
        while self._waiting and (size := size + len(self._waiting[0][0])) <= max_bytes:
            self._sending.append(self._waiting.popleft())
        return [data for data, _ in self._sending]

    def _release(self, messages: list[tuple[bytes, Taken | None]]) -> None:
        if not messages:
            return
        self.nbytes -= sum(len(data) for data, _ in messages)
        for _, taken in messages:
            if taken is not None:
                taken()
        if self.on_room is not None:
            self.on_room()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
