"""A gateway without models: answers probes, speaks the control protocol, and misbehaves on request.

`/crash`, `/hang` and `/fail` do what they say, `/slow?SECONDS` answers late, `/worker/N` starts, `/loaded/N` says that
it has its model, and `/inherited` what an earlier gateway left.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.config import Settings
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.supervisor_messages import (
    Drain,
    GatewayFailed,
    Inheritance,
    ModelReport,
    Ping,
    Pong,
    Report,
    Shutdown,
    StartWorker,
    StopWorker,
    TlsState,
    WorkerExited,
    WorkerKept,
    WorkerLoaded,
    WorkerStarted,
    decode_supervisor_message,
)

Answer = tuple[int, dict[str, Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Gateway:
    """All state of the fake."""

    def __init__(self) -> None:
        self.settings = Settings.read(os.environ["PENSTOCK_SETTINGS_FILE"])
        self.channel = Channel.from_fd(int(os.environ["PENSTOCK_CONTROL_FD"]))
        self.channel.setblocking(False)
        self.workers: dict[int, Channel] = {}
        self.answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.exits: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.seen: list[str] = []
        self.kept: dict[int, WorkerKept] = {}
        self.inheritance: asyncio.Future[Inheritance] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self.channel.fileno(), self.read)

    def report(self, *states: str) -> None:
        """Report models m0, m1 … with these states."""
        models = tuple(
            ModelReport(f"m{i}", "1", state, "no such file" * (state != "READY"), "fake", 1)
            for i, state in enumerate(states)
        )
        self.channel.send(Report(models, (), {model.name: True for model in models}))

    def read(self) -> None:
        try:
            data, descriptors = self.channel.receive()
        except BlockingIOError:
            return
        except ChannelClosed:
            os._exit(7)
        message = decode_supervisor_message(data)
        self.seen.append(type(message).__name__)
        match message:
            case WorkerStarted(worker_id=number, pid=pid):
                self.workers[number] = Channel.from_fd(descriptors[0])
                self.answers[number].set_result({"pid": pid})
            case WorkerKept(worker_id=number) as kept:
                self.kept[number] = kept
                self.workers[number] = Channel.from_fd(descriptors[0])
                self.exits[number] = asyncio.get_running_loop().create_future()
            case Inheritance() as inheritance:
                self.inheritance.set_result(inheritance)
            case WorkerExited(worker_id=number, status=status, reason=reason):
                self.exits[number].set_result({"status": status, "reason": reason})
            case Ping(number=number):
                self.channel.send(Pong(number))
            case Drain() | TlsState():
                pass
            case Shutdown():
                if path := self.settings.load_model:
                    with open(path[0], "w", encoding="utf-8") as file:
                        json.dump(self.seen, file)

    async def answer(self, path: str, query: str) -> Answer:
        loop = asyncio.get_running_loop()
        match path.strip("/").split("/"):
            case ["v2", "health", "live"]:
                return 200, {}
            case ["crash"]:
                os._exit(3)
            case ["hang"]:
                threading.Event().wait()
            case ["fail"]:
                self.channel.send(GatewayFailed("the disk is full"))
            case ["slow"]:
                await asyncio.sleep(float(query))
            case ["report"]:
                self.report(*query.split(","))
            case ["worker", number]:
                self.answers[int(number)] = loop.create_future()
                self.exits[int(number)] = loop.create_future()
                command = StartWorker(int(number), f"m0/1 #{number}", {"FAKE": "yes"})
                self.channel.send(command)
                return 200, await self.answers[int(number)]
            case ["loaded", number]:
                self.channel.send(WorkerLoaded(int(number), b"key of " + number.encode()))
            case ["inherited"]:
                left = await self.inheritance
                kept = {n: [k.pid, k.name, k.key.decode()] for n, k in self.kept.items()}
                return 200, {"kept": kept, "next": left.next_worker_id, "wanted": left.wanted}
            case ["stop", number]:
                self.channel.send(StopWorker(int(number), 5.0))
                return 200, await self.exits[int(number)]
            case ["exit", number]:
                return 200, await self.exits[int(number)]
            case _:
                return 404, {}
        return 200, {"pid": os.getpid()}


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(scope, receive, send)
        return
    gateway, query = scope["state"]["gateway"], scope["query_string"].decode()
    if scope["path"] == "/scope":
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, body = 200, {"headers": headers, "client": scope["client"]}
    else:
        status, body = await gateway.answer(scope["path"], query)
    kind = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _live(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    if os.environ.get("FAKE_GATEWAY") == "broken":
        raise RuntimeError("broken at start")
    gateway = Gateway()
    scope["state"]["gateway"] = gateway
    await send({"type": "lifespan.startup.complete"})
    gateway.report(*os.environ.get("FAKE_MODELS", "READY").split(","))
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
