"""A model repository over real folders, whose workers the test plays."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from fake_workers import FakeLink
from penstock import model_config
from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, Devices
from penstock.repository.repository import ModelRepository
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.control import WorkerProcess
from penstock.workers.worker_commands import Load, Reset, decode_worker_command
from penstock.workers.worker_events import LoadRefused, Ready, WorkerEvent

TENSOR = {"name": "X", "data_type": "TYPE_FP32", "dims": [1]}
_pids = count(4242)


class PlayedWorker:
    """A worker's end. It answers at once, unless it is `mute`, or refuses to load with the reason given."""

    def __init__(
        self,
        channel: Channel,
        refuse: Callable[[Load], str | None],
        fallback: str = "",
    ) -> None:
        self._channel = channel
        self._fallback = fallback
        self._refuse = refuse
        self._loop = asyncio.get_running_loop()
        self._config = b""
        self._answer: WorkerEvent
        self.loads: list[Load] = []
        self.resets = 0
        self.mute = False
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)

    def answer(self) -> None:
        """Its last Load or Reset."""
        self._channel.send(self._answer)

    def close(self) -> None:
        """It is gone."""
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _read(self) -> None:
        try:
            command = decode_worker_command(self._channel.receive()[0])
        except ChannelClosed:
            self._loop.remove_reader(self._channel.fileno())
            return
        match command:
            case Reset(number=number):
                self.resets += 1
                self._answer = Ready(self._config, 1, number, self._fallback)
            case Load():
                self.loads.append(command)
                self._answer = self._load(command)
            case _:
                return
        if not self.mute:
            self.answer()

    def _load(self, command: Load) -> WorkerEvent:
        if reason := self._refuse(command):
            return LoadRefused(reason)
        given = model_config.from_json(command.config_json)
        config = {"input": [TENSOR], "output": [TENSOR]} | {k: v for k, v in given.items() if v}
        self._config = model_config.to_json(config)
        return Ready(self._config, 1, 0, self._fallback)


class LoadingLink(FakeLink):
    """A supervisor whose workers load at once, or refuse with the reason in `refuse` for their model's name."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: dict[str, str] = {}
        self.fallback = ""
        """What all backends say of their models."""
        self.mute: set[str] = set()
        """Names of workers that don't answer by themselves."""
        self.started: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.workers: dict[str, WorkerProcess] = {}
        self.played: dict[str, PlayedWorker] = {}
        self._open: list[PlayedWorker | Channel] = []

    @property
    def loads(self) -> list[Load]:
        """All that this link's own workers were told to load."""
        own = [end for end in self._open if isinstance(end, PlayedWorker)]
        return [load for worker in own for load in worker.loads]

    async def start_worker(self, name: str, environment: Mapping[str, str]) -> WorkerProcess:
        """As ControlLink."""
        self.started.append(name)
        self.environments.append(environment)
        ours, theirs = Channel.pair()
        played = self.played[name] = PlayedWorker(theirs, self._refusal, self.fallback)
        played.mute = name in self.mute
        self._open += [ours, played]
        worker = self.workers[name] = WorkerProcess(len(self._open), next(_pids), ours)
        return worker

    def inherit(self, before: LoadingLink) -> None:
        """The gateway of `before` has crashed: its loaded workers are left to this one's."""
        loop = asyncio.get_running_loop()
        for name, old in before.workers.items():
            keys = [key for worker, key in before.told_loaded if worker is old]
            if old.exited.done() or not keys:
                continue
            loop.remove_reader(old.channel.fileno())
            channel = Channel(socket.socket(fileno=os.dup(old.channel.fileno())))
            worker = self.workers[name] = WorkerProcess(old.worker_id, old.pid, channel)
            self.kept[name] = keys[-1], worker
            self.told_loaded.append((worker, keys[-1]))
            self.played[name] = before.played[name]
            self._open.append(channel)

    def close(self) -> None:
        """Close all that is open."""
        for end in self._open:
            end.close()

    def _refusal(self, command: Load) -> str | None:
        return self.refuse.get(f"{command.model_name}/{command.version}")


class Bench:
    """A repository over folders."""

    def __init__(self, folders: list[Path], devices: Devices = NO_DEVICES, **settings: Any) -> None:
        self.link = LoadingLink()
        self.changes = 0
        self.repository = ModelRepository(
            Settings(model_repository=tuple(folders), default_threads=4, **settings),
            self.link,  # type: ignore[arg-type]
            devices=lambda: devices,
        )
        self.repository.on_change = self._changed

    def _changed(self) -> None:
        self.changes += 1

    @property
    def lines(self) -> list[tuple[str, str, str, str]]:
        """Name, version, state and reason of all lines of the index."""
        return [(r.name, r.version, r.state, r.reason) for r in self.repository.index()]

    @property
    def states(self) -> dict[str, str]:
        """`name/version` → state."""
        return {f"{name}/{version}": state for name, version, state, _ in self.lines}


Make = Callable[..., Bench]


async def explicit(make: Make, *folders: str, **settings: Any) -> Bench:
    """One in explicit mode, started."""
    bench = make(*folders, model_control_mode="explicit", **settings)
    await bench.repository.start()
    return bench


def crash(make: Make, bench: Bench, **settings: Any) -> Bench:
    """Another gateway's repository, which gets the loaded workers of `bench` that still run."""
    after = make(**settings)
    after.link.wanted = bench.repository.wanted()
    after.link.inherit(bench.link)
    return after


def write(folder: Path, *versions: int | str, config: str = "") -> Path:
    """A model's folder; its model files are never looked into here."""
    folder.mkdir(parents=True, exist_ok=True)
    for version in versions:
        (folder / str(version)).mkdir(exist_ok=True)
        (folder / str(version) / "model.py").touch()
    if config:
        (folder / "config.pbtxt").write_text(config)
    return folder
