"""Ray Train: its workers are the processes of the run. What they do, and what they leave in the run's folder, is the
same as with torchrun: only who starts them differs."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from penstock.errors import ConfigError
from penstock_training.config import RunSettings
from penstock_training.errors import ProcessesLost
from penstock_training.run_folder import RunFolder

OBJECT_STORE_BYTES: Final = 80 << 20
"""Of a cluster that is this run's own: nothing lies in it. Ray asks for as much at least."""
SAID: Final = "said.txt"
"""In the run's folder."""
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "DO_NOT_TRACK": "true",
}


def run(settings: RunSettings, folder: RunFolder) -> None:
    """Until all workers have ended. Raises ProcessesLost when they die too often."""
    os.environ.update(_QUIET)
    try:
        # with these variables set, and not before: Ray reads them once
        import ray
    except ImportError as error:
        raise ConfigError(
            "run.engine: ray is not installed; pip install 'penstock[ray]'"
        ) from error
    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    workers = settings.processes or max(1, gpus)
    with _cluster(ray, settings, workers), _shown(folder.path / SAID):
        _fit(workers, bool(gpus), settings, folder)


def _fit(workers: int, use_gpu: bool, settings: RunSettings, folder: RunFolder) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # what Ray notes of the run; its own checkpoints are not used
    notes = Path(tempfile.mkdtemp(prefix=".ray-", dir=folder.path))
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": str(folder.path)},
        torch_config=TorchConfig(timeout_s=int(settings.collective_timeout_s)),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="run",
            storage_path=str(notes),
            failure_config=FailureConfig(max_failures=settings.max_restarts),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        text = " ".join(str(error).split())
        raise ProcessesLost(f"{text}, after {settings.max_restarts} restarts") from None
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def work(config: dict[str, Any]) -> None:
    """A worker's whole life."""
    from penstock_training.rank import main
    from penstock_training.stopping import StopSignal

    folder = Path(config["folder"])
    # Ray sends a worker no signals that it could act upon: who wants to stop says so in the folder
    with (folder / SAID).open("a", buffering=1) as out:
        code = main(folder, StopSignal(), out)
    if code:
        raise RuntimeError(f"ended with code {code}")


@contextmanager
def _shown(path: Path) -> Iterator[None]:
    """What the workers write there appears here: Ray's own way shows all that Ray's many processes say."""
    path.write_text("")
    ended = threading.Event()

    def follow() -> None:
        with path.open() as said:
            while True:
                last = ended.wait(0.2)
                sys.stderr.write(said.read())
                sys.stderr.flush()
                if last:
                    return

    follower = threading.Thread(target=follow, name="shows what workers say")
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        path.unlink(missing_ok=True)


@contextmanager
def _cluster(ray: Any, settings: RunSettings, workers: int) -> Iterator[None]:
    """The one that the configuration names, or one of this machine's own, of which nothing is left afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # sockets lie in it, deep down, and the path of one may have 107 characters
    room = tempfile.gettempdir()
    scratch = Path(tempfile.mkdtemp(prefix="ray-", dir=room if len(room) < 30 else "/tmp"))
    own: dict[str, Any] = {
        "num_cpus": workers,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": str(scratch),
    }
    where = (
        {"address": settings.ray_address} if settings.ray_address else {"address": "local", **own}
    )
    try:
        ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    except ConnectionError as error:
        raise ConfigError(
            f"run.ray_address: {settings.ray_address} can't be reached: {error}"
        ) from error
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
