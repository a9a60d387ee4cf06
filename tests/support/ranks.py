"""The processes of a run without a launcher: forked from one that has torch already, so that a run takes a second."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import TCPStore

from penstock_training.config import TrainConfig
from penstock_training.rank import main
from penstock_training.stopping import StopSignal
from tiny_run import begin


def run_ranks(config: TrainConfig, size: int, *, resume: bool = False) -> list[int]:
    """Runs it to its end. The exit codes, by rank; negative: the signal's number."""
    folder = begin(config, resume=resume)
    with ranks(_train, size, folder.path) as processes:
        for process in processes:
            process.join()
        return [process.exitcode or 0 for process in processes]


@contextmanager
def ranks(
    target: Callable[..., None], size: int, *arguments: object
) -> Iterator[Sequence[ForkServerProcess]]:
    """`target(*arguments)` in `size` processes that find each other as torchrun's do."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    found_by = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    environments = [
        {**found_by, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)
    ]
    context = _context()
    processes = [
        context.Process(target=_run, args=(env, target, arguments)) for env in environments
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _context() -> ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["penstock_training.rank", "ranks"])
    return server


def _run(
    environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(environment)
    target(*arguments)


def _train(folder: Path) -> None:
    signals = StopSignal()
    signals.listen()
    sys.exit(main(folder, signals, sys.stderr, last_words_s=0))
