"""Loads models for real, each in a worker of its own, only to see whether they can be, and what they complete."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from penstock import model_config
from penstock.backends.hidden_tensors import without
from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, VISIBLE, Devices, Inventory
from penstock.devices.placement import Placement
from penstock.image_config import as_clients_see
from penstock.model_config import ConfigDict
from penstock.padding_config import padding_of
from penstock.repository.config_check import check_complete
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.instance_starter import InstanceStarter
from penstock.repository.own_parameters import own_parameters
from penstock.secrets_config import variables_of
from penstock.supervisor.control import ControlChannel
from penstock.supervisor.worker_processes import WorkerProcesses
from penstock.telemetry.latencies import latencies_of
from penstock.workers.channel import Channel
from penstock.workers.control import ControlLink
from penstock.workers.supervisor_messages import (
    GatewayMessage,
    Inheritance,
    StartWorker,
    StopWorker,
    WorkerLoaded,
)


@dataclass(frozen=True, slots=True)
class Tried:
    """What is known of a version that can be loaded."""

    config: ConfigDict
    """Complete."""
    fallbacks: tuple[tuple[str, str], ...] = ()
    """Why it does not run as it was asked for: what asks for it (empty: the whole configuration), and the reason."""


class Trial:
    """Supervisor and gateway in one, as far as loading goes. `trial` makes and ends it."""

    def __init__(
        self, settings: Settings, link: ControlLink, devices: Devices = NO_DEVICES
    ) -> None:
        self._devices = devices
        self._settings = settings
        self._link = link
        self._loads = asyncio.Semaphore(settings.model_load_thread_count)

    async def load(self, model_dir: Path, version: int, config: ConfigDict) -> Tried:
        """Load a version; its worker has ended afterwards.

        Raises LoadFailed or ConfigError with the reason.
        """
        starter = InstanceStarter(
            self._link,
            self._settings,
            model_dir,
            version,
            source=config,
            config=config,
            devices=self._devices,
        )
        async with self._loads:
            own_parameters(config)
            instance, ready = await starter.start(0)
            try:
                message = config_to_proto(model_config.from_json(ready.config_json))
                complete = proto_to_config(message)
                check_complete(complete, f"model '{model_dir.name}'")
                model_config.parse(complete)
                latencies_of(self._settings.metrics, complete)
                shown = as_clients_see(without(complete, padding_of(complete).masks))
                return Tried(shown, tuple(_fallbacks(starter.placements, ready.fallback)))
            finally:
                instance.close()
                await instance.process.exited


def _fallbacks(placed: Sequence[Placement], of_backend: str) -> Iterator[tuple[str, str]]:
    """Each once, though all instances of a group may have it."""
    found = {f"instance_group[{each.group}]": each.fallback for each in placed if each.fallback}
    yield from found.items()
    if of_backend:
        yield "", of_backend


@asynccontextmanager
async def trial(settings: Settings) -> AsyncIterator[Trial]:
    """All workers have ended at the end, whatever happens."""
    workers = WorkerProcesses(variables_of(settings))
    ours, theirs = Channel.pair()

    def on_message(message: GatewayMessage) -> None:
        match message:
            case StartWorker():
                workers.start(message)
            case WorkerLoaded():
                workers.loaded(message)
            case StopWorker():
                workers.stop(message)

    control = ControlChannel(ours, on_message)
    workers.hand_over(control.send)
    control.send(Inheritance(workers.next_id, None))
    link = ControlLink(theirs)
    link.logging = structs.replace(settings.log_settings, info=False)
    try:
        found = await asyncio.to_thread(Inventory(os.environ.get(VISIBLE)).found)
        yield Trial(settings, link, found)
    finally:
        await workers.stop_all(0)
        link.close()
        control.close()
