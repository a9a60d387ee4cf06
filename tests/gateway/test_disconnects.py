"""Clients that leave while their requests wait."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from fake_workers import settle
from pending import pending
from penstock.gateway import disconnects as disconnects_module
from penstock.gateway.asgi import Message
from penstock.gateway.disconnects import Disconnects
from penstock.workers.request import PendingRequest


@pytest.fixture(autouse=True)
def short_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnects_module, "PERIOD_S", 0.002)


class Client:
    """A connection: `receive` answers at once after the body's end, as the bridge's does, or waits, as uvicorn's."""

    def __init__(self, watcher: Disconnects, *, waits: bool) -> None:
        self.asked = 0
        self.cancels = 0
        self.answered = asyncio.Event()
        self._gone = asyncio.Event()
        self._waits = waits
        self.request = pending(
            {"X": np.zeros((1, 1), np.float32)}, arrived_ns=time.monotonic_ns(), queue=self
        )
        self._watcher = watcher
        watcher.watch(self.request, self.receive)

    def cancel(self, request: PendingRequest) -> None:
        assert request is self.request
        self.cancels += 1
        self._watcher.forget(request)
        self.answered.set()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        self.asked += 1
        if self._waits:
            await self._gone.wait()
        if self._gone.is_set():
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}


async def ticks(number: int) -> None:
    """Let some periods pass."""
    await asyncio.sleep(0.003 * number)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_request_is_cancelled_when_its_client_leaves(waits: bool) -> None:
    watcher = Disconnects()
    client, stays = Client(watcher, waits=waits), Client(watcher, waits=waits)
    client.leave()
    await asyncio.wait_for(client.answered.wait(), 60)
    assert (client.cancels, stays.cancels) == (1, 0)
    watcher.forget(stays.request)


async def test_a_young_request_is_not_asked_about() -> None:
    watcher = Disconnects()
    client = Client(watcher, waits=False)
    watcher.forget(client.request)
    await ticks(4)
    assert client.asked == 0


async def test_one_receive_at_a_time_and_none_spins() -> None:
    watcher = Disconnects()
    waiting, eager = Client(watcher, waits=True), Client(watcher, waits=False)
    await ticks(10)
    assert waiting.asked == 1
    assert 1 <= eager.asked <= 20
    for client in (waiting, eager):
        watcher.forget(client.request)
    await settle()
    assert waiting.cancels == eager.cancels == 0


async def test_a_receive_under_way_is_left_to_end() -> None:
    """The bridge fails, and logs it, when it is to wake somebody who was cancelled."""
    watcher = Disconnects()
    client = Client(watcher, waits=True)
    await ticks(4)
    (task,) = watcher._asking.values()
    client.request.finish(b"answer")
    watcher.forget(client.request)
    client.leave()
    await asyncio.wait_for(task, 60)
    assert client.cancels == 0
    assert not watcher._asking


async def test_nothing_ticks_when_nothing_waits() -> None:
    watcher = Disconnects()
    client = Client(watcher, waits=False)
    watcher.forget(client.request)
    await ticks(4)
    assert not watcher._ticking
    again = Client(watcher, waits=False)
    again.leave()
    await asyncio.wait_for(again.answered.wait(), 60)


async def test_forgetting_what_is_not_watched() -> None:
    watcher = Disconnects()
    request = pending({"X": np.zeros((1, 1), np.float32)})
    watcher.forget(request)


async def test_a_long_queue_is_asked_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnects_module, "CHECKS_A_TICK", 2)
    watcher = Disconnects()
    clients = [Client(watcher, waits=False) for _ in range(7)]
    for client in clients:
        client.leave()
    await asyncio.wait_for(asyncio.gather(*(c.answered.wait() for c in clients)), 60)
    assert [client.cancels for client in clients] == [1] * 7
