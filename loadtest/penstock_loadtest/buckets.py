"""Requests of mixed lengths with padding to buckets against without: how many texts a second one server embeds.

The model is a network alone, a small recurrent one or what is given, on ONNX Runtime with dynamic batching. A request
is the tokens of one text. Without buckets only requests of exactly one length are joined, and clients send the mask;
with them the server pads and makes the mask.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tritonclient.grpc.aio as grpcclient

from penstock_loadtest.compare import Spread
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.recurrent import write_recurrent
from penstock_loadtest.servers import RunningServer, Server, running

WITHOUT: Final = "exact"
WITH: Final = "buckets"
TOKENS: Final = (4, 64)
"""Shortest and longest text; all lengths between are equally frequent."""
REQUESTS: Final = 512
CONCURRENCY: Final = 64
WARM_UP_S: Final = 2.0

CONFIG: Final = """
backend: "onnxruntime"
max_batch_size: 32
dynamic_batching { }
"""
PADDING: Final = """
parameters { key: "padding.input_ids.buckets" value { string_value: "16, 32, 48, 64" } }
parameters { key: "padding.input_ids.mask" value { string_value: "attention_mask" } }
"""


@dataclass(frozen=True, slots=True)
class BucketsOutcome:
    """Texts a second, a turn each, and the ratio of turns that followed each other."""

    without: tuple[float, ...]
    with_buckets: tuple[float, ...]

    @property
    def ratio(self) -> Spread:
        """With over without."""
        pairs = zip(self.with_buckets, self.without, strict=True)
        return Spread(tuple(one / other for one, other in pairs))

    def line(self) -> str:
        """For a person."""
        ratio = self.ratio
        return (
            f"without buckets {statistics.median(self.without):.0f} texts/s, with them"
            f" {statistics.median(self.with_buckets):.0f}: {ratio.median:.2f} times as many"
            f" ({ratio.low:.2f} - {ratio.high:.2f})"
        )


def compare_buckets(
    server: Server,
    network: Path | None,
    folder: Path,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> BucketsOutcome:
    """Serve `network` with and without buckets from one server, and load both in turns; None: the recurrent one.

    Raises BenchmarkError where its file is not there.
    """
    if network is not None and not network.is_file():
        raise BenchmarkError(f"{network} is not there: model_repo/README.md says how to make it")
    for name, config in ((WITHOUT, CONFIG), (WITH, CONFIG + PADDING)):
        (folder / "repository" / name / "1").mkdir(parents=True)
        file = folder / "repository" / name / "1" / "model.onnx"
        if network is None:
            write_recurrent(file)
        else:
            shutil.copy(network, file)
        (folder / "repository" / name / "config.pbtxt").write_text(config)
    found: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    with running(server, folder / "repository", folder / "server.log") as started:
        for name in found:
            asyncio.run(_turn(started, name, WARM_UP_S))
        for number, name in itertools.product(range(rounds), found):
            found[name].append(asyncio.run(_turn(started, name, seconds)))
            tell(f"round {number + 1}, {name}: {found[name][-1]:.0f} texts/s")
    return BucketsOutcome(tuple(found[WITHOUT]), tuple(found[WITH]))


async def _turn(server: RunningServer, model: str, seconds: float) -> float:
    """Texts a second over a turn in which CONCURRENCY requests are always under way."""
    requests = itertools.cycle(_requests(masked=model == WITHOUT))
    async with grpcclient.InferenceServerClient(f"127.0.0.1:{server.ports.grpc}") as client:
        started = time.perf_counter()
        counts = await asyncio.gather(
            *(_loop(client, model, requests, started + seconds) for _ in range(CONCURRENCY))
        )
        return sum(counts) / (time.perf_counter() - started)


async def _loop(client: Any, model: str, requests: Any, until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        await client.infer(model, next(requests))
        count += 1
    return count


def _requests(*, masked: bool) -> list[list[Any]]:
    """Always the same ones."""
    generator = random.Random(1)
    made = []
    for _ in range(REQUESTS):
        length = generator.randint(*TOKENS)
        arrays = {"input_ids": np.array([generator.choices(range(1000, 20000), k=length)])}
        if masked:
            arrays["attention_mask"] = np.ones((1, length), np.int64)
        made.append([_tensor(name, array) for name, array in arrays.items()])
    return made


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Any:
    tensor = grpcclient.InferInput(name, list(array.shape), "INT64")
    tensor.set_data_from_numpy(array)
    return tensor
