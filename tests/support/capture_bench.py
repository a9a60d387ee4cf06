"""What capture costs the event loop a request: `python tests/support/capture_bench.py [ELEMENTS]`.

Requests are bound already, and answered at once: what is left is what capture adds, up to the bytes given to the
kernel for the writer, which a process of its own reads here and drops.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from captured import config, rule, settings
from penstock.capture.capture import Capture
from penstock.capture.counts import CaptureCounts
from penstock.capture.link import CaptureLink
from penstock.gateway.captured_inference import CapturedInference
from penstock.gateway.inference import Bound, Inference
from penstock.repository.signature import Signature
from penstock.types import CallTerms, InferHeader, OutputTensor, TensorSpec
from penstock.workers.request import Answer, PendingRequest

COUNT = 20_000
TURN = 16
"""Requests a turn of the event loop."""
TERMS = CallTerms(tenant="team")


class Pool:
    """Answers at once."""

    def __init__(self, output: OutputTensor) -> None:
        self._outputs = [output]

    def submit(self, request: PendingRequest) -> None:
        request.finish(request.encode(request, self._outputs))

    submit_at_once = submit

    def cancel(self, request: PendingRequest) -> None:
        pass


def _encode(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
    return b""


def _respond(request: PendingRequest, answer: Answer) -> None:
    pass


def _bound(elements: int) -> tuple[Bound, bytes]:
    model: Any = config()
    data = np.zeros(elements, np.float32).tobytes()
    header = InferHeader("m", "", (TensorSpec("X", "FP32", (elements,)),))
    signature = Signature(model)
    served: Any = SimpleNamespace(
        name="m", version=1, config=model, timeout_us=None, digest_text="sha256:" + "0" * 64
    )
    pool: Any = Pool(OutputTensor("Y", "FP32", (elements,), memoryview(bytearray(data))))
    return Bound(header, served, signature.plan(header), 1, False, pool), data


async def _time(inference: Inference, bound: Bound, data: bytes) -> float:
    """Microseconds a request."""
    spent_s, wait_s = 0.0, 0.0
    for _ in range(COUNT // TURN):
        began = time.process_time()
        for _ in range(TURN):
            inference.submit(bound, "r-1", [data], _encode, _respond, 100, TERMS)
        await asyncio.sleep(wait_s)
        spent_s += time.process_time() - began
    return spent_s / COUNT * 1e6


def _inference(sample: float, line: Any) -> Inference:
    parts: Any = (SimpleNamespace(generation=1), None, None)
    if not sample:
        return Inference(*parts)
    made = CapturedInference(*parts)
    given = settings(Path("/lake"), rule(sample=sample))
    made.capture = Capture(given, line, CaptureCounts())
    return made


def _drain(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if os.fork():
        listener.close()
        return
    taken, _ = listener.accept()
    while taken.recv(1 << 20):
        pass
    os._exit(0)


async def _main(elements: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capture.sock"
        _drain(str(path))
        link = CaptureLink(path, 64 << 20, CaptureCounts())
        link.start()
        bound, data = _bound(elements)
        rows = {"no capture": 0.0, "none is sampled": 1e-12, "each is sampled": 1.0}
        for _ in range(2):
            for name, sample in rows.items():
                cost_us = await _time(_inference(sample, link), bound, data)
                print(f"{name:16} {cost_us:6.2f} us")  # noqa: T201
        await link.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 16))
