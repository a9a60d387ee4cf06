"""What the well-behaved clients do: ask, wait, judge, ask again."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any, Final

import tritonclient.grpc

from penstock_loadtest.chaos.asking import Asking, Role, Scene
from penstock_loadtest.chaos.clients import (
    CHANNEL,
    PATIENCE_S,
    Client,
    TritonAio,
    reply_of,
    tensor_of,
)

CALLBACK_WINDOW: Final = 8
"""Requests that a client with callbacks has under way."""

MakeClient = Callable[[], Client]


def ask_in_turn(scene: Scene, role: Role, make_client: MakeClient) -> None:
    """One question after the other, in this thread."""
    rng = scene.rng(role.name)
    client = make_client()
    try:
        while not scene.stop.is_set():
            asking = Asking.by_chance(scene, role, rng)
            try:
                reply = client.ask(asking.model, asking.id, asking.x)
            except Exception as error:  # noqa: BLE001 - the books say which ones may be
                asking.failed(error)
            else:
                asking.answered(reply)
            scene.stop.wait(_pause(role, rng))
    finally:
        client.close()


async def ask_in_turn_aio(scene: Scene, role: Role, address: str) -> None:
    """One question after the other with tritonclient.grpc.aio."""
    rng = scene.rng(role.name)
    client = TritonAio(address)
    try:
        while not scene.stop.is_set():
            asking = Asking.by_chance(scene, role, rng)
            try:
                reply = await client.ask(asking.model, asking.id, asking.x)
            except Exception as error:  # noqa: BLE001 - the books say which ones may be
                asking.failed(error)
            else:
                asking.answered(reply)
            await asyncio.sleep(_pause(role, rng))
    finally:
        await client.close()


def ask_with_callbacks(scene: Scene, role: Role, address: str) -> None:
    """Several questions at once on one connection; answers come in callbacks on another thread."""
    rng = scene.rng(role.name)
    sender = CallbackSender(scene, role, address, CALLBACK_WINDOW)
    try:
        while not scene.stop.is_set():
            sender.send(rng)
            scene.stop.wait(_pause(role, rng) / CALLBACK_WINDOW)
        sender.wait()
    finally:
        sender.close()


def flood(scene: Scene, role: Role, address: str, burst: int) -> None:
    """Bursts that are more than the model's queue holds, and a rest after each."""
    rng = scene.rng(role.name)
    sender = CallbackSender(scene, role, address, burst)
    try:
        while not scene.stop.is_set():
            for _ in range(burst):
                sender.send(rng)
            sender.wait()
            scene.stop.wait(_pause(role, rng))
    finally:
        sender.close()


class CallbackSender:
    """tritonclient.grpc's `async_infer`, with at most `window` requests under way."""

    def __init__(self, scene: Scene, role: Role, address: str, window: int) -> None:
        self._scene = scene
        self._role = role
        self._window = window
        self._free = threading.Semaphore(window)
        self._client = tritonclient.grpc.InferenceServerClient(address, channel_args=CHANNEL)

    def send(self, rng: random.Random) -> None:
        """Ask a question, as soon as there is room in the window."""
        if not self._free.acquire(timeout=PATIENCE_S):
            # the callbacks are lost; their tickets stay open, which the books show
            self._scene.stop.wait()
            return
        asking = Asking.by_chance(self._scene, self._role, rng)

        def on_answer(result: Any, error: Any) -> None:
            # a second callback must reach the books, and not free the window again
            first = asking.ticket.outcome is None
            if error is None:
                asking.answered(reply_of(result))
            else:
                asking.failed(error)
            if first:
                self._free.release()

        inputs = [tensor_of(tritonclient.grpc, asking.x)]
        options = {"request_id": asking.id, "client_timeout": PATIENCE_S}
        self._client.async_infer(asking.model, inputs, on_answer, **options)

    def wait(self) -> None:
        """Until all that was sent is answered, or patience ends."""
        taken = [self._free.acquire(timeout=PATIENCE_S) for _ in range(self._window)]
        for got in taken:
            if got:
                self._free.release()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _pause(role: Role, rng: random.Random) -> float:
    return rng.expovariate(1 / role.pause_s) if role.pause_s else 0.0
