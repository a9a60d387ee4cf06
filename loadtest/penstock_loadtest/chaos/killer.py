"""kill -9 of workers, one or all of a model's at once, and loads under way with them."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import tritonclient.grpc.aio

from penstock_loadtest.chaos.asking import Scene
from penstock_loadtest.chaos.books import Kind, Outcome
from penstock_loadtest.chaos.explain import explain
from penstock_loadtest.chaos.family import read_family
from penstock_loadtest.chaos.leavers import sleep_until_stop
from penstock_loadtest.chaos.models import FRAIL, RELOADED, write_generation

MEAN_PAUSE_S: Final = 1.0
SPARED_S: Final = 12.5
"""A worker that crashes twice within 10 s is a crash loop, whose back-off is the server's policy: no instance is killed
more often than this."""
ALL_SHARE: Final = 0.3
"""Of the kills: all workers of a model at once."""
CONTROL: Final = "(load requests)"
"""Stands for the model in the books of requests that ask no model anything."""


class Killer:
    """Kills workers by chance, sparing `frail`, whose poison does it."""

    def __init__(self, scene: Scene, supervisor: int) -> None:
        self._scene = scene
        self._supervisor = supervisor
        self._rng = scene.rng("killer")
        self._killed_s: dict[str, float] = {}
        self._model_killed_s: dict[str, float] = {}
        self.kills = 0

    async def run(self) -> None:
        """Until the scene ends."""
        while not self._scene.stop.is_set():
            await sleep_until_stop(self._scene, self._rng.expovariate(1 / MEAN_PAUSE_S))
            if not self._scene.stop.is_set():
                self.kill_some()

    def kill_some(self) -> None:
        """One worker, or all of one model's, of those that are not spared now."""
        now_s = time.monotonic()
        found = [
            (label, pid)
            for label, pid in read_family(self._supervisor).workers
            if now_s - self._killed_s.get(label, float("-inf")) > SPARED_S
            and not label.startswith(f"{FRAIL.name}/")
        ]
        if not found:
            return
        victim = self._rng.choice(found)
        if self._rng.random() < ALL_SHARE:
            victims = [one for one in found if _model(one[0]) == _model(victim[0])]
        else:
            victims = [victim]
        for label, pid in victims:
            self._model_killed_s[_model(label)] = self._killed_s[label] = now_s
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def killed_since(self, model: str, time_s: float) -> bool:
        """Whether a worker of the model was killed since."""
        return self._model_killed_s.get(model, float("-inf")) >= time_s


class Reloader:
    """Loads RELOADED anew, over and over. Each load answers with a number of its own."""

    def __init__(self, scene: Scene, repository: Path, killer: Killer | None) -> None:
        self._scene = scene
        self._repository = repository
        self._killer = killer
        self.loads = 0

    async def run(self, mean_pause_s: float) -> None:
        """Until the scene ends."""
        rng: random.Random = self._scene.rng("reloader")
        async with tritonclient.grpc.aio.InferenceServerClient(self._scene.grpc) as client:
            while not self._scene.stop.is_set():
                await self.reload(client)
                await sleep_until_stop(self._scene, rng.expovariate(1 / mean_pause_s))

    async def reload(self, client: tritonclient.grpc.aio.InferenceServerClient) -> None:
        """One load request, and its entry in the books."""
        generations = self._scene.generations
        generations.newest += 1
        write_generation(self._repository, RELOADED.name, generations.newest)
        allowed = frozenset({Kind.OK, Kind.LOAD_KILLED})
        ticket = self._scene.books.open("reloader", CONTROL, allowed)
        try:
            await client.load_model(RELOADED.name)
        except Exception as error:  # noqa: BLE001 - the books say which ones may be
            outcome = explain(error)
            if self._killer is not None and self._killer.killed_since(RELOADED.name, ticket.sent_s):
                outcome = Outcome(Kind.LOAD_KILLED, outcome.detail)
            self._scene.books.close(ticket, outcome)
        else:
            generations.oldest = generations.newest
            self.loads += 1
            self._scene.books.close(ticket, Outcome(Kind.OK))


def _model(label: str) -> str:
    return label.partition("/")[0]
