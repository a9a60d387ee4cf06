"""The gateway's end of the line to the writer of records: bounded, and never waited for."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, cast

from penstock.capture.columns import Table
from penstock.capture.counts import CaptureCounts, Lost
from penstock.capture.messages import Frames, Record, Written, frame, written_of

log = logging.getLogger(__name__)

GATHER_S: Final = 0.02
"""Records go together that come within this time."""
SEND_FROM_BYTES: Final = 256 << 10
"""So many go at once."""
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 1.0
PATIENCE_S: Final = 5.0
"""A writer needs some time to start; after that something is wrong."""
CLOSE_S: Final = 5.0
_NOTHING: Final = Written(0, 0, 0, 0, False)


class CaptureLink(asyncio.Protocol):
    """One a gateway, on its event loop."""

    def __init__(self, socket_path: Path, queue_bytes: int, counts: CaptureCounts) -> None:
        """Nothing is connected yet."""
        self._path = socket_path
        self._queue_bytes = queue_bytes
        self._counts = counts
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._records_waiting = 0
        self._sent = 0
        """Records that went to this writer."""
        self._told = _NOTHING
        """What this writer said last."""
        self._tables: dict[int, bytes] = {}
        self._known: set[int] = set()
        """Tables that this writer was told of."""
        self._timer: asyncio.TimerHandle | None = None
        self._frames = Frames()
        self._closed: asyncio.Future[None] | None = None

    @property
    def queued_bytes(self) -> int:
        """Of records that the writer has not taken yet."""
        sending = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._waiting_bytes + sending

    def start(self) -> None:
        """Connect, and again whenever the writer was started anew."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def add(self, table: Table) -> None:
        """Records of this table may come, as long as this gateway runs."""
        self._tables[table.number] = frame(table)

    def put(self, record: Record) -> None:
        """Have it written, if there is room."""
        data = frame(record)
        if self.queued_bytes + len(data) > self._queue_bytes or self._closed is not None:
            self._counts.lost[Lost.QUEUE_FULL] += 1
            return
        if record.table not in self._known:
            self._known.add(record.table)
            self._wait(self._tables[record.table])
        self._wait(data)
        self._records_waiting += 1
        if self._waiting_bytes >= SEND_FROM_BYTES:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._on_time)

    async def close(self) -> None:
        """Give the writer what is left, for a few seconds at most. What comes now is not taken any more."""
        self._closed = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            self._send()
            # sends what is left, and then connection_lost
            self._transport.close()
            await asyncio.wait([self._closed], timeout=CLOSE_S)
            if self._transport is not None:
                self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()

    # ── as asyncio says ─────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a writer."""
        # uvloop's is not of asyncio's class
        self._transport = cast("asyncio.Transport", transport)
        self._frames = Frames()
        self._counts.failing = False
        self._send()

    def data_received(self, data: bytes) -> None:
        """The writer says what it did."""
        for each in self._frames.feed(data):
            now, before = written_of(each), self._told
            self._told = now
            counts = self._counts
            counts.records += now.records - before.records
            counts.files += now.files - before.files
            counts.nbytes += now.nbytes - before.nbytes
            counts.lost[Lost.NOT_WRITTEN] += now.lost - before.lost
            counts.failing = now.failing

    def connection_lost(self, exc: Exception | None) -> None:
        """The writer has ended, or this gateway is about to."""
        self._transport = None
        if self._closed is not None:
            if not self._closed.done():
                self._closed.set_result(None)
            return
        lost = self._sent - self._told.records - self._told.lost
        log.error("the writer of captured requests has ended: %d records of it are lost", lost)
        self._counts.lost[Lost.WRITER_ENDED] += lost
        self._counts.failing = True
        self._told, self._sent = _NOTHING, 0
        self._tell_tables_again()
        self.start()

    # ── the way of records ──────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    def _on_time(self) -> None:
        self._timer = None
        self._send()

    def _send(self) -> None:
        if self._transport is None or not self._waiting:
            return
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._sent += self._records_waiting
        self._waiting.clear()
        self._waiting_bytes = self._records_waiting = 0
        self._transport.write(data)

    def _tell_tables_again(self) -> None:
        """The next writer knows none of those that the one before was told of."""
        tables = self._known & self._tables.keys()
        self._waiting[:0] = [self._tables[number] for number in sorted(tables)]
        self._waiting_bytes = sum(map(len, self._waiting))
        self._known = set(tables)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s, began_s = FIRST_RETRY_S, loop.time()
        while True:
            try:
                await loop.create_unix_connection(lambda: self, str(self._path))
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                if loop.time() - began_s > PATIENCE_S:
                    self._counts.failing = True
            else:
                return
