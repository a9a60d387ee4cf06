"""One version of one model: its configuration, signature, labels, statistics, and the pool that runs it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock import model_config
from penstock.config import Settings
from penstock.errors import LoadFailed, PenstockError
from penstock.model_config import ConfigDict, ModelConfig
from penstock.repository.config_check import check_complete
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.labels import read_labels
from penstock.repository.pool import Pool
from penstock.repository.signature import Signature
from penstock.scheduling.batcher import BatchPolicy
from penstock.telemetry.statistics import ModelStatistics
from penstock.workers.control import ControlLink
from penstock.workers.instance import Instance
from penstock.workers.messages import Load, Ready

log = logging.getLogger(__name__)

THREAD_VARIABLES: tuple[str, ...] = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What the usual libraries read to size their thread pools."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded version. Made by `load`, ended by `close`."""

    name: str
    version: int
    config_dict: ConfigDict
    """Complete, in Triton's full JSON form."""
    config: ModelConfig
    signature: Signature
    labels: Mapping[str, Sequence[str]]
    """Output → class names, for the classification extension."""
    statistics: ModelStatistics
    pool: Pool
    timeout_us: int | None
    """The server's own bound on a request's time: the SLO, or the queue policy's; None: none."""

    @property
    def ready(self) -> bool:
        """Some instance can take work."""
        return self.pool.ready

    @property
    def accepts(self) -> bool:
        """Requests may come: some instance can take them, or one that crashed should soon be back."""
        return self.pool.accepts

    async def close(self, grace_s: float) -> None:
        """Answer what is here for up to `grace_s`, then end the workers: their memory is free after that."""
        self.statistics.ready = False
        await self.pool.close(grace_s)


@dataclass(frozen=True, slots=True)
class InstanceStarter:
    """Starts workers of one model version, again and again as they crash."""

    link: ControlLink
    settings: Settings
    model_dir: Path
    name: str
    version: int
    config_json: bytes
    threads: int

    async def __call__(self, index: int) -> Instance:
        """A loaded instance. Raises LoadFailed, or Unavailable without memory for its slabs."""
        instance, _ = await self.start(index)
        return instance

    async def start(self, index: int) -> tuple[Instance, Ready]:
        """A loaded instance, and what the worker said of the model. Raises as `__call__` does."""
        label = f"{self.name}/{self.version}#{index}"
        environment: dict[str, str] = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        process = await self.link.start_worker(label, environment)
        instance = Instance(self.link, process)
        command = Load(
            model_name=self.name,
            version=self.version,
            model_dir=str(self.model_dir),
            config_json=self.config_json,
            instance_name=f"{self.name}_{index}",
            device="cpu",
            threads=self.threads,
        )
        try:
            return instance, await instance.load(command, self.settings.model_load_timeout_secs)
        except BaseException:
            instance.close()
            raise


async def load(
    link: ControlLink,
    settings: Settings,
    model_dir: Path,
    version: int,
    config: ConfigDict,
    on_change: Callable[[], None],
) -> ServedModel:
    """Load a version on all its instances.

    The first worker reads the model and completes the configuration; the others follow at once.
    Raises LoadFailed or ConfigError with the reason, or Unavailable without memory for slabs.
    """
    started = time.monotonic()
    name = model_dir.name
    statistics = ModelStatistics(name, str(version), config.get("metric_tags", {}))
    first = _starter(link, settings, model_dir, version, config, _instance_count(config))
    instance, ready = await first.start(0)
    try:
        # through the message and back: the full form, with all fields, as `GET /config` shows it
        complete = proto_to_config(config_to_proto(model_config.from_json(ready.config_json)))
        check_complete(complete, f"model '{name}'")
        parsed = model_config.parse(complete)
        labels = _labels(parsed, model_dir)
    except PenstockError:
        instance.close()
        raise
    count = _instance_count(complete)
    starter = _starter(link, settings, model_dir, version, complete, count)
    policy = _policy(parsed, settings)
    batching = parsed.dynamic_batching
    preserve = batching is not None and batching.preserve_ordering
    pool = Pool(policy, preserve, statistics, starter, on_change)
    pool.add(instance, 0)
    await _add_others(pool, starter, count)
    if not pool.ready:
        raise LoadFailed(f"the worker process ended right after loading: {pool.last_crash}")
    statistics.load_duration_s = time.monotonic() - started
    return ServedModel(
        name,
        version,
        complete,
        parsed,
        Signature(parsed),
        labels,
        statistics,
        pool,
        timeout_us=None,
    )


async def _add_others(pool: Pool, starter: InstanceStarter, count: int) -> None:
    """Start all instances but the first. When one can't be, the pool is closed and its error raised."""
    others = await asyncio.gather(
        *(starter(index) for index in range(1, count)), return_exceptions=True
    )
    for index, other in enumerate(others, start=1):
        if isinstance(other, Instance):
            pool.add(other, index)
    for other in others:
        if isinstance(other, BaseException):
            await pool.close(0)
            raise other


def _labels(config: ModelConfig, model_dir: Path) -> dict[str, Sequence[str]]:
    """Output → class names, of those that have a label file."""
    return {
        output.name: read_labels(model_dir, output.label_filename)
        for output in config.output
        if output.label_filename
    }


def _starter(
    link: ControlLink,
    settings: Settings,
    model_dir: Path,
    version: int,
    config: ConfigDict,
    count: int,
) -> InstanceStarter:
    threads = max(1, settings.compute_threads // count)
    text = model_config.to_json(config)
    return InstanceStarter(link, settings, model_dir, model_dir.name, version, text, threads)


def _instance_count(config: ConfigDict) -> int:
    groups = config.get("instance_group") or [{}]
    return sum(group.get("count") or 1 for group in groups)


def _policy(config: ModelConfig, settings: Settings) -> BatchPolicy:
    batching = config.dynamic_batching
    alone = BatchPolicy(
        max_batch_bytes=int(settings.max_batch_bytes),
        max_queue_bytes=int(settings.max_queue_bytes),
        max_queue_requests=settings.max_queue_requests,
    )
    if batching is None or config.max_batch_size == 0:
        return alone
    own_bound = batching.default_queue_policy.max_queue_size
    return replace(
        alone,
        max_rows=config.max_batch_size,
        merge=True,
        preferred_rows=batching.preferred_batch_size,
        max_delay_us=batching.max_queue_delay_microseconds,
        max_queue_requests=own_bound or settings.max_queue_requests,
    )
