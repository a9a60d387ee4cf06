"""What the supervisor and the gateway say to each other."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.workers.message import Message

UNLOADED: Final = "unloaded"
"""The reason of what is unavailable because nobody wants it."""

# ── gateway → supervisor ──────────────────────────────────────────────────────────────────────────────────────────────


class StartWorker(Message, frozen=True):
    """Start a worker process. Answered by WorkerStarted (with one descriptor) or WorkerExited."""

    worker_id: int
    """Chosen by the gateway, never used twice, by later gateways neither."""
    name: str
    """For `ps` and logs: `digits/1 #0`."""
    environment: dict[str, str]
    """Added to the supervisor's own: thread counts, CUDA_VISIBLE_DEVICES."""


class StopWorker(Message, frozen=True):
    """End a worker: SIGTERM, then SIGKILL when `grace_s` is over. Answered by WorkerExited."""

    worker_id: int
    grace_s: float


class WorkerLoaded(Message, frozen=True):
    """The worker has its model. From now on the supervisor keeps it when the gateway crashes."""

    worker_id: int
    key: bytes
    """What was loaded, from which files, as which instance. The supervisor hands it on and never looks into it."""


class ModelReport(Message, frozen=True):
    """One line of the banner and of the repository index."""

    name: str
    version: str
    state: str
    """READY, LOADING, UNLOADING or UNAVAILABLE."""
    reason: str
    backend: str
    instances: int
    devices: str = ""
    """Where these run: `cpu`, or such as `cuda:0, cuda:1`."""


class Report(Message, frozen=True):
    """What is served. Sent once when start-up is over, and at each change after it."""

    models: tuple[ModelReport, ...]
    extensions: tuple[str, ...]
    wanted: dict[str, bool]
    """Models that should be served, whether they can be or not: all but those that were unloaded on request. True: it
    was asked for by its name, and not only because another model needs it."""


class GatewayFailed(Message, frozen=True):
    """The gateway can't go on; the text is for a person. It ends by itself after this."""

    reason: str


class Pong(Message, frozen=True):
    """Answers a Ping: the event loop turns."""

    number: int


# ── supervisor → gateway ──────────────────────────────────────────────────────────────────────────────────────────────


class WorkerStarted(Message, frozen=True):
    """The process runs. One descriptor rides along: the gateway's end of the worker's socket."""

    worker_id: int
    pid: int


class WorkerKept(Message, frozen=True):
    """A loaded worker that an earlier gateway left. One descriptor rides along, as with WorkerStarted."""

    worker_id: int
    pid: int
    name: str
    key: bytes
    """Of WorkerLoaded."""


class Inheritance(Message, frozen=True):
    """Sent once, first of all but WorkerKept: all workers that an earlier gateway left were named."""

    next_worker_id: int
    """Ids below it were used by earlier gateways."""
    wanted: dict[str, bool] | None
    """Of the last Report; None when there was none."""


class WorkerExited(Message, frozen=True):
    """The process ended, or could not be started."""

    worker_id: int
    status: int
    """Exit code; negative: the signal's number."""
    reason: str


class Ping(Message, frozen=True):
    """Answered by Pong, of the same number. Where a front asks everyone for a certificate, it is asked so whether the
    gateway lives."""

    number: int


class TlsState(Message, frozen=True):
    """What is spoken TLS with, for the metrics. Sent at the start and at each change after it."""

    certificate_expires_at: float
    """In Unix seconds."""
    client_ca_expires_at: float
    """Of the last CA that clients' certificates may be of; 0: clients show none."""
    rotations: int
    """How often something new was taken."""
    refused: int
    """… and how often it was not, because it was no good."""


class Drain(Message, frozen=True):
    """Turn not ready, and go on answering: the front stops taking connections by itself."""


class Shutdown(Message, frozen=True):
    """End workers and go. The portable front first answers what is under way; Envoy has done so by then."""


GatewayMessage = StartWorker | StopWorker | WorkerLoaded | Report | GatewayFailed | Pong
SupervisorMessage = (
    WorkerStarted | WorkerKept | Inheritance | WorkerExited | Ping | TlsState | Drain | Shutdown
)

decode_gateway_message = msgspec.msgpack.Decoder(GatewayMessage).decode
decode_supervisor_message = msgspec.msgpack.Decoder(SupervisorMessage).decode
