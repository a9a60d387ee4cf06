"""NVIDIA's three clients, each of which asks one question at a time."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from numpy.typing import NDArray

from penstock_loadtest.chaos.questions import Reply

PATIENCE_S: Final = 60.0
"""No answer for this long is none at all: killed workers, loads and bursts are over long before."""

CHANNEL: Final = [
    # else all channels of this process that look alike would share one connection
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]

Question = NDArray[np.float32]


class Client(Protocol):
    """Asks and waits for the answer. Raises whatever its library raises."""

    def ask(self, model: str, request_id: str, x: Question) -> Reply:
        """The decoded response."""
        ...

    def close(self) -> None:
        """Close its connection."""
        ...


class TritonGrpc:
    """tritonclient.grpc, synchronous."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(address, channel_args=CHANNEL)

    def ask(self, model: str, request_id: str, x: Question) -> Reply:
        """See Client."""
        inputs = [tensor_of(tritonclient.grpc, x)]
        options = {"request_id": request_id, "client_timeout": PATIENCE_S}
        return reply_of(self._client.infer(model, inputs, **options))

    def close(self) -> None:
        """See Client."""
        self._client.close()


class TritonHttp:
    """tritonclient.http: binary tensors, a kept connection."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.http.InferenceServerClient(
            address, connection_timeout=PATIENCE_S, network_timeout=PATIENCE_S
        )

    def ask(self, model: str, request_id: str, x: Question) -> Reply:
        """See Client."""
        inputs = [tensor_of(tritonclient.http, x)]
        return reply_of(self._client.infer(model, inputs, request_id=request_id))

    def close(self) -> None:
        """See Client."""
        self._client.close()


class TritonAio:
    """tritonclient.grpc.aio."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.grpc.aio.InferenceServerClient(address, channel_args=CHANNEL)

    async def ask(self, model: str, request_id: str, x: Question) -> Reply:
        """See Client."""
        inputs = [tensor_of(tritonclient.grpc.aio, x)]
        options = {"request_id": request_id, "client_timeout": PATIENCE_S}
        return reply_of(await self._client.infer(model, inputs, **options))

    async def close(self) -> None:
        """See Client."""
        await self._client.close()


def tensor_of(module: Any, x: Question) -> Any:
    """X as one of tritonclient's modules wants it."""
    tensor = module.InferInput("X", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return tensor


def reply_of(result: Any) -> Reply:
    """tritonclient's result, of whichever of its modules."""
    response = result.get_response()
    request_id = response.get("id", "") if isinstance(response, dict) else response.id
    return Reply(request_id, result.as_numpy("Y"), result.as_numpy("GENERATION"))
