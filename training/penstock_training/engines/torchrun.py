"""torchrun's elastic launcher: it starts the processes of this machine, lets them find those of others, and starts all
of them anew when one dies."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from penstock.cores import available_cores
from penstock.errors import ConfigError
from penstock_training.config import RunSettings
from penstock_training.errors import ProcessesLost
from penstock_training.run_folder import RunFolder

_LOGGER: Final = "torch.distributed.elastic"
_SAYS_WHO_FAILED: Final = "torch.distributed.elastic.multiprocessing.api"


def run(settings: RunSettings, folder: RunFolder) -> None:
    """Until all processes have ended. Raises ProcessesLost when they die too often."""
    here = _processes_here(settings)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-train-") as scratch,
        _environment(settings, here),
    ):
        config = LaunchConfig(
            min_nodes=settings.nodes,
            max_nodes=settings.nodes,
            nproc_per_node=here,
            run_id=folder.path.name if settings.nodes > 1 else uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=settings.rendezvous or "localhost:0",
            local_addr=None if settings.nodes > 1 else "127.0.0.1",
            max_restarts=settings.max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
            # those that end a run are the launcher's: torch's own handlers would not wait for a checkpoint
            signals_to_handle="SIGQUIT",
            shutdown_timeout=10,
        )
        try:
            elastic_launch(config, sys.executable)(
                "-m", "penstock_training.process", str(folder.path)
            )
        except ChildFailedError as error:
            raise ProcessesLost(_told(error, settings.max_restarts)) from None


def _processes_here(settings: RunSettings) -> int:
    """Of this machine."""
    if settings.processes == 0:
        gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
        return max(1, gpus)
    if settings.processes % settings.nodes:
        raise ConfigError(
            f"run.processes ({settings.processes}) has to be a multiple of run.nodes ({settings.nodes})"
        )
    return settings.processes // settings.nodes


@contextmanager
def _environment(settings: RunSettings, processes: int) -> Iterator[None]:
    """What the processes find in theirs, which is this one's; and torch's launcher says only what is serious."""
    before = dict(os.environ)
    threads = settings.threads or max(1, available_cores() // processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # cuBLAS computes the same bits each time only with a workspace of its own
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if settings.nodes == 1 and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if settings.nodes > 1:
        # each round has a store of its own: machines that come and go don't count as restarts
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        with _in_our_words():
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """torch's launcher logs at length, with tracebacks; what matters is who died, and how."""
    logger, who_failed = logging.getLogger(_LOGGER), logging.getLogger(_SAYS_WHO_FAILED)
    level = logger.level
    logger.setLevel(logging.ERROR)
    who_failed.addFilter(_say_who_failed)
    try:
        yield
    finally:
        logger.setLevel(level)
        who_failed.removeFilter(_say_who_failed)


def _say_who_failed(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith("failed (exitcode") and isinstance(record.args, tuple):
        code, rank = record.args[:2]
        if isinstance(code, int) and code < 0:
            sys.stderr.write(f"process {rank} {_how(code)}\n")
    return False


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _told(error: ChildFailedError, restarts: int) -> str:
    rank, failure = error.get_first_failure()
    return f"process {rank} {_how(failure.exitcode)}, after {restarts} restarts"
