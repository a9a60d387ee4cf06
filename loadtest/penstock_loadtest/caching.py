"""What the response cache saves: the same requests to the same model, with and without it, turn by turn."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from penstock_loadtest import cpu
from penstock_loadtest.servers import Penstock, RunningServer, running

MODEL_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
SIZE: Final = "64MiB"
TOGETHER: Final = 16
"""Requests under way at once, while the server's CPU is measured."""
DIFFERENT: Final = 64
"""Requests that differ from each other: each is asked again and again."""

PLAIN: Final = "digits"
CACHED: Final = "digits_cached"


@dataclass(frozen=True, slots=True)
class Turn:
    """One model under load."""

    median_us: float
    """As a client sees it that asks one thing after the other."""
    server_cpu_us: float
    """Of a request, while several are under way."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One kind of turn over another: median, lowest and highest of the rounds."""

    median: float
    least: float
    most: float


def measure(
    command: Sequence[str],
    model_repo: Path,
    seconds: float,
    rounds: int,
    say: Callable[[str], None],
) -> tuple[Ratio, Ratio]:
    """The ratios of the latency, and of the server's CPU time for a request. Raises BenchmarkError."""
    server = Penstock(tuple(command), (f"--cache-config=local,size={SIZE}",))
    latencies, times = [], []
    with _repository(model_repo) as folder, running(server, folder, folder.parent / "log") as up:
        for number in range(rounds + 1):
            plain, cached = (_turn(up, model, seconds) for model in (PLAIN, CACHED))
            if not number:
                # the first round warms both up
                continue
            say(f"{PLAIN}: {_shown(plain)}; {CACHED}: {_shown(cached)}")
            latencies.append(cached.median_us / plain.median_us)
            times.append(cached.server_cpu_us / plain.server_cpu_us)
    return ratio_of(latencies), ratio_of(times)


@contextmanager
def _repository(model_repo: Path) -> Iterator[Path]:
    """A folder of the example `digits`, twice."""
    with tempfile.TemporaryDirectory(prefix="pl-") as parent:
        folder = Path(parent) / "models"
        for name in (PLAIN, CACHED):
            shutil.copytree(model_repo / PLAIN, folder / name)
        with (folder / CACHED / "config.yaml").open("a") as file:
            file.write("response_cache: {enable: true}\n")
        yield folder


def _turn(server: RunningServer, model: str, seconds: float) -> Turn:
    with grpc.insecure_channel(server.grpc_address) as channel:
        ask = channel.unary_unary(MODEL_INFER)
        requests = _requests(model)
        durations_us: list[float] = []
        end = time.monotonic() + seconds / 2
        while (began := time.monotonic()) < end:
            ask(requests[len(durations_us) % DIFFERENT], timeout=30)
            durations_us.append((time.monotonic() - began) * 1e6)
        before, count = cpu.read(server.pid), 0
        end = time.monotonic() + seconds / 2
        while time.monotonic() < end:
            batch = [requests[(count + n) % DIFFERENT] for n in range(TOGETHER)]
            for call in [ask.future(each, timeout=30) for each in batch]:
                call.result()
            count += TOGETHER
        used = cpu.between(before, cpu.read(server.pid))
        return Turn(median(durations_us), used.session_s / count * 1e6)


def _requests(model: str) -> list[bytes]:
    messages: Any = service_pb2
    images = np.random.default_rng(0).random((DIFFERENT, 1, 1, 8, 8), dtype=np.float32)
    encoded = []
    for image in images:
        message = messages.ModelInferRequest(model_name=model)
        message.inputs.add(name="IMAGE", datatype="FP32", shape=image.shape)
        message.raw_input_contents.append(image.tobytes())
        encoded.append(message.SerializeToString())
    return encoded


def ratio_of(values: Sequence[float]) -> Ratio:
    """Of all rounds."""
    return Ratio(median(values), min(values), max(values))


def _shown(turn: Turn) -> str:
    return f"{turn.median_us:.0f} µs, {turn.server_cpu_us:.0f} µs of CPU"
