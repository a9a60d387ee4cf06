"""Notices clients that left while their request waits, so that nothing is computed for nobody."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Final, Protocol

from penstock.gateway.asgi import Message, Receive

PERIOD_S: Final = 0.1
"""Requests younger than this are not worth asking about. The bridge answers `receive` at once after the end of the
body, again and again (D4): asking more often would only burn CPU."""

CHECKS_A_TICK: Final = 32
"""A question costs some 40 µs: more of them at a time would hold up everybody else for longer than a millisecond."""

CROWDED_PERIOD_S: Final = PERIOD_S / 8
"""Between ticks while more requests wait than one tick asks about."""


class Watched(Protocol):
    """A request, or a stream of them, whose client may leave."""

    @property
    def arrived_ns(self) -> int:
        """When it was here with its whole body."""
        ...

    @property
    def done(self) -> bool:
        """It is answered."""
        ...

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        ...


class Disconnects:
    """Watches the connections of requests in flight. Ticks only while there are some."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Watched, Receive] = {}
        self._asking: dict[Watched, asyncio.Task[None]] = {}
        self._ticking = False

    def watch(self, request: Watched, receive: Receive) -> None:
        """Cancel the request when its client goes away. The whole body has been received."""
        self._watched[request] = receive
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(PERIOD_S, self._tick)

    def forget(self, request: Watched) -> None:
        """The request is answered. A `receive` that is under way ends with its connection: the bridge can't stand that
        it is cancelled."""
        self._watched.pop(request, None)

    def _tick(self) -> None:
        if not self._watched:
            self._ticking = False
            return
        crowded = len(self._watched) > CHECKS_A_TICK
        self._loop.call_later(CROWDED_PERIOD_S if crowded else PERIOD_S, self._tick)
        since = self._loop.time() - PERIOD_S
        for request in list(islice(self._watched, CHECKS_A_TICK)):
            if request.arrived_ns / 1e9 > since:
                # the dictionary is in order of arrival: the rest is younger still
                break
            receive = self._watched.pop(request)
            self._watched[request] = receive
            if request not in self._asking:
                self._asking[request] = self._loop.create_task(self._ask(request, receive))

    async def _ask(self, request: Watched, receive: Receive) -> None:
        """One `receive`, which is never cancelled while the request is in flight: that could lose data (D5)."""
        message: Message = await receive()
        self._asking.pop(request, None)
        if message["type"] == "http.disconnect" and not request.done:
            request.cancel()
