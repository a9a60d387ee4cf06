"""Ends requests whose bodies hardly come: each would hold a stream, a task, and what has come of it, for ever.

Envoy bounds the time that headers take. For bodies it has one bound for all, which would end long streams too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.errors import BodyTooSlow
from penstock.gateway.asgi import Send

MIN_BYTES_PER_S: Final = 8 << 10
"""After the patience with its beginning, a body that comes more slowly is nobody's upload."""
LOOKS: Final = 4
"""Within the time of the patience."""

Refuse = Callable[[Send, BodyTooSlow], Awaitable[None]]
"""Answers a request with the error."""


class SlowBodies:
    """The requests whose bodies are being read, by their `send`. Ticks only while there are some.

    A reader is not cancelled: the bridge can't stand that its `receive` is. It goes on waiting until the connection
    ends, which the answer sees to, and learns then that there is nothing left to do.
    """

    def __init__(self, patience_s: float, refuse: Refuse) -> None:
        """`patience_s`: how long a body may take, beside the time for its length; 0: any time."""
        self._loop = asyncio.get_running_loop()
        self._patience_s = patience_s
        self._refuse = refuse
        self._since: dict[Send, float] = {}
        self._refusing: set[asyncio.Task[None]] = set()
        self.received: Final[dict[Send, int]] = {}
        """How many bytes there are. Readers count themselves: it is on the way of every request."""
        self._refused: Final[set[Send]] = set()
        """Those that are answered already, and still being read."""
        self._watching = not patience_s
        """Somebody looks after the readers."""

    def begin(self, send: Send) -> None:
        """Its body is being read from now on."""
        self.received[send] = 0
        if not self._watching:
            self._watch()

    def end(self, send: Send) -> None:
        """It isn't any more. Raises BodyTooSlow where the request is answered already."""
        del self.received[send]
        if send in self._refused:
            self._refused.discard(send)
            raise self._error()

    def _watch(self) -> None:
        """Look after the readers until there are none."""
        self._watching = True
        self._loop.call_later(self._patience_s / LOOKS, self._look)

    def _look(self) -> None:
        if not self.received:
            self._since.clear()
            self._watching = False
            return
        now = self._loop.time()
        since, self._since = self._since, {}
        for send, received in self.received.items():
            began = self._since[send] = since.get(send, now)
            late = now - began >= self._patience_s + received / MIN_BYTES_PER_S
            if late and send not in self._refused:
                self._refused.add(send)
                task = self._loop.create_task(self._answer(send))
                self._refusing.add(task)
                task.add_done_callback(self._refusing.discard)
        self._watch()

    async def _answer(self, send: Send) -> None:
        await self._refuse(send, self._error())

    def _error(self) -> BodyTooSlow:
        return BodyTooSlow(
            f"the body came too slowly: expected all of it within {self._patience_s:g} s, and a"
            f" second more for each {MIN_BYTES_PER_S} bytes"
        )
