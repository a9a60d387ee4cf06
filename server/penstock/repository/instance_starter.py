"""Gives a model version its workers: those that an earlier gateway left loaded, else new ones."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from penstock import model_config
from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, Devices
from penstock.devices.placement import Placement, threads_of
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict
from penstock.repository.fingerprint import fingerprint
from penstock.repository.placing import placed
from penstock.workers.control import ControlLink
from penstock.workers.instance import Instance
from penstock.workers.worker_commands import Load
from penstock.workers.worker_events import Ready

log = logging.getLogger(__name__)

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What the usual libraries read to size their thread pools."""


@dataclass(frozen=True)
class InstanceStarter:
    """Starts workers of one model version, again and again as they crash."""

    link: ControlLink
    settings: Settings
    model_dir: Path
    version: int
    source: ConfigDict
    """The configuration as it was read. It tells, with the model's files, what a worker has loaded: what a backend
    fills in follows from them."""
    config: ConfigDict
    """What new workers are told: `source`, or that completed by the first of them."""
    devices: Devices = NO_DEVICES
    """GPUs that workers may be put on."""

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Where each instance that the configuration asks for runs. Raises LoadFailed. Found out once: what it follows
        from stays as it is until the model is loaded anew."""
        return placed(self.config, self.model_dir / str(self.version), self.devices)

    def completed(self, config: ConfigDict) -> InstanceStarter:
        """For all further workers, with the complete configuration."""
        return replace(self, config=config)

    async def __call__(self, index: int) -> Instance:
        """A loaded instance. Raises LoadFailed, or Unavailable without memory for its slabs."""
        instance, _ = await self.start(index)
        return instance

    async def start(self, index: int) -> tuple[Instance, Ready]:
        """A loaded instance, and what the worker said of the model. Raises as `__call__` does."""
        name = f"{worker_prefix(self.model_dir.name, self.version)}{index}"
        # before the load: what changes meanwhile must not be taken for what was loaded
        digest = await asyncio.to_thread(self._digest)
        placements = self.placements
        # a completed configuration may ask for fewer than the one before it
        placement = placements[min(index, len(placements) - 1)]
        where = ",".join(placement.visible or (placement.device,))
        identity = f"{name}\0{where}\0".encode() + digest
        key = hashlib.blake2b(identity, digest_size=32).digest()
        kept = self.link.claim(name, key)
        if kept is not None:
            try:
                instance = Instance(self.link, kept, digest)
                return instance, await self._take_over(instance, placement)
            except LoadFailed as error:
                log.warning("worker %d of %s is replaced: %s", kept.pid, name, error)
        threads = threads_of(placements, index, self.settings.compute_threads)
        environment = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), **placement.environment}
        process = await self.link.start_worker(name, environment)
        instance = Instance(self.link, process, digest)
        ready = await self._load(instance, index, threads, placement)
        self.link.loaded(process, key)
        return instance, ready

    async def _take_over(self, instance: Instance, placement: Placement) -> Ready:
        # it may be busy with a last batch, for as long as any batch may take
        timeout_s = self.settings.execution_timeout_secs or self.settings.model_load_timeout_secs
        try:
            ready = await instance.take_over(timeout_s)
        except BaseException:
            instance.close()
            raise
        instance.placed(placement.device, placement.fallback, ready.fallback)
        return ready

    async def _load(
        self, instance: Instance, index: int, threads: int, placement: Placement
    ) -> Ready:
        name = self.model_dir.name
        command = Load(
            model_name=name,
            version=self.version,
            model_dir=str(self.model_dir),
            config_json=model_config.to_json(self.config),
            instance_name=f"{name}_{index}",
            device=placement.device,
            threads=threads,
        )
        try:
            ready = await instance.load(command, self.settings.model_load_timeout_secs)
        except BaseException:
            instance.close()
            raise
        instance.placed(placement.device, placement.fallback, ready.fallback)
        return ready

    def _digest(self) -> bytes:
        """What a worker has loaded, if it loads now."""
        files = fingerprint(self.model_dir, self.version)
        source = model_config.to_json(self.source)
        content = msgspec.msgpack.encode((os.fsencode(self.model_dir), source, files))
        return hashlib.blake2b(content, digest_size=32).digest()


def worker_prefix(model: str, version: int) -> str:
    """What the names of all the version's workers begin with; the instance's number follows."""
    return f"{model}/{version}#"
