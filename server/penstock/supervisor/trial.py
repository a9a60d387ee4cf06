"""Loads models for real, each in a worker of its own, only to see whether they can be, and what they complete."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import structs

from penstock import model_config
from penstock.backends.hidden_tensors import without
from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, VISIBLE, Devices, Inventory
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
from penstock.workers.messages import (
    GatewayMessage,
    Inheritance,
    StartWorker,
    StopWorker,
    WorkerLoaded,
)


class Trial:
    """Supervisor and gateway in one, as far as loading goes. `trial` makes and ends it."""

    def __init__(
        self, settings: Settings, link: ControlLink, devices: Devices = NO_DEVICES
    ) -> None:
        self._devices = devices
        self._settings = settings
        self._link = link
        self._loads = asyncio.Semaphore(settings.model_load_thread_count)

    async def load(self, model_dir: Path, version: int, config: ConfigDict) -> ConfigDict:
        """The complete configuration of a version that can be loaded; its worker has ended.

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
                return as_clients_see(without(complete, padding_of(complete).masks))
            finally:
                instance.close()
                await instance.process.exited


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
