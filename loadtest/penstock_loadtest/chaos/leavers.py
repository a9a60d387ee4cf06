"""Clients that don't wait for their answers: short deadlines, calls cancelled, connections dropped; and poison."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import grpc
import numpy as np
import tritonclient.grpc
from grpc import aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from penstock_loadtest.chaos.asking import Asking, Role, Scene
from penstock_loadtest.chaos.clients import CHANNEL, PATIENCE_S, Question
from penstock_loadtest.chaos.models import POISON
from penstock_loadtest.chaos.questions import Reply, make_question
from penstock_loadtest.chaos.raw_http import http_message

LONGEST_WAIT_S: Final = 0.08
"""Of deadlines and of the time to a cancellation: some come before the request has left, some after its answer."""
POISON_EVERY_S: Final = 12.5
"""Less than ten seconds between two crashes of a worker are a crash loop, whose back-off is the server's policy."""


async def hurry(scene: Scene, role: Role, address: str) -> None:
    """Plain grpc.aio with short deadlines."""
    await _call_again_and_again(scene, role, address, _with_deadline)


async def cancel(scene: Scene, role: Role, address: str) -> None:
    """Plain grpc.aio; many calls are cancelled while they are under way."""
    await _call_again_and_again(scene, role, address, _cancelled)


async def _call_again_and_again(scene: Scene, role: Role, address: str, one: Any) -> None:
    rng = scene.rng(role.name)
    async with aio.insecure_channel(address, CHANNEL) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not scene.stop.is_set():
            asking = Asking.by_chance(scene, role, rng)
            try:
                response = await one(stub, infer_request(asking), rng)
            except asyncio.CancelledError:
                asking.left()
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
            except grpc.RpcError as error:
                asking.failed(error)
            else:
                asking.answered(reply_of_proto(response))
            await asyncio.sleep(rng.expovariate(1 / role.pause_s))


async def _with_deadline(stub: Any, request: Any, rng: random.Random) -> Any:
    return await stub.ModelInfer(request, timeout=rng.uniform(0.002, LONGEST_WAIT_S))


async def _cancelled(stub: Any, request: Any, rng: random.Random) -> Any:
    call = stub.ModelInfer(request, timeout=PATIENCE_S)
    asyncio.get_running_loop().call_later(rng.uniform(0, LONGEST_WAIT_S), call.cancel)
    return await call


async def hang_up(scene: Scene, role: Role, address: str) -> None:
    """HTTP requests whose connection is closed in their middle, or right after them, or in the middle of the answer."""
    rng = scene.rng(role.name)
    host, _, port = address.partition(":")
    while not scene.stop.is_set():
        asking = Asking.by_chance(scene, role, rng)
        binary = rng.random() < 0.5
        data = http_message(asking.model, asking.id, asking.x, binary=binary)
        cut_at = rng.randint(1, len(data)) if rng.random() < 0.5 else len(data)
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(data[:cut_at])
                await writer.drain()
                if cut_at == len(data) and rng.random() < 0.5:
                    await asyncio.wait_for(reader.read(1), PATIENCE_S)
                else:
                    await asyncio.sleep(rng.uniform(0, LONGEST_WAIT_S))
            finally:
                if rng.random() < 0.5:
                    writer.transport.abort()
                writer.close()
        except (OSError, TimeoutError) as error:
            asking.failed(error)
        else:
            asking.left()
        await asyncio.sleep(rng.expovariate(1 / role.pause_s))


async def poison(scene: Scene, role: Role, address: str) -> None:
    """Now and then a request that kills its worker: it must get an error, and its mates their answers."""
    rng = scene.rng(role.name)
    async with aio.insecure_channel(address, CHANNEL) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not scene.stop.is_set():
            asking = Asking(scene, role, _poisoned(rng, role))
            try:
                response = await stub.ModelInfer(infer_request(asking), timeout=PATIENCE_S)
            except grpc.RpcError as error:
                asking.failed(error)
            else:
                asking.answered(reply_of_proto(response))
            await sleep_until_stop(scene, POISON_EVERY_S)


async def sleep_until_stop(scene: Scene, seconds: float) -> None:
    """Sleep, but no longer than the scene lasts."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    # the event is one of threads, which no event loop can await
    while not scene.stop.is_set() and loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def infer_request(asking: Asking) -> Any:
    """The protobuf message of a question."""
    # protobuf makes its classes when it is imported
    messages: Any = service_pb2
    request = messages.ModelInferRequest(model_name=asking.model, id=asking.id)
    tensor = request.inputs.add(name="X", datatype="FP32")
    tensor.shape.extend(asking.x.shape)
    request.raw_input_contents.append(asking.x.tobytes())
    return request


def reply_of_proto(response: Any) -> Reply:
    """A protobuf answer, decoded."""
    result = tritonclient.grpc.InferResult(response)
    return Reply(response.id, result.as_numpy("Y"), result.as_numpy("GENERATION"))


def _poisoned(rng: random.Random, role: Role) -> Question:
    x = make_question(rng, role.target, role.columns)
    x.flat[0] = np.float32(POISON)
    return x
