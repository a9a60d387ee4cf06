"""Clients of ModelStreamInfer: NVIDIA's, and a bare call."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from grpc_calls import INFERENCE, infer_request, pb
from penstock.types import Array

MODEL_STREAM_INFER = f"{INFERENCE}ModelStreamInfer"


class Streamer:
    """NVIDIA's client with a stream, whose responses wait here."""

    def __init__(self, address: str, **options: Any) -> None:
        self.client: Any = tritonclient.grpc.InferenceServerClient(address)
        self._heard: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
        self.client.start_stream(lambda result, error: self._heard.put((result, error)), **options)

    def send(
        self, request_id: str, model: str = "puppet", array: Array | None = None, **options: Any
    ) -> None:
        """A request with X."""
        array = np.array([[1.0, 2.0]], np.float32) if array is None else array
        tensor = tritonclient.grpc.InferInput("X", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        self.client.async_stream_infer(model, [tensor], request_id=request_id, **options)

    def next(self) -> Any:
        """The next ModelInferResponse. Raises what the client was told."""
        result, error = self._heard.get(timeout=60)
        if error is not None:
            raise error
        return result.get_response()

    def next_error(self) -> InferenceServerException:
        """The next one, which must be an error."""
        result, error = self._heard.get(timeout=60)
        assert error is not None, result.get_response()
        return error


@contextmanager
def streamer(address: str, **options: Any) -> Iterator[Streamer]:
    """One stream; its requests are cancelled at the end if they are still under way."""
    one = Streamer(address, **options)
    try:
        yield one
    finally:
        one.client.stop_stream(cancel_requests=True)
        one.client.close()


class BareStream:
    """A bare call, which sends what a test gives it, and reads when it is asked to."""

    def __init__(self, channel: grpc.Channel, **options: Any) -> None:
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        open_call = channel.stream_stream(
            MODEL_STREAM_INFER, None, pb.ModelStreamInferResponse.FromString
        )
        self.call: Any = open_call(iter(self._messages.get, None), timeout=60, **options)

    def send(self, request_id: str, model: str = "puppet", **changes: Any) -> None:
        """A request."""
        self.send_bytes(infer_request(model, id=request_id, **changes).SerializeToString())

    def send_bytes(self, message: bytes) -> None:
        """Any message."""
        self._messages.put(message)

    def end(self) -> None:
        """There are no more requests."""
        self._messages.put(None)

    def next(self) -> Any:
        """The next ModelStreamInferResponse."""
        return next(self.call)

    def rest(self) -> list[Any]:
        """All until the end."""
        return list(self.call)

    def failure(self) -> tuple[str, str]:
        """Status and text of a call that fails before it has another response."""
        try:
            found = next(self.call, None)
        except grpc.RpcError as error:
            status: Any = error
            return status.code().name, status.details()
        raise AssertionError(f"no error but {found!r}")


@contextmanager
def bare_stream(channel: grpc.Channel, **options: Any) -> Iterator[BareStream]:
    """One call, which is over at the end."""
    stream = BareStream(channel, **options)
    try:
        yield stream
    finally:
        stream.end()
        stream.call.cancel()


def is_final(response: Any) -> bool:
    """What a ModelInferResponse says of whether it is the last one of its request."""
    parameters: Mapping[str, Any] = response.parameters
    return bool(parameters["triton_final_response"].bool_param)
