"""Clients of stateful models: NVIDIA's, over either protocol, and a bare gRPC call that can wait and be cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from grpc_calls import MODEL_INFER, infer_request, pb
from penstock.types import SequenceId
from served import Served

PROTOCOLS = ("http", "grpc")


class Talker:
    """Sends one number after the other."""

    def __init__(self, server: Served, protocol: str, model: str) -> None:
        self._module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
        address = server.http if protocol == "http" else server.grpc
        self.client: Any = self._module.InferenceServerClient(address)
        self.protocol = protocol
        self.model = model

    def result(
        self,
        x: float,
        sequence_id: SequenceId,
        flags: str = "",
        *,
        shape: Sequence[int] = (1, 1),
        outputs: Sequence[str] = (),
        **parameters: Any,
    ) -> Any:
        """The client's answer. `<`: the sequence begins; `>`: it ends."""
        tensor = self._module.InferInput("X", list(shape), "FP32")
        tensor.set_data_from_numpy(np.full(shape, x, np.float32))
        return self.client.infer(
            self.model,
            [tensor],
            outputs=[self._module.InferRequestedOutput(name) for name in outputs] or None,
            sequence_id=sequence_id,
            sequence_start="<" in flags,
            sequence_end=">" in flags,
            parameters=parameters or None,
        )

    def send(self, x: float, sequence_id: SequenceId, flags: str = "", **more: Any) -> float:
        """The sum so far."""
        (total,) = self.result(x, sequence_id, flags, **more).as_numpy("SUM").ravel().tolist()
        return float(total)

    def told(self, x: float, sequence_id: SequenceId, flags: str = "", **more: Any) -> Any:
        """What the model `tally` was told."""
        (line,) = self.result(x, sequence_id, flags, **more).as_numpy("TOLD").ravel().tolist()
        return json.loads(line)

    def refusal(
        self, x: float, sequence_id: SequenceId, flags: str = "", **more: Any
    ) -> tuple[str, str]:
        """Status and text of a request that must fail."""
        try:
            self.result(x, sequence_id, flags, **more)
        except InferenceServerException as error:
            return str(error.status()), str(error.message())
        raise AssertionError("no error")


@contextmanager
def talker(server: Served, protocol: str, model: str) -> Iterator[Talker]:
    """One client."""
    one = Talker(server, protocol, model)
    try:
        yield one
    finally:
        one.client.close()


def bad_request(protocol: str) -> str:
    """How InvalidRequest looks."""
    return "400" if protocol == "http" else "StatusCode.INVALID_ARGUMENT"


def unavailable(protocol: str) -> str:
    """How Unavailable looks."""
    return "503" if protocol == "http" else "StatusCode.UNAVAILABLE"


def start_step(
    channel: grpc.Channel, model: str, sequence_id: int, flags: str = "", **parameters: Any
) -> Any:
    """Send one request; the call's future."""
    terms = {"sequence_start": "<" in flags, "sequence_end": ">" in flags}
    request = infer_request(
        model,
        np.array([[1.0]], np.float32),
        parameters={"sequence_id": sequence_id, **terms, **parameters},
    )
    call = channel.unary_unary(
        MODEL_INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    return call.future(request, timeout=60)
