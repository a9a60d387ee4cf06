"""A TCP relay between one client and the server, which cuts connections half-way or stops to read for a while."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

CHUNK_BYTES: Final = 16 * 1024
SMALL_BUFFER_BYTES: Final = 16 * 1024
"""So that a reader that stops is felt by the server and not kept from it by the kernel."""
RECONNECT_S: Final = 1.0
"""A gRPC channel goes on telling of a cut for as long as it has no new connection."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a relay does to its connections."""

    cut_after_bytes: int = 0
    """Mean of what crosses before a connection is cut, in either direction; 0: never cut."""
    stall_s: float = 0.0
    """Longest time that answers are not read; 0: always read."""
    stall_share: float = 0.0
    """Of the chunks of answers, how many are kept waiting."""


class Relay:
    """Listens on a port of its own and passes bytes on to `port`, with its habits."""

    def __init__(self, port: int, habits: Habits, rng: random.Random) -> None:
        self._target = port
        self._habits = habits
        self._rng = rng
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._last_cut_s = float("-inf")
        self.cuts = 0
        self.stalls = 0
        self.tame = False
        """While set, it only passes bytes on."""

    async def start(self) -> str:
        """Begin to listen; the address."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=SMALL_BUFFER_BYTES
        )
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop to listen and end all connections."""
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    def cut_since(self, sent_s: float) -> bool:
        """Whether a connection was cut after that time, or so shortly before that clients may still feel it."""
        return self._last_cut_s >= sent_s - RECONNECT_S

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            # `close` cancels; asyncio's streams would log that as an error
            writer.transport.abort()
        finally:
            self._pairs.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _small_socket()
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._target))
        ours = await asyncio.open_connection(sock=connection, limit=SMALL_BUFFER_BYTES)
        up = self._pump(reader, ours[1], self._allowance(), lambda: 0.0)
        down = self._pump(ours[0], writer, self._allowance(), self._stall)
        pumps = [asyncio.ensure_future(pump) for pump in (up, down)]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if not any(pump.result() for pump in done):
                # an end that the server or the client chose: what is on its way still arrives
                writer.close()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            ours[1].transport.abort()
            if not writer.is_closing():
                writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        allowance: float,
        stall: Callable[[], float],
    ) -> bool:
        """Pass bytes on until the end, or until the allowance is used up: then in the middle of what there is.

        Returns whether it was used up.
        """
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if seconds := stall():
                    await asyncio.sleep(seconds)
                if not self.tame and allowance < len(data):
                    writer.write(data[: int(allowance)])
                    await writer.drain()
                    self.cuts += 1
                    self._last_cut_s = time.monotonic()
                    return True
                allowance -= len(data)
                writer.write(data)
                await writer.drain()
        return False

    def _allowance(self) -> float:
        mean = self._habits.cut_after_bytes
        return self._rng.expovariate(1 / mean) if mean else float("inf")

    def _stall(self) -> float:
        if self.tame or self._rng.random() >= self._habits.stall_share:
            return 0.0
        self.stalls += 1
        return self._rng.uniform(0.1, 1.0) * self._habits.stall_s


def _small_socket() -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    connection.setblocking(False)
    return connection
