"""What the gateway as a whole is: its name, whether it is ready, and what it can."""

from __future__ import annotations

import asyncio
from typing import Final

import penstock
from penstock.config import Settings
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.log_control import LogControl
from penstock.gateway.trace_control import TraceControl
from penstock.repository.repository import ModelRepository
from penstock.telemetry.tracing.tracing import Tracing

SERVER_NAME: Final = "penstock"

EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "sequence",
    "statistics",
    "trace",
    "logging",
)
"""Extensions of the protocol that always work; `ServerState.extensions` has those that a setting switches on too."""


class ServerState:
    """Live, ready, draining. One a gateway."""

    def __init__(
        self, settings: Settings, repository: ModelRepository, tracing: Tracing | None = None
    ) -> None:
        tracing = tracing or Tracing(settings.tracing)

        self.settings = settings
        self.repository = repository
        self.logs = LogControl(settings.log_settings, repository.set_logging)
        self.traces = TraceControl(tracing, repository)
        self.client_memory = ClientMemory(allowed=settings.allow_client_shm)
        self.version = penstock.__version__
        self.started = False
        """All models that could be loaded at start are."""
        self.draining = asyncio.Event()
        self.changed = asyncio.Condition()
        """Notified whenever readiness may have changed."""
        self._notifying: set[asyncio.Task[None]] = set()

    @property
    def extensions(self) -> tuple[str, ...]:
        """What the metadata advertises: only what works with these settings."""
        shared_memory = ("system_shared_memory",) if self.client_memory.allowed else ()
        return EXTENSIONS + shared_memory

    @property
    def ready(self) -> bool:
        """Whether the server should get traffic."""
        if not self.started or self.draining.is_set():
            return False
        return self.repository.all_ready if self.settings.strict_readiness else True

    def notify(self) -> None:
        """Readiness may have changed: have whoever waits for that look again."""
        task = asyncio.get_running_loop().create_task(self._notify())
        self._notifying.add(task)
        task.add_done_callback(self._notifying.discard)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()
