"""Calls of the server that candidates run on: its gRPC, with messages that are made once and sent again and again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc
import numpy as np

from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict, ModelConfig, Tensor
from penstock.protobuf import message_class
from penstock.repository.config_json import proto_to_config
from penstock.tensors import as_array, serialize_bytes
from penstock.tuning.search import Slice
from penstock.types import Array

SERVICE: Final = "inference.GRPCInferenceService"
TIMEOUT_S: Final = 60.0
LOAD_TIMEOUT_S: Final = 330.0
"""The server gives up before, and says why."""
MAX_BYTES: Final = 2**31 - 1


class Calls:
    """One channel. To be made and closed in one event loop."""

    def __init__(self, port: int) -> None:
        # a subchannel pool of its own: nothing is shared with other channels of this process
        options = [
            ("grpc.max_receive_message_length", MAX_BYTES),
            ("grpc.max_send_message_length", MAX_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")

    async def close(self) -> None:
        """Of the channel."""
        await self._channel.close()

    async def load(self, model: str) -> None:
        """Raises LoadFailed with the server's reason."""
        try:
            await self._call("RepositoryModelLoad", LOAD_TIMEOUT_S, model_name=model)
        except grpc.aio.AioRpcError as error:
            raise LoadFailed(_reason(error)) from None

    async def config(self, model: str) -> ConfigDict:
        """The complete configuration of a model that is loaded."""
        data = await self._call("ModelConfig", name=model)
        answer: Any = message_class("inference.ModelConfigResponse").FromString(data)
        return proto_to_config(answer.config)

    async def unload(self, model: str) -> None:
        """Returns at once; the server ends it meanwhile."""
        await self._call("RepositoryModelUnload", model_name=model)

    async def infer(self, message: bytes) -> dict[str, Array]:
        """The outputs. Raises ModelFailed with the server's reason."""
        try:
            data = await self._infer(message, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise ModelFailed(_reason(error)) from None
        answer: Any = message_class("inference.ModelInferResponse").FromString(data)
        raw = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {t.name: as_array(t.datatype, tuple(t.shape), content) for t, content in raw}

    async def load_test(self, message: bytes, concurrency: int, seconds: float) -> Slice:
        """Ask again and again, so many requests at a time, of one row each. Raises ModelFailed where one fails."""
        latencies: list[float] = []
        started = time.perf_counter()
        end = started + seconds

        async def client() -> None:
            while (sent := time.perf_counter()) < end:
                await self._infer(message, timeout=TIMEOUT_S)
                latencies.append(time.perf_counter() - sent)

        clients = [asyncio.ensure_future(client()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*clients)
        except grpc.aio.AioRpcError as error:
            raise ModelFailed(f"a request failed: {_reason(error)}") from None
        finally:
            for each in clients:
                each.cancel()
        elapsed = time.perf_counter() - started
        p50, p99 = np.percentile(latencies, [50, 99]) * 1000
        return Slice(len(latencies) / elapsed, float(p50), float(p99))

    async def _call(self, method: str, timeout_s: float = TIMEOUT_S, **fields: Any) -> bytes:
        request = message_class(f"inference.{method}Request")(**fields)
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        data: bytes = await call(request.SerializeToString(), timeout=timeout_s)
        return data


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Without where it stands in the log, which goes with the server."""
    details = str(error.details())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":
        # gRPC's own text: the call's time was over
        return "there was no answer in time"
    return re.sub(r" \[\w+ in the server's log\]$", "", details)


def request_message(model: str, config: ModelConfig, row: Mapping[str, Array]) -> bytes:
    """A ModelInferRequest of one row."""
    request: Any = message_class("inference.ModelInferRequest")(model_name=model)
    by_name = {tensor.name: tensor for tensor in config.input}
    for name, array in row.items():
        batched = array[np.newaxis] if config.max_batch_size else array
        request.inputs.add(name=name, datatype=by_name[name].datatype, shape=batched.shape)
        request.raw_input_contents.append(_content(by_name[name], batched))
    data: bytes = request.SerializeToString()
    return data


def _content(tensor: Tensor, array: Array) -> bytes:
    if tensor.datatype == "BYTES":
        return bytes(serialize_bytes(array))
    return np.ascontiguousarray(array).tobytes()
