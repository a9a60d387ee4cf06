"""Requests to the puppets of `tests/apps/puppet.py`, many at once and held up as a test likes."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from grpc_calls import MODEL_INFER, infer_request, pb
from penstock.types import Array
from served import Served
from supervised import eventually


class Gate:
    """Holds a model up from `enter` until `open`, or the end of the `with`."""

    def __init__(self, folder: Path, server: Served, channel: grpc.Channel, model: str) -> None:
        self._open, self._started = folder / "open", folder / "started"
        self.server, self.channel, self.model = server, channel, model
        self._sent: list[Any] = []

    def __enter__(self) -> Gate:
        parameters = {"wait_for": str(self._open), "started": str(self._started)}
        self.first = self.send(parameters=parameters)
        eventually(self._started.exists, "the model got no request")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open()
        for future in self._sent:
            if not future.cancelled():
                future.exception(timeout=60)

    def open(self) -> None:
        """Let all go on."""
        self._open.touch()

    def send(self, array: Array | None = None, timeout_s: float = 60, **changes: Any) -> Any:
        """Send one more request; the call's future."""
        call = self.channel.unary_unary(
            MODEL_INFER,
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        future: Any = call.future(infer_request(self.model, array, **changes), timeout=timeout_s)
        self._sent.append(future)
        return future

    def wait_arrived(self, count: int, rows: int = 1) -> None:
        """Until so many requests, the first one too, wait or are with the worker; of `rows` each but for that one."""

        def arrived() -> bool:
            told = self.server.get(f"/v2/models/{self.model}/explain").json
            given = sum(sum(each["running_rows"]) for each in told["instances"])
            return bool(given + rows * told["queue"]["requests"] == 1 + rows * (count - 1))

        eventually(arrived, f"{count} have not arrived")

    def wait_queued(self, count: int) -> None:
        """Until so many requests wait for their execution."""
        eventually(lambda: queued(self.server, self.model) == count, f"{count} are not queued")


def queued(server: Served, model: str) -> float:
    """How many requests of the model wait for their execution."""
    return server.metric("nv_inference_pending_request_count", model)


def failures(server: Served, model: str, reason: str) -> float:
    """How many of the model's requests failed for that reason."""
    return server.metric("nv_inference_request_failure", model, reason=reason)


def told(response: Any) -> dict[str, Any]:
    """What the puppet says of a request that was answered. Each row says it; the first is taken."""
    names = [output.name for output in response.outputs]
    data = response.raw_output_contents[names.index("TOLD")]
    line: dict[str, Any] = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    return line


def row(*values: float) -> Array:
    """One row."""
    return np.array([values], np.float32)
